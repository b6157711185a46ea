import os
import sys

import numpy as np
import pytest
from PIL import Image

from cnnsvm.data.images import load_image
from cnnsvm.data.manifest import check_manifest
from cnnsvm.data.readers import DatasetError, MissingDataError, open_dataset, samples, write_samples


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples")
    return folder, write_samples(folder)


def test_there_are_enough_tiles_of_enough_photographs(written):
    _, manifest = written
    assert len(manifest) >= 60
    assert manifest["source_id"].nunique() >= 15
    assert manifest["source_id"].value_counts().max() <= 6
    assert (manifest["label"] == 0).all()
    check_manifest(manifest)


def test_the_group_is_the_photograph_also_for_the_stereo_pair(written):
    _, manifest = written
    for path, source in zip(manifest["path"], manifest["source_id"], strict=True):
        assert os.path.basename(path).rpartition("_")[0] == source
    assert (manifest["source_id"] == "motorcycle").sum() == 4
    assert not manifest["source_id"].str.contains("left|right").any()


def test_tiles_are_lossless_pieces_at_native_resolution(written):
    folder, manifest = written
    assert (manifest[["width", "height"]] == 256).all(axis=None)
    astronaut = load_image(samples._find_sample("scikit-image", "skimage", "data/astronaut.png"))
    for k, (y, x) in enumerate([(0, 0), (0, 256), (256, 0), (256, 256)]):
        piece = astronaut[y : y + 256, x : x + 256]
        np.testing.assert_array_equal(load_image(folder / f"astronaut_{k}.png"), piece)


def test_tiles_hold_content(written):
    for path in written[1]["path"]:
        grey = load_image(path).mean(axis=2)
        assert grey.std() > 2, path
        assert (grey == 0).mean() < 0.5, path  # no black rim


def test_no_two_tiles_are_the_same(written):
    assert written[1]["sha256"].is_unique


def test_writing_again_changes_nothing_but_repairs_damage(tmp_path):
    first = write_samples(tmp_path, max_tiles=1)
    kept, damaged = (tmp_path / name for name in ("brick_0.png", "camera_0.png"))
    os.utime(kept, (1, 1))
    damaged.write_bytes(damaged.read_bytes()[:999])
    (tmp_path / "coffee_0.png").unlink()
    assert write_samples(tmp_path, max_tiles=1).equals(first)
    assert kept.stat().st_mtime == 1
    assert load_image(damaged).shape == (256, 256, 3)
    assert not list(tmp_path.glob("*.partial")) + list(tmp_path.glob(".*"))


def test_the_folder_opens_with_its_groups(tmp_path):
    manifest = write_samples(tmp_path, size=300, max_tiles=2)
    again = open_dataset(tmp_path, tmp_path / "work")
    assert again["source_id"].tolist() == manifest["source_id"].tolist()
    assert (manifest["width"] == 300).all()


def test_central_tiles_come_first(tmp_path):
    pixels = np.zeros((70, 70, 3), np.uint8)
    pixels[25:45, 25:45] = 9  # the middle tile of a grid that does not fill the image
    Image.fromarray(pixels).save(tmp_path / "a.png")
    tiles = samples._central_tiles([tmp_path / "a.png"], 20, 99)
    assert [(tile == 9).all() for tile in tiles] == [True] + [False] * 8
    assert len(samples._central_tiles([tmp_path / "a.png"], 20, 4)) == 4


def test_a_missing_file_names_package_and_remedy(tmp_path, monkeypatch):
    package = tmp_path / "site" / "skimage"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('nothing may run')")
    Image.new("RGB", (300, 300)).save(package / "data" / "astronaut.png")
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.delitem(sys.modules, "skimage", raising=False)
    with pytest.raises(MissingDataError, match=r"data/brick.png.*scikit-image.*--force-reinstall"):
        write_samples(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_package_is_a_file_that_is_not_found():
    with pytest.raises(FileNotFoundError, match=r"a.png: no such sample .* no-such-package"):
        samples._find_sample("no-such-package", "no_such_package", "a.png")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "must be at least 1, got size=0"),
        ({"max_tiles": 0}, "max_tiles=0"),
        ({"size": 5000}, "no sample image is 5000 pixels wide and high. Lower size"),
    ],
)
def test_wrong_numbers(tmp_path, options, message):
    with pytest.raises(DatasetError, match=message):
        write_samples(tmp_path / "out", **options)
