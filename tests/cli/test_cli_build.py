import re
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cnnsvm.cli import main
from cnnsvm.data.manifest import read_manifest


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 256, (72, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def test_folder_in_records_out(photos, tmp_path, capsys):
    (photos / "text.png").write_text("no image")
    out = tmp_path / "records"
    flags = ["--variants", "both", "--edge", "blur:1", "--post-processing", "jpeg:90"]
    flags += ["--schemas", "mission", "rectangles:0.05-0.4"]
    assert main(["build", str(photos), str(out), *flags]) == 0
    said = capsys.readouterr().out
    assert f"4 records in {out}: 24 spliced, 24 regenerated, 4 original" in said
    assert "1 could not be made" in said
    manifest = read_manifest(out / "manifest.parquet")
    assert set(manifest["history"]) == {"jpeg:90"}
    assert manifest["mask_schema"].nunique() == 6


def test_zip_of_sources_in_shards(photos, tmp_path, capsys):
    archive = shutil.make_archive(str(tmp_path / "photos"), "zip", photos)
    out = tmp_path / "records"
    for index in (1, 2):
        arguments = ["build", archive, str(out), "--schemas", "left", "--shard", f"{index}/2"]
        assert main([*arguments, "--no-panels", "--jobs", "1"]) == 0
        assert ("Other shards are missing" in capsys.readouterr().out) == (index == 1)
    assert len(read_manifest(out / "manifest.parquet")) == 8


def test_finished_repaintings_of_records(photos, tmp_path, capsys):
    records = tmp_path / "in"
    for i in range(3):
        (records / str(i)).mkdir(parents=True)
        shutil.copy(photos / f"{i}.png", records / str(i) / "original.png")
        fake = Image.open(photos / f"{i}.png").point(lambda v: 255 - v)
        fake.save(records / str(i) / "inpainting.png")
    (records / "1" / "inpainting.png").write_bytes(b"cut")
    out = tmp_path / "out"
    assert main(["build", str(records), str(out), "--engine", "file:inpainting.png"]) == 0
    assert re.search(r"1 could not be .*", capsys.readouterr().out)
    manifest = read_manifest(out / "manifest.parquet")
    assert set(manifest["source_id"]) == {"0", "2"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--engine", "magic"], "no engine 'magic'"),
        (["--schemas", "circle"], "no mask schema 'circle'"),
        (["--shard", "5/4"], "1 <= i <= n"),
        (["--edge", "soft"], "blur:R"),
        (["--prompt", "trees"], "takes no prompt"),
        (["--post-processing", "bmp"], "cannot read 'bmp'"),
        (
            ["--engine", "file:gone.png"],
            r"none of \d+ sources can be used.*gone\.png: no such file",
        ),
    ],
)
def test_mistakes_are_one_message(flags, message, photos, tmp_path, capsys):
    assert main(["build", str(photos), str(tmp_path / "out"), *flags]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error, re.DOTALL)
    assert "Traceback" not in error


def test_errors_are_listed(photos, tmp_path, capsys):
    Image.new("RGB", (10, 60)).save(photos / "small.png")
    out = tmp_path / "out"
    assert main(["build", str(photos), str(out), "--schemas", "left"]) == 0
    listed = pd.read_csv(out / "errors.csv")
    assert list(listed.columns) == ["path", "reason"]
    assert "10x60 pixels; a source has at least 16 a side" in listed["reason"][0]
    assert "1 could not be made" in capsys.readouterr().out
    assert main(["build", str(photos), str(tmp_path / "strict"), "--strict"]) == 2
