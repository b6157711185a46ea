import zipfile

import numpy as np
import pytest
from PIL import Image

from cnnsvm.cli import main


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Three records in a zip, one of them with a damaged inpainting."""
    folder = tmp_path_factory.mktemp("data")
    for i in range(3):
        record = folder / "records" / f"{i:04}"
        record.mkdir(parents=True)
        for j, name in enumerate(("original", "inpainting")):
            pixels = np.random.default_rng(2 * i + j).integers(0, 256, (48, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(record / f"{name}.png")
        Image.fromarray(np.arange(48)[:, None].repeat(64, axis=1) < 24).save(record / "mask.png")
    broken = folder / "records" / "0002" / "inpainting.png"
    broken.write_bytes(broken.read_bytes()[:-2000])
    with zipfile.ZipFile(folder / "records.zip", "w") as packed:
        for path in sorted((folder / "records").rglob("*.png")):
            packed.write(path, path.relative_to(folder / "records"))
    return folder / "records.zip"


def test_a_zip_becomes_one_page(archive, tmp_path, capsys):
    out = tmp_path / "new" / "page.html"
    assert main(["explore", "--data", str(archive), "--out", str(out)]) == 0
    page = out.read_text()
    assert "<title>Data set: records</title>" in page
    assert 'src="http' not in page
    assert "<script" not in page
    assert page.count("<svg") >= 7
    assert out.stat().st_size < 1_000_000
    assert [path.name for path in out.parent.iterdir() if path.is_file()] == ["page.html"]
    said = capsys.readouterr().out
    assert "unreadable images (1)" in said
    assert said.endswith(f"{out}\n")


def test_without_data_the_samples_are_shown(tmp_path, capsys):
    out = tmp_path / "page.html"
    assert main(["explore", "--out", str(out), "--sample", "6"]) == 0
    assert "These are sources only" in capsys.readouterr().out
    assert "Data set: samples" in out.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "nowhere: no such file or folder"),
        (["--sample", "0"], "max_images must be at least 1"),
        (["--groups", "("], "not a regular expression"),
    ],
)
def test_mistakes_are_one_message(archive, tmp_path, capsys, arguments, message):
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (20, 20)).save(folder / "a.png")
    usual = ["--data", str(folder), "--out", str(tmp_path / "page.html")]
    assert main(["explore", *usual, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "page.html").exists()
