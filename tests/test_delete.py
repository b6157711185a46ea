import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from PIL import Image

SCRIPT = Path(__file__).parents[1] / "delete.py"
NAMES = ("original.png", "inpainting.png", "mask.png", "group.png")


@pytest.fixture(scope="module")
def script():
    spec = spec_from_file_location("delete", SCRIPT)
    module = module_from_spec(spec)
    sys.modules["delete"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["delete"]


def write(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (8, 8), (len(name), 0, 0)).save(folder / name)
    return folder


def files(root):
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir()}


@pytest.fixture
def download(tmp_path):
    root = tmp_path / "download"
    for record in ("1", "22"):
        write(root / "archive/similar/inpainting" / record, *NAMES)
    write(root / "archive/similar/cutmix/1", "source.png", "mask.png")
    (root / "README.txt").write_text("keep me")
    return root


LEFT = {"archive/similar/inpainting/1/original.png", "archive/similar/inpainting/22/original.png"}
UNTOUCHED = {
    "README.txt",
    "archive/similar/cutmix/1/source.png",
    "archive/similar/cutmix/1/mask.png",
}


def test_a_dry_run_counts_and_deletes_nothing(script, download, capsys):
    before = files(download)
    assert script.main([str(download)]) == 0
    assert files(download) == before
    printed = capsys.readouterr().out
    size = sum((download / name).stat().st_size for name in before - LEFT - UNTOUCHED)
    assert "2 originals stay." in printed
    assert f"6 files to delete (2 inpainting, 2 mask, 2 group), {size:,} bytes." in printed
    assert "Add --yes" in printed


def test_only_the_originals_stay_and_twice_is_safe(script, download, capsys):
    assert script.main([str(download), "--yes"]) == 0
    assert files(download) == LEFT | UNTOUCHED
    assert "6 files deleted." in capsys.readouterr().out
    assert script.main([str(download), "--yes"]) == 0
    assert files(download) == LEFT | UNTOUCHED
    assert "0 files deleted." in capsys.readouterr().out


def test_the_seed_layout(script, tmp_path):
    write(tmp_path / "5", "original.jpg", "inpainting_top.webp", "mask_top.png", "group_top.png")
    assert script.main([str(tmp_path), "--yes"]) == 0
    assert files(tmp_path) == {"5/original.jpg"}


def test_unknown_files_are_counted_and_left(script, tmp_path, capsys):
    folder = write(tmp_path / "5", *NAMES, "photo.png", "original_small.png", "masked.png")
    (folder / "mask.txt").touch()
    (folder / "mask").mkdir()
    assert script.main([str(tmp_path), "--yes"]) == 0
    kept = {"original.png", "photo.png", "original_small.png", "masked.png", "mask.txt"}
    assert files(folder) == kept
    assert "5 other files are left" in capsys.readouterr().out


@pytest.mark.parametrize("original", [None, b"", b"text"])
def test_a_record_without_a_readable_original_keeps_everything(script, tmp_path, capsys, original):
    write(tmp_path / "1", *NAMES)
    broken = write(tmp_path / "2", *NAMES)
    (broken / "original.png").unlink()
    if original is not None:
        (broken / "original.png").write_bytes(original)
    before = files(broken)
    assert script.main([str(tmp_path), "--yes"]) == 0
    assert files(broken) == before
    assert files(tmp_path / "1") == {"original.png"}
    assert "1 records stay whole" in capsys.readouterr().out


@pytest.mark.parametrize(
    "names",
    [(), ("a/photo.png", "mask.png"), ("1/inpainting.png", "1/mask.png"), ("Real/original.png",)],
)
def test_another_layout_is_refused(script, tmp_path, capsys, names):
    for name in names:
        write((tmp_path / name).parent, Path(name).name)
    before = files(tmp_path)
    assert script.main([str(tmp_path), "--yes"]) == 2
    assert files(tmp_path) == before
    assert "refused, no record folder" in capsys.readouterr().err


def test_a_missing_folder_is_refused(script, tmp_path):
    assert script.main([str(tmp_path / "none"), "--yes"]) == 2


@pytest.mark.parametrize("link", ["inpainting/2", "inpainting/1/mask_2.png"])
def test_links_are_not_followed(script, tmp_path, link):
    outside = write(tmp_path / "outside", *NAMES)
    root = tmp_path / "download"
    write(root / "inpainting/1", *NAMES)
    target = outside if link.endswith("/2") else outside / "mask.png"
    (root / link).symlink_to(target)
    assert script.main([str(root), "--yes"]) == 0
    assert files(outside) == set(NAMES)
    assert (root / link).is_symlink()
    assert not (root / "inpainting/1/mask.png").exists()


def test_a_link_to_the_records_is_not_followed(script, tmp_path):
    write(tmp_path / "outside/similar/inpainting/1", *NAMES)
    root = tmp_path / "download"
    root.mkdir()
    (root / "archive").symlink_to(tmp_path / "outside")
    assert script.main([str(root), "--yes"]) == 2
    assert files(tmp_path / "outside/similar/inpainting/1") == set(NAMES)


def test_the_original_may_not_be_a_link(script, tmp_path):
    write(tmp_path / "other", "photo.png")
    folder = write(tmp_path / "records/1", *NAMES[1:])
    (folder / "original.png").symlink_to(tmp_path / "other/photo.png")
    assert script.main([str(tmp_path / "records"), "--yes"]) == 2
    assert files(folder) == set(NAMES)


def test_failures_are_told(script, download, capsys, monkeypatch):
    def refuse(self, missing_ok=False):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    assert script.main([str(download), "--yes"]) == 1
    captured = capsys.readouterr()
    assert captured.err.count("Permission denied") == 6
    assert "0 files deleted." in captured.out


def test_it_runs_as_a_script(download):
    command = [sys.executable, str(SCRIPT), str(download)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "6 files to delete" in done.stdout
    asked = subprocess.run([*command[:2], "--help"], capture_output=True, text=True, check=True)
    assert "Originals and files of any" in asked.stdout
