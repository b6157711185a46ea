import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cnnsvm.data.images import ImageError
from cnnsvm.data.mask_shapes import MASK_SCHEMAS
from cnnsvm.generation.masks import (
    SCHEMAS,
    MaskError,
    MaskSchema,
    Scene,
    SchemaError,
    get_schema,
    split_argument,
)

CANONICAL = {
    "top:0-1": "top",
    "top: 0.20 - 0.5": None,
    "top:0.20-.5": "top:0.2-0.5",
    "random_patches:0.00001-1": "random_patches:0.00001-1",
    "strokes:": "strokes",
    "strokes:0.05-0.50": "strokes",
    "strokes:0.1-0.30": "strokes:0.1-0.3",
    "rectangles:0.1-0.3,2": "rectangles:2,0.1-0.3",
    "rectangles: 02 ,": "rectangles:2",
    "rectangles:.05-.5": "rectangles",
    "file:{stem}_mask.png,0-1": "file",
    "file:invert,0.1-0.5,m/{name}": "file:m/{name},invert,0.1-0.5",
}

DRAWN = [*MASK_SCHEMAS, "strokes", "strokes:0.3-0.33", "strokes:0.7-0.95", "strokes:0-1"]
DRAWN += ["rectangles", "rectangles:2", "rectangles:0.02-0.1", "rectangles:9,0.1-0.9"]
DRAWN += ["rectangles:0-1"]
#: Kinds that need a file or a model, and where they are tested.
TESTED_ELSEWHERE = {"file": "test_mask_files.py", "object": "test_objects.py"}
SIZES = [(16, 16), (17, 200), (200, 17), (333, 100), (600, 1000)]
TINY = [(1, 1), (1, 2), (2, 1), (2, 2), (1, 3), (3, 1), (3, 5), (1, 300), (300, 1), (7, 7)]
REFUSED = {
    **dict.fromkeys(
        (f"rectangles:{n}" for n in ("0", "-2", "1.5", "a", "1,2")), "at least 1, once"
    ),
    "strokes:thick": "got 'thick'",
    "top:thick": "got 'thick'",
    **dict.fromkeys(
        (f"file:{p}" for p in ("{id}.png", "{}.png", "a.png,b.png", "/masks/{stem}.png")),
        "one path relative to",
    ),
}


def scene(height=24, width=36, path=None):
    return Scene(np.zeros((height, width, 3), dtype=np.uint8), path)


def rows(n):
    """A draw that covers the first n of 10 rows."""

    def draw(scene, rng):
        mask = np.zeros(scene.shape, dtype=bool)
        mask[:n] = True
        return mask

    return draw


def test_every_schema_is_drawn_here_or_tested_elsewhere():
    drawn = {name.partition(":")[0] for name in DRAWN}
    assert drawn | set(TESTED_ELSEWHERE) == set(SCHEMAS)
    assert all((Path(__file__).parent / name).is_file() for name in TESTED_ELSEWHERE.values())


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("size", [*SIZES, *TINY])
def test_mask_keeps_the_contract_or_there_is_a_reason(name, size):
    schema = get_schema(name)
    low, high = schema.coverage
    for seed in range(5):
        try:
            mask = schema(scene(*size), np.random.default_rng(seed))
        except MaskError:
            assert size in TINY
            assert schema.coverage != (0, 1)
            continue
        assert mask.dtype == np.bool_
        assert mask.shape == size
        assert low <= mask.mean() <= high
        assert mask.any()
        assert mask.size == 1 or not mask.all()


@pytest.mark.parametrize("name", DRAWN)
def test_generator_alone_decides(name):
    def draw(seed):
        return get_schema(name)(scene(90, 120), np.random.default_rng(seed)).tobytes()

    assert draw(5) == draw(5)
    n_different = 1 if get_schema(name).n_draws == 1 else 20
    assert len({draw(seed) for seed in range(20)}) == n_different


@pytest.mark.parametrize(("name", "message"), REFUSED.items())
def test_wrong_argument_is_refused_with_an_example(name, message):
    with pytest.raises(SchemaError, match=f"{message}.*Write "):
        get_schema(name)


@pytest.mark.parametrize("kind", MASK_SCHEMAS)
def test_shapes_are_those_of_the_masks_module(kind):
    drawn = get_schema(kind)(scene(), np.random.default_rng(3))
    np.testing.assert_array_equal(drawn, MASK_SCHEMAS[kind](24, 36, np.random.default_rng(3)))


@pytest.mark.parametrize(("written", "name"), CANONICAL.items())
def test_equal_schemas_have_equal_names_and_a_name_makes_the_schema_again(written, name):
    if name is None:
        with pytest.raises(SchemaError, match="limits of coverage"):
            get_schema(written)
        return
    schema = get_schema(written)
    assert schema.name == name
    again = get_schema(name)
    assert (again.name, again.coverage) == (name, schema.coverage)


def test_schema_passes_through():
    schema = MaskSchema("mine", rows(3))
    assert get_schema(schema) is schema


@pytest.mark.parametrize("name", ["", "circle", "Top", "rectangle", "top,left", "mask_top"])
def test_unknown_kind_is_refused_with_the_known_ones(name):
    with pytest.raises(SchemaError, match=r"no mask schema .* top, .* strokes, object, file"):
        get_schema(name)


@pytest.mark.parametrize("kind", [kind for kind in SCHEMAS if kind != "object"])
@pytest.mark.parametrize("limits", ["0.5-0.5", "0.6-0.2", "0-1.1", "2-3", "0.1-0.2,0.3-0.4"])
def test_limits_that_no_mask_could_keep_are_refused(kind, limits):
    with pytest.raises(SchemaError, match="0 <= low < high <= 1"):
        get_schema(f"{kind}:{limits}")


def test_options_are_told_from_limits():
    assert split_argument("x", " a , 0-.5,b-c,-1-2,", (0.1, 0.2)) == (
        ["a", "b-c", "-1-2"],
        (0, 0.5),
    )
    assert split_argument("x", "", (0.1, 0.2)) == ([], (0.1, 0.2))


@pytest.mark.parametrize(("n", "fits"), [(1, False), (2, True), (5, True), (6, False)])
def test_limits_are_kept_and_belong_to_the_range(n, fits):
    schema = MaskSchema("mine", rows(n), (0.2, 0.5))
    if fits:
        assert schema(scene(10, 4), np.random.default_rng(0)).mean() == n / 10
    else:
        with pytest.raises(MaskError, match=rf"covers {n}0.0%; schema 'mine' allows 20.0% to 50.0"):
            schema(scene(10, 4), np.random.default_rng(0))


@pytest.mark.parametrize("n", [0, 10])
def test_mask_is_never_all_black_nor_all_white(n):
    with pytest.raises(MaskError, match="neither all black nor all white") as caught:
        MaskSchema("mine", rows(n))(scene(10, 4, "cat.png"), np.random.default_rng(0))
    assert "cat.png" in str(caught.value)
    assert isinstance(caught.value, ImageError)


def test_only_pixel_may_be_repainted():
    assert MaskSchema("mine", rows(1))(scene(1, 1), np.random.default_rng(0)).all()


def test_draws_go_on_until_one_fits():
    drawn = []

    def draw(scene, rng):
        drawn.append(int(rng.integers(10)))
        return rows(drawn[-1])(scene, rng)

    schema = MaskSchema("mine", draw, (0.75, 1))
    masks = [schema(scene(10, 4), np.random.default_rng(seed)) for seed in range(5)]
    fitting = [n for n in drawn if n >= 8]
    assert [10 * mask.mean() for mask in masks] == fitting
    assert len(drawn) > 5  # some did not fit


def test_schema_without_randomness_draws_once():
    with pytest.raises(MaskError, match="its mask covers 50"):
        get_schema("top:0.7-1")(scene(), np.random.default_rng(0))
    with pytest.raises(MaskError, match="20 masks were drawn"):
        get_schema("random_patches:0.7-1")(scene(), np.random.default_rng(0))


@pytest.mark.parametrize("mask", [np.ones((10, 4), np.uint8), np.ones((4, 10), bool)])
def test_draw_that_breaks_the_contract_is_found_out(mask):
    with pytest.raises(SchemaError, match="must draw bool"):
        MaskSchema("mine", lambda scene, rng: mask)(scene(10, 4), np.random.default_rng(0))


def test_torch_is_loaded_for_objects_only():
    code = (
        "import sys; from cnnsvm.generation.masks import SCHEMAS, get_schema; "
        "[get_schema(kind) for kind in SCHEMAS if kind != 'object']; "
        "import cnnsvm.generation.masks.objects; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
