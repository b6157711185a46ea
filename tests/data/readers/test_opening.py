import tarfile
import zipfile

import pytest
from PIL import Image

from cnnsvm.data.manifest import ManifestError, make_manifest, make_row, write_manifest
from cnnsvm.data.readers import DatasetError, MissingDataError, cifake, open_dataset, read_records

RECORDS = ["1/original.png", "1/inpainting.png", "2/original.png", "2/inpainting.png"]
TREE = ["Train/Real/a_1.png", "Train/Fake/a_2.png"]
SOURCES = ["b_1.png", "sub/b_2.png"]


def write(root, names):
    for k, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (k, 100, sum(name.encode()) % 256)).save(path)
    return root


def pack(root, archive):
    if archive.suffix != ".zip":
        with tarfile.open(
            archive, "w:" + archive.suffix.lower().replace(".tar", "").strip(".")
        ) as opened:
            opened.add(root, ".")
        return archive
    with zipfile.ZipFile(archive, "w") as opened:
        for path in sorted(root.rglob("*.*")):
            opened.write(path, path.relative_to(root))
    return archive


def content(manifest):
    return sorted(zip(manifest["label"], manifest["source_id"], manifest["split"], strict=True))


@pytest.fixture
def work(tmp_path):
    return tmp_path / "work"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (RECORDS, [(0, "1"), (0, "2"), (1, "1"), (1, "2")]),
        (TREE, [(0, "Train/Real/a_1.png"), (1, "Train/Fake/a_2.png")]),
        (SOURCES, [(0, "b_1.png"), (0, "sub/b_2.png")]),
        (["7/original.png", "8/original.png"], [(0, "7"), (0, "8")]),  # after delete.py
    ],
)
@pytest.mark.parametrize("packed", ["", "zip", "tar", "tar.xz", "TAR.GZ"])
def test_every_layout_loose_and_packed(tmp_path, work, names, expected, packed):
    root = write(tmp_path / "data", names)
    manifest = open_dataset(pack(root, tmp_path / f"d.{packed}") if packed else root, work)
    assert sorted(zip(manifest["label"], manifest["source_id"], strict=True)) == expected
    assert work.exists() == bool(packed)
    assert manifest["path"].str.startswith(str(work if packed else root)).all()


@pytest.mark.parametrize("names", [RECORDS, TREE])
def test_a_folder_around_everything_does_no_harm(tmp_path, work, names):
    plain = open_dataset(write(tmp_path / "a", names), work)
    wrapped = open_dataset(write(tmp_path / "b" / "download", names).parent, work)
    assert wrapped["label"].tolist() == plain["label"].tolist()
    assert wrapped["split"].tolist() == plain["split"].tolist()


def test_a_split_alone_is_not_taken_for_a_wrapping(tmp_path, work):
    manifest = open_dataset(write(tmp_path / "a", TREE), work)
    assert set(manifest["split"]) == {"train"}


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_manifest_alone_in_its_folder_or_in_a_zip(tmp_path, work, suffix):
    root = write(tmp_path / "data", RECORDS)
    table = read_records(root)
    table["source_id"] = "mine"
    path = write_manifest(table, root / f"manifest.{suffix}")
    for given in (path, root, pack(root, tmp_path / "d.zip")):
        manifest = open_dataset(given, work)
        assert manifest["source_id"].tolist() == ["mine"] * 4


def test_variant_engine_and_groups_are_passed_on(tmp_path, work):
    making = {"variant": "spliced", "engine": "opencv-ns"}
    for names in (RECORDS, TREE):
        root = write(tmp_path / names[0][:5], names)
        fakes = open_dataset(root, work, **making).query("label == 1")
        assert set(fakes["variant"]) == {"spliced"}
        assert set(fakes["engine"]) == {"opencv-ns"}
    assert set(open_dataset(root, work, groups=r"(.+)_\d")["source_id"]) == {"a"}
    sources = open_dataset(write(tmp_path / "sources", SOURCES), work, groups=r"(.+)_\d")
    assert set(sources["source_id"]) == {"b"}


def test_groups_for_data_that_have_them_are_refused(tmp_path, work):
    root = write(tmp_path / "data", RECORDS)
    with pytest.raises(DatasetError, match=r"names the source of every image itself, got groups="):
        open_dataset(root, work, groups="(.+)")
    manifest = write_manifest(read_records(root), root / "manifest.csv")
    for given in (root, manifest):
        with pytest.raises(DatasetError, match="names the source of every image itself"):
            open_dataset(given, work, groups="(.+)")


def test_a_bad_manifest_is_refused(tmp_path, work):
    root = write(tmp_path / "data", SOURCES)
    rows = make_manifest([make_row(root / "b_1.png", 0, "x")])
    write_manifest(rows, root / "manifest.csv")
    (root / "b_1.png").unlink()
    with pytest.raises(ManifestError, match=r"row 1 .*names no file"):
        open_dataset(root, work)


@pytest.mark.parametrize("kind", ["missing", "empty folder", "text file", "folder of text"])
def test_anything_else_lists_the_layouts(tmp_path, work, kind):
    place = tmp_path / "data"
    if kind != "missing":
        place.mkdir()
    if kind == "folder of text":
        (place / "a.txt").touch()
    if kind == "text file":
        place = place / "a.txt"
        place.touch()
    with pytest.raises(DatasetError) as caught:
        open_dataset(place, work)
    for layout in ("a manifest", "inpainting_<schema>.png", "Train/Fake/b.jpg", ".zip, .tar"):
        assert layout in str(caught.value)
    assert isinstance(caught.value, MissingDataError) == (kind == "missing")


@pytest.mark.parametrize("suffix", ["zip", "tar.xz"])
def test_cifake_is_not_unpacked_into_a_sea_of_files(tmp_path, work, monkeypatch, suffix):
    names = [f"{kind}/{i}.png" for kind in ("train/REAL", "train/FAKE") for i in range(5)]
    root = write(tmp_path / "data", names)
    archive = pack(root, tmp_path / f"d.{suffix}")
    monkeypatch.setattr(cifake, "MANY", 9)
    with pytest.raises(DatasetError, match=r"Read it into memory with .*read_cifake\('.*d\."):
        open_dataset(archive, work)
    assert not work.exists()
    assert len(open_dataset(root, work)) == 10  # what the user unpacked is read
    monkeypatch.setattr(cifake, "MANY", 10)
    assert len(open_dataset(archive, work)) == 10


def test_an_unsafe_archive_is_refused(tmp_path, work):
    with tarfile.open(tmp_path / "d.tar.gz", "w:gz") as opened:
        link = tarfile.TarInfo("Real")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        opened.addfile(link)
    with pytest.raises(DatasetError, match="'Real' is a link"):
        open_dataset(tmp_path / "d.tar.gz", work)


def test_half_a_tree_says_what_is_missing(tmp_path, work):
    with pytest.raises(DatasetError, match=r"no images under a folder named Fake"):
        open_dataset(write(tmp_path / "data", ["Real/a.png"]), work)
