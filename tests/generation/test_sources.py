"""What may be a source, what a record is made of, and what happens when either changes."""

import errno
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from generation_helpers import draw_image
from PIL import Image

from cnnsvm.cli import main
from cnnsvm.data.images import load_image
from cnnsvm.data.manifest import make_manifest, make_row, read_manifest, write_manifest
from cnnsvm.data.readers import DatasetError, open_dataset
from cnnsvm.evaluation.preparation import LOSSY_FAKES, RESIZED, prepare
from cnnsvm.generation import EngineError, GenerationError, build, match_post_processing
from cnnsvm.generation.engines import Engine, one_by_one

INVERT = Engine("invert", one_by_one(lambda image, mask, seed: 255 - image))


def make(sources, folder, **values):
    return build(sources, folder, **{"n_jobs": 1, "schemas": ["left"], **values})


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def tree(tmp_path):
    """Photographs and, in a folder beside them, a finished repainting of each."""
    for i in range(3):
        save(tmp_path / "data" / "photos" / f"{i}.png", draw_image(i))
        save(tmp_path / "data" / "fakes" / f"{i}.png", 255 - draw_image(i))
    return tmp_path / "data"


def originals(manifest):
    return sorted(manifest[manifest["label"] == 0]["sha256"])


def test_finished_images_below_the_sources_are_no_sources(tree, tmp_path):
    values = {"engine": "file:../fakes/{stem}.png", "variants": "regenerated"}
    made = make(tree, tmp_path / "out", **values)
    alone = make(tree / "photos", tmp_path / "alone", **values)
    assert originals(made) == originals(alone)
    assert made["source_id"].nunique() == 3
    assert made.attrs["skipped"] == []
    for _, rows in made.groupby("record"):
        real, fake = (load_image(path) for path in rows["path"])
        np.testing.assert_array_equal(fake, 255 - real)


def test_masks_beside_the_sources_are_no_sources(photos, tmp_path):
    for path in sorted(photos.rglob("*.*g")):
        shape = load_image(path).shape[:2]
        save(path.with_name(f"{path.stem}_mask.png"), np.eye(*shape, dtype=np.uint8) * 255)
    made = make(photos, tmp_path / "out", schemas=["file", "left"])
    assert made["record"].nunique() == 3
    assert len(made) == 9


def test_image_that_is_its_own_repainting_is_refused(photos, tmp_path):
    with pytest.raises(GenerationError, match="its own repainted image"):
        make(photos / "more", tmp_path / "out", engine="file:{stem}.jpg")


def test_records_below_the_sources_are_no_sources(photos, tmp_path, caplog):
    first = make(photos, photos / "r1")
    second = make(photos, photos / "r2")
    assert originals(first) == originals(second)
    assert main(["build", str(photos), str(tmp_path / "r3"), "--schemas", "left"]) == 0
    assert originals(read_manifest(tmp_path / "r3" / "manifest.parquet")) == originals(first)
    with pytest.raises(GenerationError, match="no source among 0 images"):
        make(photos / "r1", tmp_path / "r4")


def test_manifest_by_its_path(photos, tmp_path):
    first = make(photos, tmp_path / "r1")
    again = make(tmp_path / "r1" / "manifest.parquet", tmp_path / "r2", engine=INVERT)
    assert originals(again) == originals(first)
    assert list(again["source_id"].unique()) == list(first["source_id"].unique())


def test_two_sets_of_finished_images_are_two_engines(tree, tmp_path):
    for i in range(3):
        save(tree / "other" / f"{i}.png", draw_image(10 + i))
    names = set()
    for name in ("fakes", "other"):
        made = make(tree / "photos", tmp_path / name, engine=f"file:../{name}/{{stem}}.png")
        names |= set(made["engine"].dropna())
    assert names == {"file:fakes/{stem}.png", "file:other/{stem}.png"}
    with pytest.raises(GenerationError, match="other settings"):
        make(tree / "photos", tmp_path / "fakes", engine="file:../other/{stem}.png")


def test_record_is_made_again_when_its_finished_image_changes(tree, tmp_path):
    values = {"engine": "file:../fakes/{stem}.png", "variants": "regenerated"}
    first = make(tree / "photos", tmp_path / "out", **values)
    save(tree / "fakes" / "1.png", draw_image(20, 30, 40))
    second = make(tree / "photos", tmp_path / "out", **values)
    changed = first["sha256"].ne(second["sha256"])
    assert set(second[changed]["source_id"]) == {s for s in first["source_id"] if s[0] == "1"}
    for _, rows in second.groupby("record"):
        assert (rows[["width", "height"]].nunique() == 1).all()


def test_record_is_made_again_when_its_mask_or_prompt_changes(photos, tmp_path):
    calls = []
    engine = Engine(
        "painter",
        lambda tasks: [calls.append(task.prompt) or 255 - task.image for task in tasks],
        prompt="default",
    )
    file = photos / "a.jpg"
    mask = save(photos / "a_mask.png", np.eye(24, 36, dtype=np.uint8) * 255)
    for prompt in ("a cat", "a cat", "a dog"):
        manifest = make_manifest([make_row(file, 0, "a", prompt=prompt)])
        made = make(manifest, tmp_path / "out", engine=engine, schemas=["file"])
        assert set(made["prompt"].dropna()) == {prompt}
    assert calls == ["a cat", "a dog"]
    before = made["sha256"].iloc[1]
    save(mask, np.eye(24, 36, k=3, dtype=np.uint8) * 255)
    made = make(manifest, tmp_path / "out", engine=engine, schemas=["file"])
    assert made["sha256"].iloc[1] != before
    assert len(calls) == 3


def test_record_keeps_its_folder_when_its_group_gets_another_name(photos, tmp_path):
    first = make(photos, tmp_path / "out")
    manifest = first[first["label"] == 0].copy()
    rows = [make_row(path, 0, "one group") for path in sorted(photos.rglob("*.*g"))]
    again = make(make_manifest(rows), tmp_path / "out")
    assert set(again["source_id"]) == {"one group"}
    assert sorted(again["path"]) == sorted(first["path"])
    assert len(manifest) == 3


@pytest.mark.parametrize("what", ["killed", "shard"])
def test_unfinished_build_is_not_read_as_records_of_others(what, photos, tmp_path):
    out = tmp_path / "out"
    if what == "killed":
        make(photos, out)
        (out / "manifest.parquet").unlink()
    else:
        make(photos, out, shard="1/2")
    with pytest.raises(DatasetError, match=r"not finished.*Run the command"):
        open_dataset(out, tmp_path / "work")
    with pytest.raises(DatasetError, match="not finished"):
        prepare(out, tmp_path / "work")


def test_shard_with_nothing_usable_does_not_hold_up_the_others(photos, tmp_path):
    good = sorted(photos.rglob("*.*g"))
    whole = (photos / "b c.png").read_bytes()
    (photos / "cut.png").write_bytes(whole[: len(whole) // 2])
    for index in range(1, 13):
        merged = make(photos, tmp_path / "out", shard=f"{index}/12")
    assert merged["record"].nunique() == len(good)
    stored = read_manifest(tmp_path / "out" / "manifest.parquet")
    assert stored["record"].nunique() == len(good)
    errors = pd.read_csv(tmp_path / "out" / "errors.csv")
    assert [path.rpartition("/")[2] for path in errors["path"]] == ["cut.png"]


def test_shards_of_other_sources_are_not_merged(photos, tmp_path):
    out = tmp_path / "out"
    for index in (1, 2):
        make(photos, out, shard=f"{index}/2")
    save(photos / "new.png", draw_image(30))
    before = (out / "manifest.parquet").read_bytes()
    make(photos, out, shard="1/2")
    assert (out / "manifest.parquet").read_bytes() == before
    merged = make(photos, out, shard="2/2")
    assert merged["record"].nunique() == 4
    assert str(merged["seed"].dtype) == "Int64"


def test_refused_start_leaves_the_folder_free(photos, tmp_path, monkeypatch):
    usage = type("usage", (), {"free": 1000})
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda path: usage)
        with pytest.raises(GenerationError, match="choose a smaller codec"):
            make(photos, tmp_path / "out")
    assert len(make(photos, tmp_path / "out", post_processing="webp", panels=False)) == 6


def test_wrong_prompt_is_refused_at_once(photos, tmp_path):
    engine = Engine("x", lambda tasks: 1 / 0, prompt="p", find_problem=lambda p: f"{p}: too long")
    with pytest.raises(EngineError, match=r"y{50}: too long"):
        make(photos, tmp_path / "out", engine=engine, prompt="y" * 50)
    assert not (tmp_path / "out").exists()


def test_rows_without_a_path_or_source_are_errors(photos, tmp_path):
    rows = [make_row(path, 0, path.stem) for path in sorted(photos.rglob("*.*g"))]
    manifest = make_manifest(rows)
    manifest.loc[0, "path"] = np.nan
    manifest.loc[1, "source_id"] = None
    made = make(manifest, tmp_path / "out")
    assert made["record"].nunique() == 1
    reasons = " ".join(entry["reason"] for entry in made.attrs["skipped"])
    assert "row 1 of the manifest has no path" in reasons
    assert "source_id is empty" in reasons


def test_unreadable_sources_are_in_errors_csv_from_the_command_line_too(photos, tmp_path, capsys):
    (photos / "text.jpg").write_text("no image")
    whole = (photos / "b c.png").read_bytes()
    (photos / "cut.png").write_bytes(whole[: len(whole) // 2])
    out = tmp_path / "out"
    assert main(["build", str(photos), str(out), "--schemas", "left"]) == 0
    listed = pd.read_csv(out / "errors.csv")
    assert sorted(p.rpartition("/")[2] for p in listed["path"]) == ["cut.png", "text.jpg"]
    assert "2 could not be made" in capsys.readouterr().out
    assert main(["build", str(photos), str(tmp_path / "o2"), "--strict"]) == 2


def test_errors_csv_is_there_when_everything_is_bad(photos, tmp_path, capsys):
    for path in photos.rglob("*.*g"):
        path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(GenerationError, match="none of 3 sources"):
        make(photos, tmp_path / "out")
    assert len(pd.read_csv(tmp_path / "out" / "errors.csv")) == 3
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.png").write_text("no image")
    assert main(["build", str(tmp_path / "texts"), str(tmp_path / "o2")]) == 2
    assert "First problem: " in capsys.readouterr().err


def test_originals_count_whatever_became_of_their_fakes(tmp_path):
    for i in range(3):
        save(tmp_path / "in" / str(i) / "original.png", draw_image(i))
        if i:
            save(tmp_path / "in" / str(i) / "inpainting.png", draw_image(10 + i))
    assert main(["build", str(tmp_path / "in"), str(tmp_path / "out"), "--strict"]) == 0
    made = read_manifest(tmp_path / "out" / "manifest.parquet")
    assert set(made["source_id"]) == {"0", "1", "2"}


def test_working_folder_is_found_from_a_dot(photos, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["build", str(photos), ".", "--schemas", "sides:0.3-0.7"]) == 0
    made = read_manifest(tmp_path / "here" / "manifest.parquet")
    assert made["mask_schema"].nunique() == 4


def test_what_the_fakes_went_through_before_is_said(tree, tmp_path):
    for i in range(3):
        save(tree / "lossy" / f"{i}.webp", 255 - draw_image(i), quality=40)
        save(tree / "whole" / f"{i}.webp", 255 - draw_image(i), lossless=True)
        save(tree / "small" / f"{i}.png", 255 - draw_image(i, 20, 30))
    for name, expected in (("lossy/{stem}.webp", LOSSY_FAKES), ("whole/{stem}.webp", None),
                           ("small/{stem}.png", RESIZED.format(3))):  # fmt: skip
        out = tmp_path / name[:5]
        make(tree / "photos", out, engine=f"file:../{name}", variants="regenerated")
        warnings = prepare(out, tmp_path / f"work{name[:5]}").warnings
        assert warnings == ([expected] if expected else [])


def test_multi_image_jpegs_are_jpegs(tmp_path):
    for i in range(3):
        images = [Image.fromarray(draw_image(i)), Image.fromarray(draw_image(i))]
        (tmp_path / "in").mkdir(exist_ok=True)
        images[0].save(tmp_path / "in" / f"{i}.jpg", "MPO", save_all=True,
                       append_images=images[1:], quality=50)  # fmt: skip
    make(tmp_path / "in", tmp_path / "out")
    assert len(prepare(tmp_path / "out", tmp_path / "work").warnings) == 1


def test_mask_file_of_the_native_size_fits_a_record_of_another(tree, tmp_path):
    for i in range(3):
        save(tree / "small" / f"{i}.png", 255 - draw_image(i, 12 * 2, 36))
        save(tree / "masks" / f"{i}.png", np.where(np.arange(36) < 18, 255, 0).astype(
            np.uint8)[None].repeat(24, axis=0))  # fmt: skip
        save(tree / "small" / f"{i}.png", 255 - draw_image(i, 18, 27))
    made = make(tree / "photos", tmp_path / "out", engine="file:../small/{stem}.png",
                schemas=["file:../masks/{stem}.png"])  # fmt: skip
    fakes = made[made["label"] == 1]
    assert set(zip(fakes["width"], fakes["height"], strict=True)) == {(27, 18)}
    for path in fakes["mask_path"]:
        mask = load_image(path)[:, :, 0]
        assert mask.shape == (18, 27)
        assert (mask[:, :13] == 255).all()
        assert (mask[:, 14:] == 0).all()


def test_long_names_of_schemas_make_short_files(photos, tmp_path):
    place = "masks-" + "x" * 200
    for path in sorted(photos.glob("*.jpg")):
        save(photos / place / f"{path.stem}.png", np.eye(24, 36, dtype=np.uint8) * 255)
    made = make(
        [photos / "a.jpg"], tmp_path / "out", schemas=[f"file:{place}/{{stem}}.png", "left"]
    )
    assert len(made) == 3


def test_manifest_on_disk_and_records_moved_elsewhere(photos, tmp_path):
    made = make(photos, tmp_path / "out")
    shutil.move(tmp_path / "out", tmp_path / "moved")
    moved = read_manifest(tmp_path / "moved" / "manifest.parquet")
    assert list(moved["sha256"]) == list(made["sha256"])
    rows = [make_row(path, 0, path.stem) for path in sorted(photos.rglob("*.*g"))]
    write_manifest(make_manifest(rows), photos / "manifest.csv")
    again = make(photos / "manifest.csv", tmp_path / "again")
    assert originals(again) == originals(made)


def test_finished_records_outlive_what_they_were_made_of(tree, tmp_path):
    values = {"engine": "file:../fakes/{stem}.png", "variants": "regenerated"}
    first = make(tree / "photos", tmp_path / "out", **values)
    (tree / "fakes").rename(tmp_path / "elsewhere")
    again = make(tree / "photos", tmp_path / "out", **values)
    assert list(again["sha256"]) == list(first["sha256"])
    for path in first["path"]:
        load_image(path)


def test_a_record_that_is_made_again_loses_nothing_but_its_images(tree, tmp_path, caplog):
    values = {"engine": "file:../fakes/{stem}.png", "variants": "regenerated"}
    first = make(tree / "photos", tmp_path / "out", **values)
    notes = [tmp_path / "out" / record / "notes.txt" for record in first["record"].unique()]
    for note in notes:
        note.write_text("mine")
    for i in range(3):
        save(tree / "fakes" / f"{i}.png", draw_image(40 + i))
    with caplog.at_level("INFO"):
        second = make(tree / "photos", tmp_path / "out", **values)
    assert set(first["sha256"]) & set(second["sha256"]) == set(originals(first))
    assert all(note.read_text() == "mine" for note in notes)
    assert "made of something else" in caplog.text


def test_record_that_cannot_be_read_is_not_taken_for_none(photos, tmp_path, monkeypatch):
    first = make(photos, tmp_path / "out")
    real = Path.read_bytes

    def fail(self):
        if self.name == "record.json":
            raise OSError(errno.EIO, "Input/output error")
        return real(self)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", fail)
        with pytest.raises(OSError, match="Input/output"):
            make(photos, tmp_path / "out")
    for path in first["path"]:
        load_image(path)


def test_matching_does_not_write_over_its_input(photos, tmp_path):
    made = make(photos, tmp_path / "in")
    matched = match_post_processing(made, tmp_path / "out", "jpeg:90", n_jobs=1)
    with pytest.raises(GenerationError, match=r"6 of 6 images lie in .*Choose another folder"):
        match_post_processing(matched, tmp_path / "out", "jpeg:90", n_jobs=1)
    for path in matched["path"]:
        load_image(path)


def test_records_that_were_being_matched_are_no_sources(photos, tmp_path):
    made = make(photos, tmp_path / "in")
    match_post_processing(made, tmp_path / "data" / "out", "png", n_jobs=1)
    for path in (tmp_path / "data").rglob("record.json"):
        path.unlink()
    save(tmp_path / "data" / "mine.png", draw_image(50))
    again = make(tmp_path / "data", tmp_path / "again")
    assert again["record"].nunique() == 1


def test_foreign_settings_do_not_make_records(photos, tmp_path):
    (photos / "settings.json").write_text('{"made_by": "CameraApp"}')
    assert make(photos, tmp_path / "out")["record"].nunique() == 3
    assert len(open_dataset(photos, tmp_path / "work")) == 3
