import logging
import re

import pytest
from PIL import Image

from cnnsvm.data.manifest import check_manifest
from cnnsvm.data.readers import (
    DatasetError,
    MissingDataError,
    open_dataset,
    read_folder,
    read_sources,
)


def write(root, *names):
    for k, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (k, len(names), sum(name.encode()) % 256)).save(path)
    return root


def rows(manifest, root, *columns):
    names = [path[len(str(root)) + 1 :] for path in manifest["path"]]
    values = manifest[list(columns)].astype(object).where(manifest[list(columns)].notna(), None)
    return dict(zip(names, values.itertuples(index=False, name=None), strict=True))


@pytest.mark.parametrize(
    "names",
    [
        ("Train/Real/a.png", "Train/Fake/b.png", "Test/Real/c.png", "Test/Fake/d.png"),
        ("REAL/train/a.jpg", "FAKE/TRAIN/b.jpg", "real/test/c.jpg", "fake/Test/d.jpg"),
        ("data/train/REAL/a.png", "data/train/FAKE/x/b.png", "test/REAL/c.png", "test/FAKE/d.png"),
    ],
)
def test_classes_and_splits_either_way_round(tmp_path, names):
    manifest = read_folder(write(tmp_path, *names))
    found = rows(manifest, tmp_path, "label", "split")
    assert found == dict(
        zip(names, [(0, "train"), (1, "train"), (0, "test"), (1, "test")], strict=True)
    )
    check_manifest(manifest)


@pytest.mark.parametrize(
    ("real", "fake"),
    [
        ("0_real", "1_fake"),
        ("nature", "ai"),
        ("Au", "Tp"),
        ("reals", "fakes"),
        ("authentic", "tampered"),
        ("originals", "inpainted"),
        ("real_images", "StyleGAN2-fakes"),
        ("0_pristine photos", "ai-generated images"),
    ],
)
@pytest.mark.parametrize("around", ["", "train/", "set/val/"])
def test_the_fields_names_of_classes_are_understood(tmp_path, real, fake, around):
    write(tmp_path, f"{around}{real}/a.png", f"{around}{fake}/b.png", f"{around}Gt/b.png")
    found = rows(read_folder(tmp_path), tmp_path, "label")
    assert found == {f"{around}{real}/a.png": (0,), f"{around}{fake}/b.png": (1,)}
    with pytest.raises(DatasetError, match="holds a folder named"):
        read_sources(tmp_path)
    assert sorted(open_dataset(tmp_path, tmp_path / "work")["label"]) == [0, 1]


@pytest.mark.parametrize(
    "name",
    [
        "my_fakes/a.png",
        "ai images/a.png",
        "Masks-png/a.png",
        "real_vs_fake/a.png",
        "tampered2/a.png",
        "x/a_mask.png",
        "x/12-fake.png",
        "x/photo GT 3.png",
        "inpainting.png",
    ],
)
def test_what_says_fake_or_mask_is_no_source(tmp_path, name):
    root = tmp_path / "photographs"
    write(root, name, "x/b.png")
    with pytest.raises(DatasetError, match="named"):
        read_sources(root)
    (tmp_path / "our fakes").mkdir()
    write(tmp_path / "our fakes", "a.png")
    with pytest.raises(DatasetError, match="named our fakes"):
        read_sources(tmp_path / "our fakes")


def test_words_that_say_something_else_are_sources(tmp_path):
    names = ["real_estate/a.png", "mountain/fakery.png", "maskulin/gtx.png", "rain/b_original.png"]
    root = write(tmp_path / "photographs", *names)
    assert open_dataset(root, tmp_path / "work")["label"].tolist() == [0] * 4


def test_the_innermost_names_count_and_masks_beside_fakes_are_left_out(tmp_path):
    around = "imagenet_ai_0419_biggan/val"
    write(tmp_path, f"{around}/nature/a.png", f"{around}/ai/b.png", f"{around}/ai/b_mask.png")
    found = rows(read_folder(tmp_path), tmp_path, "label")
    assert found == {f"{around}/nature/a.png": (0,), f"{around}/ai/b.png": (1,)}


def test_what_means_real_beside_fakes_is_any_photograph_elsewhere(tmp_path):
    write(tmp_path, "nature/a.png", "cities/b.png")
    assert open_dataset(tmp_path, tmp_path / "work")["label"].tolist() == [0, 0]


def test_validation_by_any_name_and_no_split_at_all(tmp_path):
    write(tmp_path, "valid/Real/a.png", "Validation/Fake/b.png", "Real/c.png", "val/Fake/d.png")
    found = rows(read_folder(tmp_path), tmp_path, "split")
    assert list(found.values()) == [(None,), ("valid",), ("valid",), ("valid",)]
    assert found["Real/c.png"] == (None,)


def test_only_folders_name_classes(tmp_path):
    write(tmp_path, "Real/fake.png", "Fake/real.png", "Real/test.png")
    found = rows(read_folder(tmp_path), tmp_path, "label", "split")
    assert found["Real/fake.png"] == found["Real/test.png"] == (0, None)
    assert found["Fake/real.png"] == (1, None)


def test_folders_above_the_tree_name_nothing(tmp_path):
    root = write(tmp_path / "Fake" / "test", "Real/a.png", "Fake/b.png")
    found = rows(read_folder(root), root, "label", "split")
    assert found == {"Real/a.png": (0, None), "Fake/b.png": (1, None)}


def test_fakes_are_regenerated_by_an_unknown_engine_unless_told(tmp_path):
    write(tmp_path, "Real/a.png", "Fake/b.png")
    found = rows(read_folder(tmp_path), tmp_path, "variant", "engine")
    assert found == {"Real/a.png": ("original", None), "Fake/b.png": ("regenerated", "unknown")}
    manifest = read_folder(tmp_path, variant="spliced", engine="vae:x")
    assert rows(manifest, tmp_path, "variant", "engine")["Fake/b.png"] == ("spliced", "vae:x")


def test_without_groups_every_image_is_its_own_source(tmp_path, caplog):
    write(tmp_path, "Real/a.png", "Fake/a.png", "Fake/b.png")
    manifest = read_folder(tmp_path)
    assert manifest["source_id"].tolist() == ["Fake/a.png", "Fake/b.png", "Real/a.png"]
    assert "1 fake(s) have the name of a real image, such as 'a'" in caplog.text


@pytest.mark.parametrize(
    "groups", [r"^(\d+)", r"(?P<source>\d+)(_[a-z]+)?\.", re.compile(r"^(\d+)")]
)
def test_a_pattern_names_the_sources_by_file_name(tmp_path, groups):
    write(tmp_path / "2020", "Real/7.png", "Fake/7_top.png", "Fake/8_top.png")
    found = rows(read_folder(tmp_path / "2020", groups), tmp_path / "2020", "source_id")
    assert found == {"Real/7.png": ("7",), "Fake/7_top.png": ("7",), "Fake/8_top.png": ("8",)}


def test_a_pattern_that_misses_a_name(tmp_path):
    write(tmp_path, "Real/7.png", "Fake/a_7.png")
    with pytest.raises(
        DatasetError, match=r"a_7\.png: the pattern '\^\(\\\\d\+\)' finds no source"
    ):
        read_folder(tmp_path, r"^(\d+)")


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ("a.b", "has 0 groups; it needs exactly one"),
        ("(a)(b)", "has 2 groups"),
        ("(a", "is not a regular expression"),
    ],
)
def test_a_pattern_that_names_nothing(tmp_path, groups, message):
    write(tmp_path, "Real/a.png", "Fake/b.png")
    with pytest.raises(DatasetError, match=message):
        read_folder(tmp_path, groups)


def write_table(tmp_path, text):
    path = tmp_path / "groups.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_a_table_names_the_sources(tmp_path, kind):
    root = write(tmp_path / "tree", "Real/a.png", "Fake/b.png")
    table = write_table(tmp_path, "path,source_id\n./Fake/b.png,001\nReal/a.png,001\n")
    assert read_folder(root, kind(table))["source_id"].tolist() == ["001", "001"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,source_id\nReal/a.png,1\n", r"no row for 1 image\(s\), the first is Fake/b.png"),
        ("path,source_id\nReal/a.png,1\nReal/a.png,1\n", r"row 2 \(Real/a.png\).* a row already"),
        ("path,source_id\nReal/a.png,\n", r"row 1 \(Real/a.png\): source_id is empty"),
        ("path,id\nReal/a.png,1\n", "needs the columns path and source_id, got path, id"),
        ("", "cannot be read as a CSV table"),
    ],
)
def test_a_table_with_a_mistake(tmp_path, text, message):
    root = write(tmp_path / "tree", "Real/a.png", "Fake/b.png")
    with pytest.raises(DatasetError, match=message):
        read_folder(root, write_table(tmp_path, text))


def test_a_missing_table_and_a_missing_folder(tmp_path):
    write(tmp_path, "Real/a.png", "Fake/b.png")
    with pytest.raises(MissingDataError, match="no such table of groups"):
        read_folder(tmp_path, tmp_path / "none.csv")
    for reader in (read_folder, read_sources):
        with pytest.raises(FileNotFoundError, match="no such folder"):
            reader(tmp_path / "none")


@pytest.mark.parametrize(
    ("names", "missing"),
    [(("Train/Fake/a.png",), "Real"), (("Real/a.png", "b.png"), "Fake"), (("a.png",), "Real")],
)
def test_a_class_without_images(tmp_path, names, missing):
    write(tmp_path, *names)
    (tmp_path / missing).mkdir()
    with pytest.raises(DatasetError, match=f"no images under a folder named {missing}; both"):
        read_folder(tmp_path)


@pytest.mark.parametrize("reader", [read_folder, read_sources])
def test_no_images_at_all(tmp_path, reader):
    (tmp_path / "Real").mkdir()
    (tmp_path / "Real" / "a.txt").touch()
    with pytest.raises(DatasetError, match=r"no images below this folder. Read are .*\.png"):
        reader(tmp_path)


@pytest.mark.parametrize("name", ["Real/Fake/a.png", "Real/Train/Test/a.png"])
def test_folders_that_contradict_each_other(tmp_path, name):
    write(tmp_path, "Real/b.png", "Fake/b.png", name)
    with pytest.raises(DatasetError, match=f"{name}: its folders name more than one of"):
        read_folder(tmp_path)


def test_strays_are_ignored_and_counted(tmp_path, caplog):
    write(tmp_path, "Real/a.png", "Fake/b.png", "cover.png")
    for name in ("notes.txt", "Real/Thumbs.db", "Fake/more.txt"):
        (tmp_path / name).touch()
    with caplog.at_level(logging.INFO):
        assert len(read_folder(tmp_path)) == 2
    assert "skipped 3 file(s): 2 .txt, not an image; 1 .db, not an image" in caplog.text
    assert "left out 1 image(s) in folders of neither class" in caplog.text


def test_sources_are_all_real(tmp_path):
    write(tmp_path, "a/1.png", "b/1.png", "Real/x.png")
    manifest = read_sources(tmp_path)
    assert manifest["label"].tolist() == [0, 0, 0]
    assert manifest["source_id"].tolist() == ["Real/x.png", "a/1.png", "b/1.png"]
    check_manifest(manifest)


def test_sources_with_groups(tmp_path):
    write(tmp_path, "cat_1.png", "cat_2.png", "dog_1.png")
    assert read_sources(tmp_path, r"(.+)_\d+")["source_id"].tolist() == ["cat", "cat", "dog"]


def test_fakes_do_not_pass_for_sources(tmp_path):
    tree = write(tmp_path / "tree", "train/REAL/a.png", "train/FAKE/b.png")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "train").symlink_to(tree / "train")
    for root in (tree, tmp_path / "linked"):
        with pytest.raises(DatasetError, match=r"holds a folder named FAKE.*Give the folder"):
            read_sources(root)
        assert sorted(open_dataset(root, tmp_path / "work")["label"]) == [0, 1]


def test_masks_and_fakes_of_records_do_not_pass_for_sources(tmp_path):
    names = ("original.png", "inpainting.png", "mask.png", "group.png")
    write(tmp_path, *(f"similar/inpainting/12/{name}" for name in names))
    with pytest.raises(DatasetError, match=r"holds records.*only_originals=True"):
        read_sources(tmp_path)
