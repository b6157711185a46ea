import csv
import io
import json

import numpy as np
import pandas as pd
import pytest
from report_contract import HOSTILE, check_report, check_width

from cnnsvm.report import render_text, write_report
from cnnsvm.report.evaluation import PREDICTION_COLUMNS, evaluation_report, folds_csv


@pytest.fixture
def report(result, predictions, folds, curves, loader):
    return evaluation_report(result, predictions, folds, curves, loader=loader)


def section_of(report, title):
    return next(section for section in report.sections if section.title == title)


def test_the_report_keeps_the_contract_and_says_all_it_was_given(report, result):
    page, text = check_report(report)
    check_width(text)
    auc = result["metrics"]["roc_auc"]
    for said in (page.said, " ".join(text.split())):
        for part in (
            f"{auc['value']:.3f} [{auc['low']:.3f}, {auc['high']:.3f}]",
            *("A test", "twelve sources", "36 images from 12 sources, 3 folds", "1 h 1 min"),
            *("python experiments/cv.py --trials 3", "near chance", "kernel=rbf, C=1.5"),
            *("broken.png", "the search ran out of time", "only 12 sources"),
        ):
            assert part in said
    assert page.tags.count("svg") == 4 + 1 + 3
    assert page.tags.count("img") == 12 + len(_mistakes(report))
    assert "resnet18" in page.said


def _mistakes(report):
    galleries = section_of(report, "Most confident mistakes").blocks
    return [exhibit for gallery in galleries for exhibit in gallery.exhibits]


def test_the_conclusion_comes_first(report):
    page, text = check_report(report)
    for said in (page.said, text):
        places = [said.index(part) for part in ("Balanced accuracy", "How far to trust", "PR AUC")]
        assert places == sorted(places)


def test_warnings_and_leaks_stand_in_one_box(report, result, predictions, loader):
    assert "the search ran out of time" in report.notes
    result["controls"]["metadata"]["verdict"] = "above chance"
    notes = evaluation_report(result, predictions, loader=loader).notes
    assert "The data leak" in notes[0]
    assert len(set(notes)) == len(notes)


def test_one_kind_of_fake_has_no_table_of_its_own(result, predictions, loader):
    result["by_engine"] = {"vae:a": result["by_engine"]["vae:a"]}
    report = evaluation_report(result, predictions, loader=loader)
    assert "By engine" not in [section.title for section in report.sections]
    assert section_of(report, "Metrics").note == "All fakes: engine vae:a."


def test_paths_are_below_the_data(result, predictions, loader):
    absolute = predictions.assign(path="/home/user/photos/" + predictions["path"])
    result["skipped"] = [
        {"path": "/home/user/photos/bad.png", "reason": "/home/user/photos/bad.png: truncated"}
    ]
    page, text = check_report(evaluation_report(result, absolute, loader=loader))
    for said in (page.said, text):
        assert "/home/user" not in said
        assert "bad.png" in said


def test_a_page_links_its_sections_and_its_files(report):
    page, _ = check_report(report)
    places = [value for name, value in page.attributes if name == "href"]
    assert {"report.json", "folds.csv", "predictions.csv"} <= set(places)
    assert len([place for place in places if place.startswith("#")]) == len(report.sections)


def test_whatever_users_provide_is_escaped(result, predictions, loader):
    hostile = predictions.assign(path=HOSTILE, mask_schema=HOSTILE, prediction=1)
    result |= dict.fromkeys(("title", "command", "data"), HOSTILE)
    result["by_engine"] = {HOSTILE: result["by_engine"].popitem()[1]}
    result["controls"] = {HOSTILE: {"verdict": HOSTILE, "meaning": HOSTILE}}
    result["skipped"] = [{"path": HOSTILE, "reason": HOSTILE}]
    result["settings"] = result["environment"] = {HOSTILE: HOSTILE}
    result["warnings"] = [HOSTILE]
    result["tables"] = [{"title": HOSTILE, "headers": [HOSTILE], "rows": [[HOSTILE]]}]
    page, _ = check_report(evaluation_report(result, hostile, loader=loader))
    assert "".join(page.text).count(HOSTILE) >= 15


def test_a_leak_is_shown_in_words_and_not_in_colour_alone(result, predictions, loader):
    assert not evaluation_report(result, predictions, loader=loader).alarming
    result["controls"]["metadata"]["verdict"] = "above chance"
    report = evaluation_report(result, predictions, loader=loader)
    assert report.alarming
    page, _ = check_report(report)
    assert "⚠ above chance" in page.said
    assert "alarm" in dict(page.attributes)["class"] or ("class", "note alarm") in page.attributes


def test_what_is_missing_leaves_no_heading(result, predictions, loader):
    bare = evaluation_report({}, predictions, loader=loader)
    page, text = check_report(bare)
    assert "No metric is defined" in text
    assert "No negative controls were run" in page.said
    for title in ("Metrics", "By engine", "Folds", "Warnings", "Skipped", "Settings"):
        assert not any(section.title.startswith(title) for section in bare.sections)
    assert len(section_of(bare, "Plots").blocks[0].plots) == 4  # and no curves of fine-tuning


def test_undefined_numbers_say_why(result, predictions, loader):
    result["metrics"]["precision"] = {"value": None, "low": None, "high": None}
    report = evaluation_report(result, predictions, loader=loader)
    page, text = check_report(report)
    assert "n/a (nothing was called fake)" in page.said
    assert "n/a (nothing was called fake)" in text
    assert "nothing was called fake" in [card.under for card in report.cards]


def test_further_tables_have_their_title_and_note(result, predictions, loader):
    entry = {
        "title": "Heads",
        "headers": ["head", "n"],
        "rows": [["a < b", "7"]],
        "note": "Paired.",
    }
    _, text = check_report(
        evaluation_report(result | {"tables": [entry]}, predictions, loader=loader)
    )
    assert "Heads\n  head   n\n  a < b  7\n  Paired." in text


def test_one_held_out_part_is_no_fold(result, predictions, loader):
    result["folds"] = result["folds"][:1]
    assert "1 held-out part" in evaluation_report(result, predictions, loader=loader).head["size"]


def test_everything_is_written_and_nothing_else(tmp_path, report, result):
    out = tmp_path / "new" / "report"
    paths = write_report(out, report)
    names = {"report.json", "folds.csv", "predictions.csv", "report.html"}
    assert set(paths) == {path.name for path in out.iterdir()} == names
    assert paths["report.html"].stat().st_size < 2_000_000
    assert json.loads(paths["report.json"].read_text()).keys() == result.keys()
    assert render_text(report, paths.values()).splitlines()[-4:] == [
        f"  {path}" for path in paths.values()
    ]


def test_json_takes_the_folds_from_the_parameter(result, predictions, folds, loader):
    del result["folds"]
    report = evaluation_report(result, predictions, folds, loader=loader)
    assert json.loads(report.files["report.json"])["folds"] == folds


def test_predictions_round_trip(predictions, loader):
    odd = predictions.copy()
    odd.loc[0, "path"] = 'a,"b"\nc.png'
    report = evaluation_report({}, odd.assign(extra=1), loader=loader)
    back = pd.read_csv(io.StringIO(report.files["predictions.csv"]))
    assert tuple(back.columns) == PREDICTION_COLUMNS
    expected = odd[list(PREDICTION_COLUMNS)]
    pd.testing.assert_frame_equal(back, expected, check_dtype=False, rtol=1e-12)
    with pytest.raises(ValueError, match=r"column.* score"):
        evaluation_report({}, predictions.drop(columns="score"), loader=loader)


def test_folds_have_a_column_for_each_metric_and_parameter(folds):
    folds[1]["best_params"] = {"kernel": "linear"}
    rows = list(csv.DictReader(io.StringIO(folds_csv(folds))))
    assert [row["fold"] for row in rows] == ["0", "1", "2"]
    assert float(rows[0]["roc_auc"]) == pytest.approx(folds[0]["metrics"]["roc_auc"])
    assert [row["best_C"] for row in rows] == ["1.5", "", "1.5"]


def test_a_failure_leaves_the_old_report_alone(tmp_path, report):
    write_report(tmp_path, report)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    report.sections = [*report.sections, object()]
    report.files = dict.fromkeys(report.files, "new")
    with pytest.raises(Exception, match="object"):
        write_report(tmp_path, report)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_metrics_that_are_not_known_come_last(predictions, loader):
    metrics = {"own": {"value": np.float32(0.25)}, "recall": {"value": 1.0}}
    report = evaluation_report({"metrics": metrics}, predictions, loader=loader)
    assert [row[0] for row in section_of(report, "Metrics").blocks[0].rows] == ["recall", "own"]
