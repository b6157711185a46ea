import numpy as np
import pytest
from generation_helpers import draw_image, tree
from PIL import Image

from cnnsvm.data.images import load_image
from cnnsvm.data.manifest import make_manifest, make_row
from cnnsvm.data.mask_shapes import MASK_SCHEMAS
from cnnsvm.generation.matching import match_post_processing
from cnnsvm.generation.store import GenerationError
from decoders.family import build_family

ENGINES = ("file:{stem}-fake.png", "opencv-telea", "opencv-ns", "opencv-telea:5", "self-blend")
N_SOURCES = 4


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    rows = []
    for i in range(N_SOURCES):
        path = folder / f"p{i}.jpg"
        Image.fromarray(draw_image(i, 160 + 8 * i, 180)).save(path, quality=60)
        # finished by another program, at a size of its own
        fake = Image.fromarray(draw_image(i + 50, 160 + 8 * i, 180)).resize((120, 96))
        fake.save(folder / f"p{i}-fake.png")
        rows.append(make_row(path, 0, f"source {i}"))
    rows.append(make_row(folder / "p0-fake.png", 1, "source 0"))  # fakes are left alone
    return make_manifest(rows)


@pytest.fixture(scope="module")
def made(originals, tmp_path_factory):
    folder = tmp_path_factory.mktemp("family")
    return folder, build_family(originals, folder, ENGINES, only_spliced=("self-blend",))


def reduced_of(table, engine):
    own = table[table["engine"] == engine]
    return own.groupby("source_id")["reduced"].first().tolist()


def test_every_engine_repaints_every_source_once(made):
    _, table = made
    fakes = table[table["label"] == 1]
    counts = fakes.groupby(["engine", "source_id", "variant"]).size()
    assert (counts == 1).all()
    assert set(fakes["engine"]) == {*ENGINES}
    for engine, own in fakes.groupby("engine"):
        wanted = {"spliced"} if engine == "self-blend" else {"spliced", "regenerated"}
        assert set(own["variant"]) == wanted
        assert own["source_id"].nunique() == N_SOURCES
    assert (table[table["label"] == 0].groupby("source_id").size() == len(ENGINES)).all()
    assert table["source_id"].nunique() == N_SOURCES


def test_every_file_is_what_its_row_says(made):
    _, table = made
    assert table["path"].is_unique
    for row in table.itertuples():
        assert load_image(row.path).shape == (row.height, row.width, 3)


def test_schemas_are_dealt_in_turn(made):
    _, table = made
    spliced = table[table["variant"] == "spliced"]
    dealt = spliced.groupby("engine")["mask_schema"].agg(set)
    assert [dealt[engine] for engine in ENGINES] == [{name} for name in list(MASK_SCHEMAS)[:5]]


def test_more_engines_than_schemas_begin_anew(originals, tmp_path):
    engines = ["opencv-telea", "opencv-ns", "opencv-telea:5"]
    made = build_family(
        originals.iloc[:2], tmp_path, engines, only_spliced=engines, schemas=("left", "top")
    )
    dealt = made.dropna(subset="engine").groupby("engine")["mask_schema"].agg(set)
    assert [dealt[engine] for engine in engines] == [{"left"}, {"top"}, {"left"}]


def test_reduced_and_native_alternate_by_engine_and_source(made):
    _, table = made
    for k, engine in enumerate(ENGINES):
        wanted = [bool((i + k) % 2) and k > 0 for i in range(N_SOURCES)]
        assert reduced_of(table, engine) == wanted
    assert table["reduced"].dtype == bool


def test_what_is_said_to_be_reduced_is(made, originals):
    _, table = made
    native = {row.source_id: row.height for row in originals.itertuples() if row.label == 0}
    for row in table[~table["path"].str.contains("engine_00")].itertuples():
        if row.reduced:
            assert row.height < native[row.source_id]
        else:
            assert row.height == native[row.source_id]


def test_finished_files_take_the_originals_as_they_are(made):
    _, table = made
    own = table[table["engine"] == ENGINES[0]]
    assert not own["reduced"].any()
    assert set(zip(own["width"], own["height"], strict=True)) == {(120, 96)}
    for row in own[own["variant"] == "regenerated"].itertuples():
        number = int(row.source_id.split()[1])
        fake = Image.fromarray(draw_image(number + 50, 160 + 8 * number, 180)).resize((120, 96))
        np.testing.assert_array_equal(load_image(row.path), np.asarray(fake))


def test_native_images_come_first_and_each_kind_in_the_order_of_the_engines(made):
    _, table = made
    places = table["path"].str.extract(r"engine_(\d\d)")[0].astype(int)  # originals name none
    fakes = table["label"] == 1
    assert [ENGINES[k] for k in places[fakes]] == table["engine"][fakes].tolist()
    for _, rows in table.groupby("source_id"):
        for _, kind in rows.groupby("variant"):
            order = list(zip(kind["reduced"], places[kind.index], strict=True))
            assert order == sorted(order)
    assert table["source_id"].is_monotonic_increasing


def test_rows_that_pair_by_position_have_one_size(made):
    """As the crops of a source are drawn: the k-th original beside the k-th of each kind."""
    _, table = made
    both = table[~table["path"].str.contains("engine_04")]  # all but the self-blends
    for _, rows in both.groupby("source_id"):
        kinds = [
            list(zip(kind["width"], kind["height"], strict=True))
            for _, kind in rows.groupby("variant")
        ]
        assert len(kinds) == 3
        assert kinds[0] == kinds[1] == kinds[2]
        assert len(set(kinds[0])) == 3  # of the file, native, reduced


def test_a_source_of_several_originals_keeps_them_apart(originals, tmp_path):
    """Which were reduced is told of each image, not of each source."""
    same = originals.iloc[:2].assign(source_id="both")
    made = build_family(same, tmp_path, ["opencv-telea", "opencv-ns"])
    native = set(originals["height"][:2])
    assert len(made) == 2 * 2 * 3
    for row in made.itertuples():
        assert row.reduced == (row.height not in native)
    assert made["reduced"].sum() == 6
    kinds = [kind["height"].tolist() for _, kind in made.groupby("variant")]
    assert kinds[0] == kinds[1] == kinds[2]


def test_a_second_call_makes_nothing_again(made, originals, monkeypatch):
    folder, first = made
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.*") if path.is_file()}
    files = {path: when for path, when in before.items() if path.suffix in (".png", ".json")}
    monkeypatch.setattr("decoders.reduction.reduce", None)
    monkeypatch.setattr("cnnsvm.generation.engines.Engine.repaint_all", None)
    again = build_family(originals, folder, ENGINES, only_spliced=("self-blend",))
    assert again.equals(first)
    assert {path: path.stat().st_mtime_ns for path in files} == files


def test_the_seed_decides(originals, tmp_path):
    few = originals.iloc[:2]
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        build_family(
            few, tmp_path / name, ["self-blend"], only_spliced=["self-blend"], random_state=seed
        )

    def draw_images(name):
        files = tree(tmp_path / name)
        return {path: files[path] for path in files if "inpainting" in path}

    assert draw_images("a") == draw_images("b")
    assert set(draw_images("a").values()).isdisjoint(draw_images("c").values())


def test_without_reduction_all_is_native(originals, tmp_path):
    made = build_family(originals.iloc[:2], tmp_path, ["opencv-ns", "opencv-telea"], reduced=False)
    assert not made["reduced"].any()
    assert set(made["height"]) == set(originals["height"][:2])
    assert not (tmp_path / "reduced").exists()


def test_an_engine_that_can_only_be_spliced_must_be_listed(originals, tmp_path):
    with pytest.raises(GenerationError, match="'self-blend' makes spliced fakes only"):
        build_family(originals.iloc[:2], tmp_path, ["self-blend"])


def test_a_family_can_be_judged_as_it_is_and_recompressed(made, tmp_path):
    _, table = made
    assert table.groupby("record")["engine"].nunique().max() == 1
    sizes = table.groupby("record")[["width", "height"]].nunique()
    assert (sizes == 1).all(axis=None)
    # the finished images are smaller than their originals, the other engines' are not
    rewritten = match_post_processing(table, tmp_path, post_processing="jpeg:75")
    assert len(rewritten) == len(table)
    assert set(rewritten["engine"].dropna()) == set(table["engine"].dropna())
