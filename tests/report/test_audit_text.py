import pytest

from cnnsvm.audit.audit import CHECKS
from cnnsvm.audit.check import Check
from cnnsvm.report.audit_text import LOOKS_AT, format_audit


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
        "checks": [check.as_dict() for check in checks],
        **values,
    }


LEAK = Check("resampling", "leak", "95% of the fakes", "Resize both.", 0.97, 0.94, 0.99)
WARNING = Check("colour", "warning", "colours differ", "Beat it.", 0.7, 0.6, 0.8)
PASSED = Check("metadata", "pass", "headers do not", "", 0.5, None, None)
OPEN = Check("splits", "not checked", "the manifest names no two splits.")


def test_leaks_come_first_with_what_to_do():
    text = format_audit(result(PASSED, WARNING, OPEN, LEAK))
    assert text.startswith("Audit: leak\n")
    assert "0.970 [0.940, 0.990]" in text
    assert "What to do: Resize both." in text
    titles = ["Leaks (1)", "Warnings (1)", "Not checked (1)", "Passed (1)"]
    places = [text.index(title) for title in titles]
    assert places == sorted(places)
    assert "mean nothing until the leaks are mended" in " ".join(text.split())


@pytest.mark.parametrize(
    ("checks", "said"),
    [
        ((PASSED, WARNING), "No certain leak"),
        ((PASSED,), "None of the checks found a way to cheat"),
        ((PASSED, OPEN), "Some could not be made"),
    ],
)
def test_the_conclusion_follows_the_worst_verdict(checks, said):
    text = " ".join(format_audit(result(*checks)).split())
    assert said in text
    assert "Leaks" not in text
    assert "Not seen by any check" in text


def test_how_much_was_looked_at_is_told():
    text = format_audit(result(PASSED, data="records/manifest.parquet"))
    assert "records/manifest.parquet" in text
    assert "12000 images from 2000 sources" in text
    assert "2000 images from 1000 sources, as many real as fake" in text
    assert "1 min 15 s" in text


def test_what_was_left_out_is_listed():
    left_out = [{"path": f"{i}.png", "reason": "truncated"} for i in range(9)]
    text = format_audit(result(PASSED, left_out=left_out))
    assert "Left out (9)" in text
    assert "0.png: truncated" in text
    assert "and 4 more" in text
    assert "Left out" not in format_audit(result(PASSED))


def test_what_holds_for_several_checks_is_said_once():
    twins = [Check(name, "not checked", "there are no fake images.") for name in ("grid", "colour")]
    text = format_audit(result(*twins))
    assert text.count("there are no fake images.") == 1
    assert "grid, colour: there are" in text


def test_lines_fit_a_screen():
    wordy = Check("histories", "leak", "formats differ; " * 40, "Write both " * 40)
    lines = format_audit(result(wordy, LEAK, WARNING)).splitlines()
    assert max(map(len, lines)) <= 98


def test_every_check_has_words():
    assert set(LOOKS_AT) == set(CHECKS)
