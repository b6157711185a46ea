import time

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import recall_score, roc_auc_score

from cnnsvm.evaluation import bootstrap
from cnnsvm.evaluation.bootstrap import bootstrap_metrics, metrics_by, paired_difference
from cnnsvm.evaluation.metrics import METRICS


def make_predictions(n_sources=40, skill=1.0, seed=0):
    """Build an original, a regenerated and two spliced fakes a source, scored with some skill."""
    rng = np.random.default_rng(seed)
    kinds = [
        ("original", None, None, 0),
        ("regenerated", "vae:a", "box", 1),
        ("spliced", "vae:a", "box", 1),
        ("spliced", "diffusion:b", "irregular", 1),
    ]
    rows = []
    for source in range(n_sources):
        ease = rng.normal(0, 0.7)
        for variant, engine, schema, label in kinds:
            score = rng.normal(skill * (2 * label - 1) + ease, 1)
            rows.append((f"{source}/{len(rows)}.png", f"s{source}", label, variant, engine, schema))
            rows[-1] += (score,)
    columns = ["path", "source_id", "label", "variant", "engine", "mask_schema", "score"]
    table = pd.DataFrame(rows, columns=columns)
    table["probability"] = 1 / (1 + np.exp(-table["score"]))
    return table.assign(prediction=(table["score"] > 0).astype(int), fold=0)


def width(interval):
    return interval["high"] - interval["low"]


def test_the_interval_is_that_of_resampled_tables():
    table = make_predictions(n_sources=15)
    ours = bootstrap_metrics(table, n_resamples=400)["roc_auc"]
    rng = np.random.default_rng(1)
    rows = table.groupby("source_id", sort=False).indices
    aucs = []
    for _ in range(400):
        drawn = table.iloc[np.concatenate([rows[s] for s in rng.choice(list(rows), 15)])]
        aucs.append(roc_auc_score(drawn["label"], drawn["probability"]))
    assert ours["value"] == pytest.approx(roc_auc_score(table["label"], table["probability"]))
    np.testing.assert_allclose(
        [ours["low"], ours["high"]], np.quantile(aucs, [0.025, 0.975]), atol=0.03
    )


def test_copies_within_a_source_do_not_narrow_the_interval():
    table = make_predictions()
    copies = pd.concat([table] * 6, ignore_index=True)
    alone = copies.assign(source_id=np.arange(len(copies)))
    once, grouped, by_row = (bootstrap_metrics(t, 300)["roc_auc"] for t in (table, copies, alone))
    assert grouped == pytest.approx(once)
    assert width(by_row) < 0.6 * width(grouped)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    truth = make_predictions(n_sources=20_000, seed=99)
    expected = recall_score(truth["label"], truth["prediction"])
    hits = 0
    for seed in range(100):
        interval = bootstrap_metrics(make_predictions(seed=seed), 200, 0.9, seed)["recall"]
        hits += interval["low"] <= expected <= interval["high"]
    assert 80 <= hits <= 97


def test_a_seed_repeats_and_more_confidence_widens():
    table = make_predictions()
    assert bootstrap_metrics(table, 100, random_state=3) == bootstrap_metrics(
        table, 100, random_state=3
    )
    assert bootstrap_metrics(table, 100, random_state=3) != bootstrap_metrics(
        table, 100, random_state=4
    )
    narrow, wide = (bootstrap_metrics(table, 200, c)["f1"] for c in (0.5, 0.99))
    assert width(narrow) < width(wide)


def test_batches_do_not_change_the_draws(monkeypatch):
    table = make_predictions()
    whole = bootstrap_metrics(table, 50)
    monkeypatch.setattr(bootstrap, "BATCH", 7 * len(table))
    batched = bootstrap_metrics(table, 50)
    for name in METRICS:
        assert batched[name] == pytest.approx(whole[name])


def test_a_thousand_resamples_take_seconds():
    table = make_predictions(n_sources=300)
    start = time.perf_counter()
    bootstrap_metrics(table, n_resamples=1000)
    assert time.perf_counter() - start < 5


def test_an_interval_needs_two_sources():
    interval = bootstrap_metrics(make_predictions(n_sources=1), 20)["accuracy"]
    assert np.isfinite(interval["value"])
    assert np.isnan([interval["low"], interval["high"]]).all()


def test_an_interval_needs_half_of_the_resamples():
    first, second = np.eye(10, dtype=int)[:2]
    table = pd.DataFrame({"source_id": range(10), "label": first, "prediction": second})
    scores = bootstrap_metrics(table.assign(probability=0.1 * table.index), 400)
    assert np.isfinite(scores["precision"]["low"])  # 65 % of the resamples draw the only call
    assert np.isfinite(scores["mcc"]["value"])
    assert np.isnan(scores["mcc"]["low"])  # 40 % draw the only call and the only fake


@pytest.mark.parametrize(
    ("column", "counts"),
    [
        ("mask_schema", {"box": 80, "irregular": 40}),
        ("variant", {"regenerated": 40, "spliced": 80}),
        ("engine", {"diffusion:b": 40, "vae:a": 80}),
    ],
)
def test_each_kind_of_fake_is_set_against_all_originals(column, counts):
    table = make_predictions()
    result = metrics_by(table, column, n_resamples=20)
    assert {kind: entry["n_fakes"] for kind, entry in result.items()} == counts
    for kind, entry in result.items():
        part = table[(table["label"] == 0) | (table[column] == kind)]
        fakes = part[part["label"] == 1]
        assert entry["metrics"]["recall"]["value"] == pytest.approx(fakes["prediction"].mean())
        assert entry["metrics"]["roc_auc"]["value"] == pytest.approx(
            roc_auc_score(part["label"], part["probability"])
        )


def test_originals_that_share_a_kinds_name_stay_originals():
    table = make_predictions()
    named = table.assign(mask_schema=table["mask_schema"].fillna("box"))
    assert metrics_by(named, "mask_schema", 10) == metrics_by(table, "mask_schema", 10)


def test_no_kinds_give_no_rows():
    assert metrics_by(make_predictions().assign(mask_schema=None), "mask_schema", 10) == {}


def test_pairing_finds_a_difference_that_separate_intervals_miss():
    a = make_predictions(n_sources=60, skill=0.8)
    score = a["score"] - 0.35 * (2 * a["label"] - 1)
    b = a.assign(score=score, probability=1 / (1 + np.exp(-score)))
    difference = paired_difference(a, b.sample(frac=1, random_state=0), "roc_auc", 500)
    one, other = (bootstrap_metrics(t, 500)["roc_auc"] for t in (a, b))
    assert difference["value"] == pytest.approx(one["value"] - other["value"])
    assert 0 < difference["low"] < difference["value"] < difference["high"]
    assert difference["p"] <= 2 * 1 / 501 + 1e-12
    assert other["high"] > one["low"]


def test_swapping_the_models_flips_the_sign_and_keeps_p():
    a, b = make_predictions(), make_predictions(seed=1)
    forth, back = paired_difference(a, b, "f1", 200), paired_difference(b, a, "f1", 200)
    assert back["value"] == pytest.approx(-forth["value"])
    assert back["low"] == pytest.approx(-forth["high"])
    assert back["p"] == forth["p"]


def test_a_model_does_not_differ_from_itself():
    table = make_predictions()
    assert paired_difference(table, table, "roc_auc", 50) == {
        "value": 0,
        "low": 0,
        "high": 0,
        "p": 1,
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.iloc[1:], "1 path.* in one table only"),
        (lambda t: t.assign(label=1 - t["label"]), "has label 0 in one table and 1"),
        (lambda t: t.assign(source_id="x"), "has source_id 's0' in one table and 'x'"),
        (lambda t: pd.concat([t, t.iloc[:1]]), "more than once"),
        (lambda t: t.drop(columns="path"), "lack the column"),
    ],
)
def test_models_that_judged_other_images_are_not_compared(change, message):
    table = make_predictions()
    with pytest.raises(ValueError, match=message):
        paired_difference(table, change(table), "roc_auc", 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_resamples": 0}, "n_resamples must be at least 1, got 0"),
        ({"confidence": 95}, r"confidence must lie in \(0, 1\), got 95"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_metrics(make_predictions(), **options)


def test_unknown_metric_and_missing_column_are_refused():
    table = make_predictions()
    with pytest.raises(ValueError, match="metric must be one of accuracy"):
        paired_difference(table, table, "auc")
    with pytest.raises(ValueError, match=r"lack the column.* fold_name"):
        metrics_by(table, "fold_name")
