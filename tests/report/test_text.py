import pytest

from cnnsvm.report import format_report
from cnnsvm.report.text import format_table


def table_under(text, title):
    """Return the lines of a table: those after a title, up to the next empty line."""
    return text[text.index(title) :].split("\n\n")[0].splitlines()[1:]


def test_no_line_is_wider_than_98_characters(result):
    text = format_report(result)
    assert max(map(len, text.splitlines())) <= 98
    assert not any(line != line.rstrip() for line in text.splitlines())


def test_columns_are_aligned(result):
    short = {"vae:a": result["by_engine"]["vae:a"]}
    result["by_engine"] = {**short, "opencv-telea": {"n_fakes": 1234, "metrics": {}}}
    header, first, second = table_under(format_report(result), "By engine")
    for column in ("fakes", "recall", "balanced accuracy", "ROC AUC"):
        end = header.index(column) + len(column)
        for row in (first, second):
            assert row[end - 1] not in " "
            assert row[end : end + 1] in (" ", "")


def test_a_long_name_keeps_its_line_and_its_numbers_their_columns():
    name = "diffusion:" + "x" * 60
    _, long_name, long_row, short_row = format_table(
        ["engine", "recall"], [[name, "0.5"], ["b", "0.25"]]
    ).splitlines()
    assert long_name.strip() == name
    assert len(long_row) == len(short_row)


def test_numbers_verdicts_and_parameters_are_there(result):
    text = format_report(result)
    auc = result["metrics"]["roc_auc"]
    assert f"{auc['value']:.3f} [{auc['low']:.3f}, {auc['high']:.3f}]" in text
    assert "near chance" in text
    assert "fold 1 chose kernel=rbf, C=1.5" in text
    assert "broken.png: truncated" in text
    assert "1 h 1 min" in text


def test_it_ends_with_where_the_files_are(result, tmp_path):
    paths = [tmp_path / "report.json", tmp_path / "report.html"]
    assert format_report(result, paths).splitlines()[-2:] == [f"  {path}" for path in paths]
    assert "Written to" not in format_report(result)


@pytest.mark.parametrize("key", ["by_engine", "controls", "folds", "skipped", "warnings"])
def test_an_empty_section_leaves_no_heading(result, key):
    assert len(format_report({**result, key: {}})) < len(format_report(result))
    assert "\n\n\n" not in format_report({**result, key: {}})


def test_a_bare_result_still_reads():
    text = format_report({"title": "Bare", "metrics": {"recall": {"value": None}}})
    assert "n/a (no fakes)" in text
    assert "No metric is defined" in text


def test_long_lists_are_cut_and_say_so(result):
    skipped = [{"path": f"{i}.png", "reason": "gone"} for i in range(25)]
    text = format_report({**result, "skipped": skipped})
    assert "Skipped (25)" in text
    assert "and 15 more" in text
    assert "12.png" not in text


def test_further_tables_have_their_title_and_note(result):
    entry = {
        "title": "Heads",
        "headers": ["head", "n"],
        "rows": [["a < b", "7"]],
        "note": "Paired.",
    }
    text = format_report(result | {"tables": [entry]})
    assert "Heads\n  head   n\n  a < b  7\n  Paired." in text


def test_one_held_out_part_is_no_fold(result):
    assert "1 held-out part" in format_report(result | {"folds": result["folds"][:1]})
