import csv
import io
import json

import numpy as np
import pandas as pd
import pytest
from report_contract import HOSTILE, check_report, check_width

from cnnsvm.data.images import ImageError
from cnnsvm.report import render_text, write_report
from cnnsvm.report.evaluation import (
    PREDICTION_COLUMNS,
    evaluation_report,
    folds_csv,
    worst_mistakes,
)
from cnnsvm.report.wording import caveats, explain, leaking


@pytest.fixture
def report(result, predictions, folds, curves, loader):
    return evaluation_report(result, predictions, folds, curves, loader=loader)


@pytest.fixture
def wrong():
    """Build ten false alarms, ten misses and two right decisions."""
    table = pd.DataFrame({"label": [0] * 10 + [1] * 10 + [0, 1]})
    table["prediction"] = [1] * 10 + [0] * 10 + [0, 1]
    table["probability"] = [0.5 + 0.04 * i for i in range(10)] + [0.04 * i for i in range(12)]
    table["path"] = [f"/data/set/{i}.png" for i in range(22)]
    return table.assign(mask_schema=None, variant="spliced", engine="vae:a")


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
    assert page.tags.count("img") == 4 + 1 + 3 + 12 + len(_mistakes(report))
    assert "resnet18" in page.said


def _mistakes(report):
    galleries = section_of(report, "Most confident mistakes").blocks
    return [exhibit for gallery in galleries for exhibit in gallery.exhibits]


def test_the_conclusion_comes_first(report):
    page, text = check_report(report)
    for said in (page.said, text):
        places = [said.index(part) for part in ("The detector finds", "How far to trust", "PR AUC")]
        assert places == sorted(places)


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


def test_the_surest_mistakes_come_first(wrong, loader):
    names = [list(rows["path"].str[10:-4].astype(int)) for rows in worst_mistakes(wrong).values()]
    assert names == [list(range(9, -1, -1)), list(range(10, 20))]
    report = evaluation_report({}, wrong.assign(**ROW), loader=loader)
    alarms, misses = section_of(report, "Most confident mistakes").blocks
    assert [exhibit.path for exhibit in alarms.exhibits] == [f"{i}.png" for i in range(9, 1, -1)]
    assert "8" in misses.note
    assert "10" in misses.note
    assert alarms.exhibits[0].lines == ["probability 0.860", "real, called fake", "spliced, vae:a"]


ROW = {"source_id": "s", "fold": 0, "score": 0.0}


def test_no_mistakes_are_good_news(wrong, loader):
    report = evaluation_report({}, wrong.iloc[20:].assign(**ROW), loader=loader)
    page, _ = check_report(report)
    assert page.said.count("None.") == 2


def test_a_sample_tells_truth_and_decision(wrong, loader):
    (sample,) = section_of(
        evaluation_report({}, wrong.assign(**ROW), loader=loader), "A random sample"
    ).blocks
    labels = wrong.assign(name=wrong["path"].str[10:]).set_index("name")
    assert len(sample.exhibits) == 12
    for exhibit in sample.exhibits:
        row = labels.loc[exhibit.path]
        truth, called = ("fake" if row[k] else "real" for k in ("label", "prediction"))
        assert exhibit.lines[1] == f"{truth}, called {called}"


def test_an_unreadable_image_gets_a_placeholder(wrong, caplog):
    def fail(path):
        raise ImageError(f"{path}: truncated")

    page, _ = check_report(evaluation_report({}, wrong.assign(**ROW), loader=fail))
    assert page.said.count("not available") == 16 + 12
    assert page.tags.count("img") == 4
    assert "9.png: truncated" in caplog.text


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


def test_the_false_alarm_rate_follows_from_recall_and_balanced_accuracy():
    metrics = {"recall": {"value": 0.8}, "balanced_accuracy": {"value": 0.75}}
    assert "80 % of the fakes and calls 30 % of the real" in explain(metrics)[0]


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [(0.45, 0.6, "do not show"), (0.2, 0.4, "worse than guessing"), (0.6, 0.8, None)],
)
def test_the_ranking_is_held_against_guessing(low, high, text):
    entry = {"value": (low + high) / 2, "low": low, "high": high}
    sentence = " ".join(explain({"roc_auc": entry}))
    assert (text in sentence) if text else sentence.endswith("guessing gives 50 %.")


def control(verdict, value=0.7):
    return {"verdict": verdict, "roc_auc": {"value": value, "low": value, "high": value}}


@pytest.mark.parametrize(
    ("controls", "text"),
    [
        ({}, "No negative controls were run"),
        ({"metadata": "near chance", "file_size": "near chance"}, "no sign"),
        ({"metadata": "above chance"}, "Warning"),
        ({"shuffled_labels": "above chance", "file_size": "above chance"}, "The data leak"),
        ({"metadata": "near chance", "file_size": "above chance"}, "file_size (0.700)"),
        ({"colour_histogram": "slightly above chance"}, "colour_histogram (0.700)"),
        ({"metadata": "undefined"}, "undefined: metadata"),
    ],
)
def test_controls_are_judged_first(controls, text):
    entries = {name: control(verdict) for name, verdict in controls.items()}
    assert text in caveats({"controls": entries})[0]


def test_a_leak_that_the_audit_finds_is_not_cleared_by_the_controls():
    checks = [
        {"name": "labels", "verdict": "leak", "summary": "7 fakes are their originals."},
        {"name": "balance", "verdict": "warning", "summary": "one class is rare."},
    ]
    result = {"controls": {"metadata": control("near chance")}}
    leak = result | {"audit": {"verdict": "leak", "n_images": 20, "checks": checks}}
    said = " ".join(caveats(leak))
    assert "7 fakes" in said
    assert "rare" not in said
    assert "no sign" not in said
    fine = result | {"audit": {"verdict": "warning", "n_images": 20, "checks": checks[1:]}}
    said = " ".join(caveats(fine))
    assert "no sign" in said
    assert "20 files" in said
    assert "not audited" in " ".join(caveats(result))


def test_only_controls_without_pixels_prove_a_leak():
    entries = {name: control("above chance") for name in ("metadata", "colour_histogram")}
    assert leaking(entries) == ["metadata"]


def test_few_sources_one_engine_and_perfect_scores_are_pointed_out():
    perfect = {"recall": {"value": 1.0, "low": 1.0, "high": 1.0}}
    said = " ".join(caveats({"n_sources": 12, "by_engine": {"vae:a": {}}, "metrics": perfect}))
    for part in ("only 12 sources", "made by vae:a", "3/n = 25 %"):
        assert part in said
    assert len(caveats({"n_sources": 500, "by_engine": {"a": {}, "b": {}}, "metrics": {}})) == 3


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
