import functools

import numpy as np
import pytest
from PIL import Image

from cnnsvm.data.images import ImageError, load_image
from cnnsvm.data.manifest import ManifestError, make_manifest, make_row, write_manifest
from cnnsvm.evaluation import preparation
from cnnsvm.evaluation.preparation import JPEG_GRID, prepare
from cnnsvm.generation import build


def draw_image(seed, height=48, width=56):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def records(tmp_path):
    """Four records as a download brings them: JPEG originals, lossless fakes of another size."""
    root = tmp_path / "records"
    for i in range(4):
        save(root / f"{i}" / "original.jpg", draw_image(i), quality=95)
        fake = np.asarray(Image.fromarray(draw_image(i)).resize((32, 32)))
        save(root / f"{i}" / "inpainting.webp", fake, lossless=True)
    return root


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "tree"
    for i in range(4):
        save(root / "Real" / f"r{i}.png", draw_image(i))
        save(root / "Fake" / f"f{i}.png", draw_image(100 + i))
    return root


def test_post_processing_that_differs_is_matched_and_said(records, tmp_path):
    prepared = prepare(records, tmp_path / "work")
    assert set(prepared.manifest["format"]) == {"PNG"}
    assert set(prepared.manifest["width"]) == {32}
    assert "real files are JPEG (" in prepared.warnings[0]
    assert "fake ones WEBP 100%" in prepared.warnings[0]
    assert "--codec jpeg:90" in prepared.warnings[0]


def test_post_processing_is_kept_on_request_with_a_warning(records, tmp_path):
    prepared = prepare(records, tmp_path / "work", codec="keep")
    assert set(prepared.manifest["format"]) == {"JPEG", "WEBP"}
    assert any("not matched" in text for text in prepared.warnings)


def test_a_codec_recompresses_both_classes(records, tmp_path):
    manifest = prepare(records, tmp_path / "work", codec="jpeg:75").manifest
    assert set(manifest["format"]) == {"JPEG"}
    tables = {tuple(Image.open(path).quantization[0]) for path in manifest["path"]}
    assert len(tables) == 1


def test_matched_files_are_left_alone(tree, tmp_path):
    prepared = prepare(tree, tmp_path / "work")
    assert all(str(tree) in path for path in prepared.manifest["path"])
    assert prepared.warnings == []


def test_sources_are_repainted_by_the_named_engine(tree, tmp_path):
    prepared = prepare(tree / "Real", tmp_path / "work", generate="opencv-telea")
    manifest = prepared.manifest
    assert len(manifest) == 4 * 6
    assert set(manifest["engine"].dropna()) == {"opencv-telea"}
    assert (
        manifest.groupby("source_id")["label"].agg(["size", "sum"]).values.tolist() == [[6, 5]] * 4
    )


def test_plain_sources_without_an_engine_are_an_error_with_a_remedy(tree, tmp_path):
    with pytest.raises(ValueError, match=r"real images only.*--generate opencv-telea"):
        prepare(tree / "Real", tmp_path / "work")


def test_only_fakes_are_an_error(tree, tmp_path):
    rows = [make_row(p, 1, p.stem) for p in sorted((tree / "Fake").iterdir())]
    file = write_manifest(make_manifest(rows), tree / "manifest.csv")
    with pytest.raises(ValueError, match="fake images only"):
        prepare(file, tmp_path / "work")


def test_a_corrupt_image_is_named_before_anything_starts(tree, tmp_path):
    broken = tree / "Fake" / "f1.png"
    broken.write_bytes(broken.read_bytes()[:1500])
    with pytest.raises(ImageError, match=r"(?s)1 of 8 images.*f1\.png.*--skip-bad"):
        prepare(tree, tmp_path / "work")


def test_bad_images_are_skipped_and_counted_on_request(tree, tmp_path):
    (tree / "Fake" / "f1.png").write_bytes(b"no image at all")
    broken = tree / "Real" / "r2.png"
    broken.write_bytes(broken.read_bytes()[:1500])
    prepared = prepare(tree, tmp_path / "work", skip_bad=True)
    assert len(prepared.manifest) == 6
    assert sorted(entry["path"][-6:] for entry in prepared.skipped) == ["f1.png", "r2.png"]
    for path in prepared.manifest["path"]:
        load_image(path)


def test_bad_rows_of_a_manifest_are_refused_or_skipped(tree, tmp_path):
    rows = [make_row(p, 0, p.stem) for p in sorted((tree / "Real").iterdir())]
    rows += [make_row(p, 1, p.stem) for p in sorted((tree / "Fake").iterdir())]
    file = write_manifest(make_manifest(rows), tree / "manifest.csv")
    (tree / "Real" / "r0.png").unlink()
    with pytest.raises(ManifestError, match=r"row 1 .*r0\.png.*names no file"):
        prepare(file, tmp_path / "work")
    prepared = prepare(file, tmp_path / "work", skip_bad=True)
    assert len(prepared.manifest) == 7
    assert "names no file" in prepared.skipped[0]["reason"]


def test_near_duplicates_share_a_group(tmp_path):
    root = tmp_path / "tree"
    scene = np.asarray(
        Image.fromarray(draw_image(0, 6, 7)).resize((96, 80), Image.Resampling.BICUBIC)
    )
    other = np.asarray(
        Image.fromarray(draw_image(1, 6, 7)).resize((96, 80), Image.Resampling.BICUBIC)
    )
    save(root / "Real" / "a.png", scene)
    save(root / "Real" / "b.png", np.clip(scene.astype(int) + 2, 0, 255).astype(np.uint8))
    save(root / "Fake" / "c.png", other)
    manifest = prepare(root, tmp_path / "work").manifest
    assert manifest["source_id"].nunique() == 2


def test_the_embedded_samples_come_without_a_path(tmp_path, monkeypatch):
    one_a_parent = functools.partial(preparation.write_samples, max_tiles=1)
    monkeypatch.setattr(preparation, "write_samples", one_a_parent)
    prepared = prepare(None, tmp_path / "work", generate="opencv-telea", codec="jpeg:90")
    manifest = prepared.manifest
    assert manifest["source_id"].nunique() >= 15
    assert set(manifest["format"]) == {"JPEG"}


def test_skipping_bad_rows_does_not_switch_off_the_matching(tmp_path):
    lines = ["path,label,source_id"]
    for i in range(3):
        save(tmp_path / f"r{i}.jpg", draw_image(i))
        save(tmp_path / f"f{i}.png", draw_image(i + 50))
        lines += [f"r{i}.jpg,0,s{i}", f"f{i}.png,1,s{i}"]
    lines.append("r0.jpg,oops,s9")
    (tmp_path / "manifest.csv").write_text("\n".join(lines))
    prepared = prepare(tmp_path / "manifest.csv", tmp_path / "work", skip_bad=True)
    assert set(prepared.manifest["format"]) == {"PNG"}
    assert prepared.manifest["label"].dtype == "int64"
    assert prepared.manifest["sha256"].notna().all()
    assert "label must be 0" in prepared.skipped[0]["reason"]


def test_a_jpeg_quality_of_one_class_is_a_history_that_differs(tmp_path):
    for i in range(4):
        save(tmp_path / "tree" / "Real" / f"{i}r.jpg", draw_image(i), quality=95)
        save(tmp_path / "tree" / "Fake" / f"{i}f.jpg", draw_image(i + 9), quality=75)
    prepared = prepare(tmp_path / "tree", tmp_path / "work")
    assert set(prepared.manifest["format"]) == {"PNG"}
    assert "mean quantiser" in prepared.warnings[0]


def test_sources_that_were_jpeg_come_with_a_warning(tmp_path):
    for i in range(2):
        save(tmp_path / "photos" / f"{i}.jpg", draw_image(i))
    for codec, warned in ((None, True), ("jpeg:90", False)):
        prepared = prepare(
            tmp_path / "photos", tmp_path / "work", generate="opencv-telea", codec=codec
        )
        assert bool(prepared.warnings) == warned


def test_an_image_that_changed_since_the_manifest_is_refused(tree, tmp_path):
    rows = [make_row(p, 0, p.stem) for p in sorted((tree / "Real").iterdir())]
    rows += [make_row(p, 1, p.stem) for p in sorted((tree / "Fake").iterdir())]
    file = write_manifest(make_manifest(rows), tree / "manifest.csv")
    save(tree / "Real" / "r0.png", draw_image(77))
    with pytest.raises(ManifestError, match=r"row 1 .*sha256 is not that of the file"):
        prepare(file, tmp_path / "work")


def test_look_alikes_of_different_sizes_share_a_group_and_keep_their_sizes(tmp_path):
    scene = Image.fromarray(draw_image(0, 6, 7))
    for name, side in (("a", 64), ("b", 96)):
        large = np.asarray(scene.resize((side, side), Image.Resampling.BICUBIC))
        save(tmp_path / "records" / name / "original.png", large)
        small = np.asarray(scene.resize((side // 2, side // 2), Image.Resampling.BICUBIC))
        save(tmp_path / "records" / name / "inpainting.png", small)
    manifest = prepare(tmp_path / "records", tmp_path / "work").manifest
    assert manifest["source_id"].nunique() == 1
    assert sorted(manifest["width"]) == [32, 32, 48, 48]


@pytest.mark.parametrize(
    ("history", "codec", "warned"),
    [("png", None, True), ("jpeg:90", None, False), ("png", "jpeg:80", False)],
)
def test_records_built_of_jpeg_sources_come_with_the_warning_too(history, codec, warned, tmp_path):
    for i in range(3):
        save(tmp_path / f"{i}.jpg", draw_image(i))
    build([tmp_path / f"{i}.jpg" for i in range(3)], tmp_path / "records", post_processing=history)
    prepared = prepare(tmp_path / "records", tmp_path / "work", codec=codec)
    assert prepared.warnings == ([JPEG_GRID] if warned else [])
    assert set(prepared.manifest["source_format"]) == {"JPEG"}
    again = build(prepared.manifest, tmp_path / "again")  # what was a JPEG once stays one
    assert set(again["source_format"]) == {"JPEG"}
