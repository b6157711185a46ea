import hashlib
import importlib.util
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cnnsvm.data.images import load_image

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script():
    path = ROOT / "experiments" / "collect_photographs.py"
    spec = importlib.util.spec_from_file_location("collect_photographs", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def unpacked(tmp_path):
    """A small and a large photograph in the folders of two packages, a stray one, and a list."""
    rng = np.random.default_rng(0)
    rows = []
    for package, side in (("small", 300), ("large", 1400)):
        coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
        file = tmp_path / "unpacked" / package / "img" / "a b.jpg"
        file.parent.mkdir(parents=True)
        coarse.resize((side, side // 2)).save(file, quality=90)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        rows.append(("npm", package, "1.0", "img/a b.jpg", digest))
    Image.new("RGB", (400, 400)).save(tmp_path / "unpacked" / "stray.png")
    table = pd.DataFrame(rows, columns=["from", "package", "version", "file", "sha256"])
    table.to_csv(tmp_path / "list.csv", index=False)
    return tmp_path / "unpacked"


def collect(script, unpacked, out, *more):
    options = ["--out", str(out), "--list", str(unpacked.parent / "list.csv"), *more]
    return script.main([str(unpacked), *options])


def test_small_ones_are_copied_and_large_ones_published(script, unpacked, tmp_path):
    assert collect(script, unpacked, tmp_path / "out") == 0
    files = {path.name.split("-")[0]: path for path in (tmp_path / "out").iterdir()}
    assert set(files) == {"small", "large"}
    assert files["small"].read_bytes() == (unpacked / "small" / "img" / "a b.jpg").read_bytes()
    height, width = load_image(files["large"]).shape[:2]
    assert 480 <= width <= 1000
    assert height == pytest.approx(width / 2, abs=1)
    assert " " not in files["large"].name


def test_the_same_photographs_wherever_they_lie(script, unpacked, tmp_path):
    assert collect(script, unpacked, tmp_path / "first") == 0
    (unpacked / "large").rename(unpacked / "elsewhere")
    assert collect(script, unpacked, tmp_path / "second") == 0
    for path in (tmp_path / "first").iterdir():
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes()


def test_missing_ones_are_told_by_package(script, unpacked, tmp_path, capsys, caplog):
    (unpacked / "large" / "img" / "a b.jpg").unlink()
    assert collect(script, unpacked, tmp_path / "out") == 2
    assert "1 of 2 photographs are not below" in capsys.readouterr().err
    assert "large: 1 missing, of npm's 1.0" in caplog.text
    assert not (tmp_path / "out").exists()
    assert collect(script, unpacked, tmp_path / "out", "--allow-missing") == 0
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_no_folder_is_told(script, tmp_path, capsys):
    assert script.main([str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 2
    assert "none is no folder. Unpack the packages of photographs.csv" in capsys.readouterr().err


def test_publishing_varies_and_is_an_image(script):
    image = np.random.default_rng(1).integers(0, 256, (700, 1600, 3), dtype=np.uint8)
    made = [script.publish(image, np.random.default_rng(seed)) for seed in range(30)]
    assert {suffix for _, suffix in made} == {".jpg", ".png"}
    sizes = {Image.open(io.BytesIO(content)).size for content, _ in made}
    assert len(sizes) > 20
    assert all(480 <= width <= 1000 for width, _ in sizes)


def test_the_list_names_each_photograph_once(script):
    listed = pd.read_csv(script.LIST)
    assert len(listed) == listed["sha256"].nunique() == 198
    assert listed["sha256"].str.fullmatch("[0-9a-f]{64}").all()
    assert set(listed["from"]) == {"npm", "Debian"}
    assert listed.notna().all(axis=None)
