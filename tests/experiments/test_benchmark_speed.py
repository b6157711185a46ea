import json

import pytest
from PIL import Image

import benchmark_speed


@pytest.fixture(autouse=True)
def small_products(monkeypatch):
    measure = benchmark_speed.measure_ceiling
    monkeypatch.setattr(benchmark_speed, "measure_ceiling", lambda: measure(32, 1))


@pytest.fixture
def calls(monkeypatch):
    """Collect the command lines that would be timed, with the sizes of the images in them."""
    found = []

    def call(arguments):
        sizes = [Image.open(each).size for each in arguments if each.endswith(".jpg")]
        found.append((arguments[2], sizes, "--heatmaps" in arguments))

    monkeypatch.setattr(benchmark_speed, "_call", call)
    return found


def test_one_call_stands_against_a_call_an_image(calls, tmp_path, capsys):
    options = ["predict", "--images", "2", "--rounds", "1", "--out", str(tmp_path)]
    assert benchmark_speed.main(options) == 0
    size = (512, 512)
    once, each = ("predict", [size, size], False), ("predict", [size], False)
    assert calls == [once, each, each] * 2
    found = json.loads((tmp_path / "predict.json").read_text())
    assert found["rows"][0]["what"] == "predict, 2 images of 512"
    assert "float32" in found["products"]


def test_heatmaps_stand_against_none_at_each_size(calls, tmp_path, capsys):
    options = ["map", "--sides", "80", "40", "--rounds", "1", "--out", str(tmp_path)]
    assert benchmark_speed.main(options) == 0
    assert calls == [
        ("predict", [size], drawn) for size in ((80, 60), (40, 30)) for drawn in (True, False) * 2
    ]


def test_a_call_that_fails_is_not_timed():
    with pytest.raises(RuntimeError, match=r"failed: .*no such name"):
        benchmark_speed._call(["-c", "import sys; sys.stderr.write('no such name'); sys.exit(3)"])


@pytest.mark.parametrize(
    ("what", "options", "row"),
    [
        ("svm", ["--rows", "60", "--features", "8", "--trials", "2", "--folds", "2"], "60 x 8"),
        (
            "embed",
            ["--backbones", "squeezenet1_1", "--images", "2", "--ways", "torch:auto"],
            "squeezenet1_1, 224 pixels, torch:auto",
        ),
    ],
)
def test_both_sides_are_timed_and_told(what, options, row, tmp_path, capsys):
    call = [what, *options, "--other-trials", "1", "--rounds", "1", "--out", str(tmp_path)]
    assert benchmark_speed.main(call) == 0
    said = capsys.readouterr().out
    assert row in said
    assert "processor:" in said
    assert (tmp_path / f"{what}.html").is_file()


def test_sides_take_turns_after_one_that_is_not_measured():
    turns = []
    times = benchmark_speed.take_turns(2, lambda: turns.append("a"), lambda: turns.append("b"))
    assert turns == ["a", "b"] * 3
    assert all(0 <= each < 1 for each in times)
