"""What every reader of a layout keeps to; what is special about one is tested beside it."""

from dataclasses import dataclass

import pytest
from dataset_files import pack, read_files, write_images

from cnnsvm.data.manifest import (
    COLUMNS,
    DatasetError,
    ManifestError,
    MissingDataError,
    check_manifest,
    find_bad_rows,
    read_manifest,
    write_manifest,
)
from cnnsvm.data.readers import READERS, cifake, open_dataset, read_records
from cnnsvm.data.splits import grouped_folds

RECORDS = [f"{k}/{name}.png" for k in (1, 2, 3) for name in ("original", "inpainting")]
TREE = [f"{s}/{k}/{n}_1.png" for s in ("Train", "Test") for k in ("Real", "Fake") for n in "ab"]
PATTERN = r"(.+)_\d"


def write_records_and_manifest(root, names):
    write_images(root, names)
    manifest = read_records(root).assign(source_id=lambda t: "mine " + t["source_id"])
    write_manifest(manifest, root / "manifest.parquet")
    return root


@dataclass
class Layout:
    """A layout, what is read from it, and what it takes."""

    names: list
    expected: list  # (label, source_id)
    write: object = write_images
    takes_groups: bool = False


LAYOUTS = {
    "manifest": Layout(
        RECORDS, [(k, f"mine {n}") for k in (0, 1) for n in "123"], write_records_and_manifest
    ),
    "records": Layout(RECORDS, [(k, n) for k in (0, 1) for n in "123"]),
    "originals": Layout(["7/original.png", "8/original.png"], [(0, "7"), (0, "8")]),
    "tree": Layout(
        TREE,
        [(int("Fake" in name), name) for name in TREE],
        takes_groups=True,
    ),
    "sources": Layout(
        ["b_1.png", "sub/b_2.png", "c_1.png"],
        [(0, "b_1.png"), (0, "c_1.png"), (0, "sub/b_2.png")],
        takes_groups=True,
    ),
}
every_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)


@pytest.fixture
def work(tmp_path):
    return tmp_path / "work"


def content(manifest):
    return sorted(zip(manifest["label"], manifest["source_id"], strict=True))


def test_every_reader_has_a_layout_here():
    assert len(READERS) == len(LAYOUTS) - 1  # two of records


@every_layout
@pytest.mark.parametrize("packed", ["", "zip", "tar", "tar.xz", "TAR.GZ"])
def test_loose_or_packed_it_gives_a_valid_manifest(tmp_path, work, layout, packed):
    root = layout.write(tmp_path / "data", layout.names)
    before = read_files(root)
    given = pack(before, tmp_path / f"d.{packed}") if packed else root
    manifest = open_dataset(given, work)
    assert content(manifest) == sorted(layout.expected)
    assert list(manifest.columns[: len(COLUMNS)]) == COLUMNS
    assert not manifest.attrs.get("skipped")
    check_manifest(manifest)
    assert manifest["path"].str.startswith(str(work if packed else root)).all()
    assert work.exists() == bool(packed)
    assert read_files(root) == before


@every_layout
def test_a_folder_around_everything_does_no_harm(tmp_path, work, layout):
    layout.write(tmp_path / "data" / "download", layout.names)
    manifest = open_dataset(tmp_path / "data", work)
    if not layout.takes_groups:  # else the name has the path in it
        assert content(manifest) == sorted(layout.expected)
    assert sorted(manifest["label"]) == sorted(label for label, _ in layout.expected)
    plain = open_dataset(tmp_path / "data" / "download", work)
    assert manifest["split"].tolist() == plain["split"].tolist()


@every_layout
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_what_is_read_can_be_written_and_read_again(tmp_path, work, layout, suffix):
    root = layout.write(tmp_path / "data", layout.names)
    again = read_manifest(write_manifest(open_dataset(root, work), root / f"again.{suffix}"))
    assert content(again) == sorted(layout.expected)


@every_layout
def test_images_of_a_source_are_never_split(tmp_path, work, layout):
    root = layout.write(tmp_path / "data", layout.names)
    groups = PATTERN if layout.takes_groups else None
    manifest = open_dataset(root, work, groups=groups)
    sources = manifest["source_id"].to_numpy()
    assert groups is None or set(sources) <= set("abc")
    for train, test in grouped_folds([0] * len(sources), sources, 2):
        assert set(sources[train]).isdisjoint(sources[test])


@every_layout
def test_groups_are_refused_where_the_data_have_them(tmp_path, work, layout):
    root = layout.write(tmp_path / "data", layout.names)
    if layout.takes_groups:
        open_dataset(root, work, groups=PATTERN)
        return
    with pytest.raises(DatasetError, match=r"names the source .*groups='\(.*Leave groups out"):
        open_dataset(root, work, groups=PATTERN)


@pytest.mark.parametrize("name", ["records", "tree"])
def test_variant_and_engine_are_those_given(tmp_path, work, name):
    root = LAYOUTS[name].write(tmp_path / "data", LAYOUTS[name].names)
    for making in ({}, {"variant": "spliced", "engine": "opencv-ns"}):
        fakes = open_dataset(root, work, **making).query("label == 1")
        assert set(fakes["variant"]) == {making.get("variant", "regenerated")}
        assert set(fakes["engine"]) == {making.get("engine", "unknown")}


@every_layout
@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_file_that_is_no_image_never_passes_unnoticed(tmp_path, work, layout, skip_bad):
    root = layout.write(tmp_path / "data", layout.names)
    (root / layout.names[0]).write_text("text")
    try:
        manifest = open_dataset(root, work, skip_bad=skip_bad)
        told = f"{manifest.attrs.get('skipped')} {find_bad_rows(manifest)}"
    except ValueError as error:
        assert not skip_bad
        told = str(error)
    assert str(root / layout.names[0]) in told


@every_layout
def test_paths_never_leave_the_data_set(tmp_path, work, layout):
    files = read_files(layout.write(tmp_path / "data", layout.names))
    with pytest.raises(DatasetError, match="leaves the folder"):
        open_dataset(pack(files | {"../a.png": b"x"}, tmp_path / "d.zip"), work)
    assert not work.exists() or not any(work.iterdir())


def test_a_manifest_is_taken_alone_or_with_its_folder(tmp_path, work):
    root = write_images(tmp_path / "data", RECORDS)
    for suffix in ("csv", "parquet"):
        path = write_manifest(read_records(root).assign(source_id="mine"), root / f"m.{suffix}")
        assert set(open_dataset(path, work)["source_id"]) == {"mine"}
        path.rename(root / f"manifest.{suffix}")
        assert set(open_dataset(root, work)["source_id"]) == {"mine"}
        (root / f"manifest.{suffix}").unlink()


def test_a_bad_row_is_refused_with_row_and_remedy(tmp_path, work):
    root = write_records_and_manifest(tmp_path / "data", RECORDS)
    (root / RECORDS[0]).unlink()
    with pytest.raises(ManifestError, match=r"row 1 .*original\.png.*names no file. Restore"):
        open_dataset(root, work)
    assert len(open_dataset(root, work, skip_bad=True)) == len(RECORDS)


def test_a_split_alone_is_not_taken_for_a_wrapping(tmp_path, work):
    manifest = open_dataset(write_images(tmp_path / "a", TREE[:4]), work)
    assert set(manifest["split"]) == {"train"}


@pytest.mark.parametrize("kind", ["missing", "empty folder", "text file", "image", "text"])
def test_anything_else_lists_the_layouts(tmp_path, work, kind):
    place = tmp_path / "data"
    if kind != "missing":
        place.mkdir()
    if kind == "text":
        (place / "a.txt").touch()
    if kind in ("text file", "image"):
        place = place / ("a.txt" if kind == "text file" else "a.png")
        place.touch()
    with pytest.raises(DatasetError) as caught:
        open_dataset(place, work)
    for layout in (*(reader.layout for reader in READERS), ".zip, .tar"):
        assert layout in str(caught.value)
    assert isinstance(caught.value, MissingDataError) == (kind == "missing")


@pytest.mark.parametrize("suffix", ["zip", "tar.xz"])
def test_cifake_is_not_unpacked_into_a_sea_of_files(tmp_path, work, monkeypatch, suffix):
    names = [f"{kind}/{i}.png" for kind in ("train/REAL", "train/FAKE") for i in range(5)]
    root = write_images(tmp_path / "data", names)
    archive = pack(read_files(root), tmp_path / f"d.{suffix}")
    monkeypatch.setattr(cifake, "MANY", 9)
    with pytest.raises(DatasetError, match=r"read_cifake\('.*d\."):
        open_dataset(archive, work)
    assert not work.exists()
    assert len(open_dataset(root, work)) == 10  # what the user unpacked is read
    monkeypatch.setattr(cifake, "MANY", 10)
    assert len(open_dataset(archive, work)) == 10


def test_half_a_tree_says_what_is_missing(tmp_path, work):
    with pytest.raises(DatasetError, match=r"no images under a folder named Fake"):
        open_dataset(write_images(tmp_path / "data", ["Real/a.png"]), work)
