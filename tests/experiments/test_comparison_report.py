import json

import numpy as np
import pandas as pd
import pytest
from report_contract import HOSTILE, check_report, check_width, words_of

from baselines.comparison import (
    ALL,
    Comparison,
    paired_differences,
    summarise_designs,
)
from baselines.report import comparison_plot, comparison_report, describe_comparison
from cnnsvm.report import write_report
from cnnsvm.report.render import to_svg
from cnnsvm.report.wording import format_interval, interval_of

SKILLS = {"naive": 0.0, "seed": 0.2, "detector": 1.8}
FACTS = {
    "title": "Benchmark: a test",
    "data": "thirty sources",
    "command": "python experiments/benchmark.py --folds 2",
    "n_images": 90,
    "n_sources": 30,
    "n_folds": 2,
    "seconds": 75.0,
    "designs": {"naive": "resized", "seed": "small", "detector": "ours"},
    "settings": {"naive": "ResizedSVM()"},
    "environment": {"python": "3.11"},
    "warnings": ["files differ"],
    "skipped": [{"path": "broken.png", "reason": "truncated"}],
}


def compared(skills, seed=0, reference=None):
    rng = np.random.default_rng(seed)
    rows = [
        (name, f"{source}/{kind}.png", f"s{source}", int(kind != "original"), kind, source % 2)
        for name in skills
        for source in range(30)
        for kind in ("original", "regenerated", "spliced")
    ]
    columns = ["design", "path", "source_id", "label", "variant", "fold"]
    table = pd.DataFrame(rows, columns=columns)
    score = rng.normal(table["design"].map(skills) * (2 * table["label"] - 1), 1.0)
    chance = 1 / (1 + np.exp(-score))
    table = table.assign(score=score, probability=chance, prediction=(score > 0).astype(int))
    folds = pd.DataFrame(
        [{"design": n, "fold": k, "seconds": 30.0} for n in skills for k in (0, 1)]
    )
    options = {"n_resamples": 200}
    summary = summarise_designs(table, **options)
    return Comparison(table, summary, paired_differences(table, reference, **options), folds)


@pytest.fixture(scope="module")
def found():
    return {"png": compared(SKILLS), "jpeg:75": compared(SKILLS, seed=1)}


def numbers(comparison):
    """List what tables must say: metrics of all fakes, AUC of variants, differences."""
    for row in comparison.summary.to_dict("records"):
        yield format_interval(interval_of(row, "roc_auc"))
        if row["variant"] == ALL:
            yield format_interval(interval_of(row, "balanced_accuracy"))
            yield f"{row['ece']:.3f}"
    for row in comparison.differences.to_dict("records"):
        yield format_interval(row)
        yield f"{row['p_holm']:.3f}"


def test_page_and_text_have_every_number(found):
    page, said = check_report(comparison_report(found, FACTS))
    check_width(said)
    for comparison in found.values():
        for number in numbers(comparison):
            assert number in page.cells
            assert number in said
        for row in comparison.summary.to_dict("records"):
            if row["variant"] == ALL:
                assert format_interval(interval_of(row, "false_alarm_rate")) in page.cells
    lines = [line.split()[0] for line in said.splitlines() if line.startswith("  ")]
    assert lines.count("detector") == 2 * 2 + 2 * 2  # of all, by variant; against each other one
    for part in ("30 sources, 2 folds", "files differ", "broken.png", "Holm", "1 min 0 s"):
        assert part in page.said
        assert part in said
    assert "detector - naive" in said
    assert "resized" in page.said
    assert page.tags.count("svg") == 1


def test_what_is_hostile_is_escaped(found):
    odd = FACTS | dict.fromkeys(("title", "data", "command"), HOSTILE)
    odd |= {"warnings": [HOSTILE], "designs": {HOSTILE: HOSTILE}}
    page, _ = check_report(comparison_report({HOSTILE: found["png"]}, odd))
    assert page.said.count(HOSTILE) >= 6


def test_files_say_the_same(found, tmp_path):
    files = write_report(tmp_path / "new", comparison_report(found, FACTS, "ablation"))
    stems = ("ablation.html", "ablation.json", "ablation.csv")
    assert set(files) == {*stems, "ablation-differences.csv", "ablation-predictions.csv"}
    report = json.loads(files["ablation.json"].read_text())
    summary = pd.read_csv(files["ablation.csv"])
    differences = pd.read_csv(files["ablation-differences.csv"])
    assert list(summary.columns[:3]) == ["codec", "design", "variant"]
    for codec, comparison in found.items():
        own = summary[summary["codec"] == codec]
        np.testing.assert_allclose(own["roc_auc"], comparison.summary["roc_auc"])
        own = differences[differences["codec"] == codec]
        np.testing.assert_allclose(own["p_holm"], comparison.differences["p_holm"])
        result = report["results"][codec]
        assert result["summary"][0]["roc_auc"] == comparison.summary["roc_auc"].iloc[0]
        assert len(result["folds"]) == 6
    assert len(pd.read_csv(files["ablation-predictions.csv"])) == 2 * 270


def test_words_say_what_was_shown():
    said = " ".join(describe_comparison(compared(SKILLS)))
    assert said.startswith("detector ranks best: ROC AUC 0.9")
    assert "Better than naive, seed, beyond chance." in said
    assert "Not shown to beat guessing: naive" in said
    alike = " ".join(describe_comparison(compared({"a": 1.0, "b": 1.0})))
    assert "Not shown to be better than" in alike
    assert "beyond chance" not in alike


def test_one_design_alone_is_described():
    alone = compared({"alone": 1.0})
    assert describe_comparison(alone)[0].startswith("alone ranks best")
    page, said = check_report(comparison_report({"png": alone}, {}))
    assert "Differences" not in said
    assert "Differences" not in page.said


def test_the_plot_names_designs_and_codecs(found):
    said = words_of(comparison_plot(found))
    for name in (*SKILLS, "png", "jpeg:75", "ROC AUC", "balanced accuracy"):
        assert name in said
    assert "png" not in words_of(comparison_plot({"png": found["png"]}))
    assert to_svg(comparison_plot(found), "") == to_svg(comparison_plot(found), "")


def test_the_plot_shows_the_values(found):
    upper, lower = comparison_plot({"png": found["png"]}).axes
    summary = found["png"].summary
    summary = summary[summary["variant"] == ALL]
    for axes, metric in ((upper, "roc_auc"), (lower, "balanced_accuracy")):
        drawn = next(line for line in axes.lines if line.get_marker() == "o")
        np.testing.assert_allclose(drawn.get_xdata(), summary[metric])
        ends = axes.collections[0].get_segments()
        np.testing.assert_allclose([s[0][0] for s in ends], summary[f"{metric}_low"])
        np.testing.assert_allclose([s[1][0] for s in ends], summary[f"{metric}_high"])


def test_what_is_undefined_is_no_number(found):
    single = compared(SKILLS)
    gaps = single.summary.assign(roc_auc=np.nan, roc_auc_low=np.nan, roc_auc_high=np.nan)
    empty = Comparison(single.predictions, gaps, single.differences, single.folds)
    assert describe_comparison(empty) == ["No ROC AUC is defined for these predictions."]
    check_report(comparison_report({"png": empty}, FACTS))
