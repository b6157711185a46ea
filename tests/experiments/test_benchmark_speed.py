import pytest

import benchmark_speed


@pytest.mark.parametrize(
    ("what", "options", "row"),
    [
        ("svm", ["--rows", "60", "--features", "8", "--trials", "2", "--folds", "2"], "60 x 8"),
        ("embed", ["--backbones", "squeezenet1_1", "--images", "2"], "squeezenet1_1, 224 pixels"),
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
