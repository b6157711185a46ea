import pytest
from report_contract import check_report, check_width

from cnnsvm.report.comparison import comparison_report, conclude

ENTRY = {"a": 0.9, "b": 0.87, "value": 0.03, "low": 0.01, "high": 0.05, "p": 0.004, "p_holm": 0.004}


def result(**changes):
    metrics = dict.fromkeys(("balanced_accuracy", "roc_auc", "pr_auc"), ENTRY | changes)
    metrics["brier"] = ENTRY | {"a": 0.1, "b": 0.2, "value": -0.1, "low": -0.12, "high": -0.05}
    pair = {"a": "one", "b": "two", "metrics": metrics}
    facts = {"runs": ["one", "two"], "n_images": 120, "n_sources": 40, "confidence": 0.95}
    return facts | {"same_folds": True, "pairs": [pair]}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "one is better than two by 0.030 (95 % interval 0.010 to 0.050)"),
        ({"value": -0.03, "low": -0.05, "high": -0.01}, "two is better than one by 0.030 (95 % "),
        ({"p_holm": 0.2}, "No difference between one and two that 40 sources could show"),
        ({"p_holm": 0.0005}, "p < 0.001"),
        ({"value": float("nan")}, "needs both real and fake"),
    ],
)
def test_the_conclusion_names_the_better_or_says_that_none_is_shown(changes, said):
    found = result(**changes)
    assert said in conclude(found["pairs"][0], found)


def test_the_report_keeps_the_contract():
    page, text = check_report(comparison_report(result()))
    check_width(text)
    assert "120 images from 40 sources" in text
    assert "0.030 [0.010, 0.050]" in page.cells
    assert page.cells.count("one") == 5  # the header, and better in each metric, of Brier too
    assert "other folds" not in text
    assert "other folds" in check_report(comparison_report(result() | {"same_folds": False}))[1]
