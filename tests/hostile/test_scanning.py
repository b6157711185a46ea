"""Folders with files that are no images, that do not say that they are, or that do not end."""

import csv
import io
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cnnsvm.cli import main
from cnnsvm.data.scanning import each_file, list_images, scan_images


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "photos"
    root.mkdir()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8))
    for name, format in (("a.jfif", "JPEG"), ("b.mpo", "JPEG"), ("without", "PNG"), ("d.x", "GIF")):
        image.save(root / name, format)
    (root / "sub").mkdir()
    image.save(root / "sub" / "e.PNG")
    image.save(root / ".hidden.png")
    return root


def test_images_are_known_by_name_or_by_how_they_begin(folder):
    found = [path.relative_to(folder).as_posix() for path in list_images(folder)]
    assert found == ["a.jfif", "b.mpo", "d.x", "sub/e.PNG", "without"]


def test_what_is_skipped_is_listed_with_the_reason(folder):
    (folder / "notes.txt").write_text("text")
    (folder / "photo.nef").write_bytes(b"II*\0" + bytes(20))
    (folder / "layers.psd").write_bytes(bytes(20))
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    os.mkfifo(folder / "pipe.png")
    skipped = {path.name: reason for path, reason in scan_images(folder).skipped}
    assert skipped == {
        "notes.txt": "not an image",
        "photo.nef": "a raw file, which has to be developed first",
        "layers.psd": "not a format that is read here (.psd)",
        "gone.png": "a link to what is not there",
        "pipe.png": "a pipe, socket or device",
    }


def test_links_to_folders_are_followed_once(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "elsewhere" / "f.png")
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "sub" / "loop").symlink_to(folder)
    found = [path.relative_to(folder).as_posix() for path in list_images(folder)]
    assert found == ["a.jfif", "b.mpo", "d.x", "link/f.png", "sub/e.PNG", "without"]


def test_strict_makes_a_skipped_file_a_failure(folder, tmp_path, capsys, model):
    (folder / "notes.txt").write_text("text")
    call = ["predict", str(folder), "--model", str(model)]
    assert main(call) < 2
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["error"] for row in rows if row["error"]] == ["skipped: not an image"]
    assert main([*call, "--strict"]) == 2


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from tiny_detector import cnn, detector

    images = list(np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), dtype=np.uint8))
    fitted = detector(cnn(finetune="none")).fit(images, [0, 1] * 6)
    return fitted.save_pretrained(tmp_path_factory.mktemp("fitted") / "model")


def test_a_reader_that_has_enough_ends_quietly(folder, model):
    command = f"{sys.executable} -m cnnsvm predict --model {model} {folder} | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, check=False)
    assert done.stdout.startswith(b"path,")
    assert b"Broken pipe" not in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_file_that_goes_while_its_folder_is_listed_ends_no_scan(tmp_path):
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    for file in files:
        file.touch()
    listed = each_file(tmp_path)
    first, _ = next(listed)
    (gone,) = (file for file in files if str(file) != first)
    gone.unlink()
    ((path, reason),) = listed
    assert path == str(gone)
    assert "gone" in reason
