from dataclasses import asdict

import pytest
from report_contract import check_report, check_width

from cnnsvm.audit.audit import CHECKS
from cnnsvm.audit.check import Check
from cnnsvm.report.audit import LOOKS_AT, audit_report


def result(*checks, **values):
    verdicts = [check.verdict for check in checks]
    worst = next(v for v in ("leak", "warning", "not checked", "pass") if v in [*verdicts, "pass"])
    return {
        "verdict": worst,
        "n_images": 12_000,
        "n_sources": 2_000,
        "n_probed_images": 2_000,
        "n_probed_sources": 1_000,
        "n_splits": 5,
        "seconds": 75.0,
        "checks": [asdict(check) for check in checks],
        **values,
    }


LEAK = Check("resampling", "leak", "95% of the fakes", "Resize both.", 0.97, 0.94, 0.99)
WARNING = Check("colour", "warning", "colours differ", "Beat it.", 0.7, 0.6, 0.8)
PASSED = Check("metadata", "pass", "headers do not", "", 0.5, None, None)
OPEN = Check("splits", "not checked", "the manifest names no two splits.")


def said(*checks, **values):
    page, text = check_report(audit_report(result(*checks, **values)))
    check_width(text)
    assert all(part in page.said for part in ("ROC AUC", "Not seen by any check"))
    return text, " ".join(text.split())


def test_leaks_come_first_with_what_to_do():
    text, words = said(PASSED, WARNING, OPEN, LEAK)
    assert text.startswith("Audit: leak\n")
    assert "0.970 [0.940, 0.990]" in text
    assert "What to do: Resize both." in words
    titles = ["Leaks (1)", "Warnings (1)", "Not checked (1)", "Passed (1)"]
    places = [text.index(title) for title in titles]
    assert places == sorted(places)
    assert "mean nothing until the leaks are mended" in words


@pytest.mark.parametrize(
    ("checks", "conclusion"),
    [
        ((PASSED, WARNING), "No certain leak"),
        ((PASSED,), "None of the checks"),
        ((PASSED, OPEN), "could not be made"),
    ],
)
def test_the_conclusion_follows_the_worst_verdict(checks, conclusion):
    _, words = said(*checks)
    assert conclusion in words
    assert "Leaks" not in words


def test_how_much_was_looked_at_is_told():
    _, words = said(PASSED, data="records/manifest.parquet")
    for part in ("records/manifest.parquet", "12,000 images from 2,000 sources", "1 min 15 s"):
        assert part in words
    assert "2,000 images from 1,000 sources" in words


def test_what_was_left_out_is_listed():
    left_out = [{"path": f"{i}.png", "reason": "truncated"} for i in range(14)]
    _, words = said(PASSED, left_out=left_out)
    for part in ("Skipped images (14)", "0.png: truncated", "and 4 more"):
        assert part in words
    assert "Skipped" not in said(PASSED)[0]


def test_what_holds_for_several_checks_is_said_once():
    twins = [Check(name, "not checked", "there are no fake images.") for name in ("grid", "colour")]
    text, _ = said(*twins)
    assert text.count("there are no fake images.") == 1
    assert "grid, colour: there are" in text


def test_lines_fit_a_screen():
    said(
        Check("post-processing", "leak", "formats differ; " * 40, "Write both " * 40), LEAK, WARNING
    )


def test_every_check_has_words():
    assert set(LOOKS_AT) == set(CHECKS)
