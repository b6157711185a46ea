import numpy as np
import pytest
from audit_images import draw_image, manifest_of, write
from PIL import Image

from cnnsvm.audit.check import DataSet
from cnnsvm.audit.headers import (
    check_post_processing,
    describe_header,
    read_headers,
)
from cnnsvm.data.images import ImageError

IMAGES = [draw_image(seed, 72, 64) for seed in range(16)]


def post_processing(manifest):
    headers = read_headers(manifest["path"].tolist())
    return check_post_processing(DataSet(manifest.assign(unit=manifest["source_id"]), headers))


def both(folder, real=None, fake=None, fakes=IMAGES):
    """Write each class with its own options of Pillow."""
    reals = write(folder / "real", IMAGES, **(real or {}))
    return manifest_of(reals, write(folder / "fake", fakes, **(fake or {})))


JPEG = {"ending": "jpg", "quality": 90}


def test_one_history_passes(tmp_path):
    assert post_processing(both(tmp_path)).verdict == "pass"
    assert post_processing(both(tmp_path, JPEG, JPEG)).verdict == "pass"


@pytest.mark.parametrize(
    ("real", "fake", "named"),
    [
        (JPEG, {}, "file format: real JPEG 100%, fake PNG 100%"),
        (JPEG, {"ending": "jpg", "quality": 75}, "JPEG quantisation"),
        (JPEG, JPEG | {"subsampling": 0}, "chroma subsampling: real 4:2:0 100%, fake 4:4:4 100%"),
        (JPEG, JPEG | {"comment": b"made by"}, "header entries: real none 100%, fake comment"),
        ({}, {"ending": "webp", "lossless": True}, "WEBP lossless"),
        ({"ending": "webp"}, {"ending": "webp", "lossless": True}, "real WEBP lossy 100%"),
    ],
)
def test_what_differs_between_the_classes_is_a_leak_and_named(tmp_path, real, fake, named):
    check = post_processing(both(tmp_path, real, fake))
    assert check.verdict == "leak"
    assert named in check.summary
    assert "match_post_processing" in check.remedy


def test_a_quality_drawn_for_each_image_is_no_leak(tmp_path):
    rng = np.random.default_rng(0)
    folders = [tmp_path / name for name in ("real", "fake")]
    paths = [
        write(folder / str(i), [pixels], ending="jpg", quality=int(rng.choice([70, 80, 90])))[0]
        for folder in folders
        for i, pixels in enumerate(IMAGES)
    ]
    assert post_processing(manifest_of(paths[:16], paths[16:])).verdict == "pass"


def test_a_handful_of_records_is_enough_where_all_differ(tmp_path):
    manifest = both(tmp_path, JPEG)
    assert post_processing(manifest[manifest["source_id"].isin(["s0", "s1"])]).verdict == "leak"


def test_classes_without_common_sources_are_compared_too(tmp_path):
    manifest = both(tmp_path, JPEG)
    apart = manifest.assign(source_id=manifest["path"])
    assert post_processing(apart).verdict == "leak"
    assert post_processing(both(tmp_path / "b").assign(source_id=apart["path"])).verdict == "pass"


def test_another_size_of_the_fakes_is_a_leak(tmp_path):
    check = post_processing(both(tmp_path, fakes=[pixels[:-3, :-3] for pixels in IMAGES]))
    assert check.verdict == "leak"
    assert "16 of 16 records mix sizes (fakes larger in 0, smaller in 16)" in check.summary
    assert "multiples of 8" in check.summary


def test_mixed_sizes_without_a_direction_are_a_warning(tmp_path):
    fakes = [p[:-8, :-8] if i % 2 else np.pad(p, ((0, 8), (0, 8), (0, 0)))
             for i, p in enumerate(IMAGES)]  # fmt: skip
    assert post_processing(both(tmp_path, fakes=fakes)).verdict == "warning"


def test_a_column_history_that_differs_is_a_leak(tmp_path):
    manifest = both(tmp_path)
    named = manifest.assign(history=["png"] * 16 + ["512x512,png"] * 16)
    assert "column history" in post_processing(named).summary
    assert post_processing(manifest.assign(history="png")).verdict == "pass"


def test_headers_are_read(tmp_path):
    image = Image.fromarray(IMAGES[0])
    image.save(tmp_path / "a.jpg", quality=90, subsampling=1)
    image.convert("L").save(tmp_path / "b.jpg")
    photo, grey = (describe_header(str(tmp_path / name)) for name in ("a.jpg", "b.jpg"))
    assert (photo["format"], photo["subsampling"], photo["lossy"]) == ("JPEG", "4:2:2", True)
    assert (photo["width"], photo["height"]) == (72, 64)
    assert photo["bits_a_pixel"] == 8 * (tmp_path / "a.jpg").stat().st_size / (72 * 64)
    assert (grey["pixel_mode"], grey["subsampling"]) == ("L", "grey")
    with pytest.raises(ImageError, match=r"none\.png"):
        describe_header(str(tmp_path / "none.png"))


def test_sizes_of_one_image_a_class_are_chance(tmp_path):
    paths = [
        write(tmp_path / name, [IMAGES[0][:height, :width]])[0]
        for name, height, width in (("real", 72, 64), ("fake", 71, 63))
    ]
    manifest = manifest_of(paths[:1], paths[1:]).assign(source_id=["one", "other"])
    check = post_processing(manifest)
    assert check.details["facts"]["multiple_of_8"]["distance"] == 1
    assert check.verdict == "pass"


def test_sizes_are_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (path,) = write(tmp_path, IMAGES[:1], ending="jpg", exif=exif)
    header = describe_header(path)
    assert (header["width"], header["height"]) == (64, 72)
    assert "exif" in header["entries"]
