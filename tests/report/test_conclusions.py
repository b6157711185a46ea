import pytest

from cnnsvm.report.conclusions import caveats, explain, headline, leaking


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "0.800 (95 % interval 0.700 to 0.900; guessing is 0.5) on images from 40 sources"),
        ({"audit": {"verdict": "leak"}}, "but the data leak"),
        ({"metrics": {"balanced_accuracy": {"value": 0.6, "low": 0.48, "high": 0.7}}}, "not show"),
        ({"metrics": {"balanced_accuracy": {"value": 0.6, "low": None}}}, "0.600 (guessing is"),
    ],
)
def test_the_headline_is_one_sentence_that_says_what_spoils_it(changes, said):
    metrics = {"balanced_accuracy": {"value": 0.8, "low": 0.7, "high": 0.9}}
    sentence = headline({"metrics": metrics, "n_sources": 40} | changes)
    assert said in sentence
    assert sentence.count(". ") == 0
    assert headline({"metrics": {}}) == ""


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
