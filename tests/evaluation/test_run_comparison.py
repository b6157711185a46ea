import numpy as np
import pandas as pd
import pytest
from scipy.stats import permutation_test

from cnnsvm.evaluation.comparison import COMPARED, compare_runs, holm, permutation_p, read_runs


def make_run(skill, seed=0, n_sources=30, luck=0):
    """Build an original and two fakes a source; runs of one seed share how hard each source is."""
    rng, own = np.random.default_rng(seed), np.random.default_rng(luck)
    label = np.tile([0, 1, 1], n_sources)
    ease = rng.normal(0, 0.5, n_sources).repeat(3)
    score = skill * (2 * label - 1) + ease + own.normal(0, 1, len(label))
    sources = np.arange(n_sources).repeat(3)
    return pd.DataFrame(
        {
            "path": [f"{source}/{k}.png" for k, source in enumerate(sources)],
            "source_id": [f"s{source}" for source in sources],
            "label": label,
            "probability": 1 / (1 + np.exp(-score)),
            "prediction": (score > 0).astype(int),
            "fold": sources % 3,
        }
    )


def save(folder, table, top):
    folder.mkdir()
    table.assign(path=f"{top}/" + table["path"]).to_csv(folder / "predictions.csv", index=False)
    return folder


def test_the_p_value_of_a_mean_is_that_of_scipy():
    a, b = (make_run(0.5, luck=luck).iloc[::3].reset_index(drop=True) for luck in (1, 2))
    errors = [(table["probability"] - table["label"]) ** 2 for table in (a, b)]
    expected = permutation_test(
        errors, lambda x, y, axis: (x - y).mean(axis), permutation_type="samples", rng=0
    )
    assert permutation_p(a, b, 5000)["brier"] == pytest.approx(expected.pvalue, abs=0.03)


def test_equal_models_are_rarely_told_apart():
    found = [
        permutation_p(
            make_run(0.5, seed, luck=2 * seed), make_run(0.5, seed, luck=2 * seed + 1), 99
        )
        for seed in range(60)
    ]
    for name in COMPARED:
        p = np.array([each[name] for each in found])
        assert np.mean(p <= 0.05) < 0.15
        assert 0.35 < p.mean() < 0.65


def test_areas_do_not_depend_on_the_scale_of_the_probabilities():
    a, b = make_run(0.6), make_run(0.3, luck=1)
    squeezed = b.assign(probability=0.9 + b["probability"] / 20)
    one, other = permutation_p(a, b, 500), permutation_p(a, squeezed, 500)
    assert one["roc_auc"] == other["roc_auc"]
    assert one["brier"] != other["brier"]


def test_runs_are_compared_in_pairs_and_adjusted(tmp_path):
    tables = {"good": make_run(2.0), "bad": make_run(0.2, luck=1), "same": make_run(0.2, luck=2)}
    folders = [save(tmp_path / name, tables[name], f"/data/{name}") for name in tables]
    found = compare_runs(read_runs(folders), n_resamples=500)
    pairs = {(pair["a"], pair["b"]): pair["metrics"] for pair in found["pairs"]}
    assert list(pairs) == [("good", "bad"), ("good", "same"), ("bad", "same")]
    better = pairs["good", "bad"]["balanced_accuracy"]
    assert better["value"] == pytest.approx(better["a"] - better["b"])
    assert better["low"] > 0
    assert better["p_holm"] < 0.05
    assert pairs["bad", "same"]["balanced_accuracy"]["p_holm"] > 0.05
    assert pairs["good", "bad"]["brier"]["value"] < 0
    for metric in COMPARED:
        p = np.array([metrics[metric]["p"] for metrics in pairs.values()])
        np.testing.assert_allclose([m[metric]["p_holm"] for m in pairs.values()], holm(p))
    assert (found["n_images"], found["n_sources"], found["same_folds"]) == (90, 30, True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"label": lambda t: 1 - t["label"]}, "has label"),
        ({"source_id": lambda t: t["source_id"] + "x"}, "has source_id"),
        ({"path": lambda t: "x" + t["path"]}, "in one table only"),
        ({"sha256": lambda t: "other"}, "other content"),
    ],
)
def test_other_images_are_refused(tmp_path, changes, said):
    table = make_run(0.5).assign(sha256="one")
    changed = table.assign(**changes)
    runs = read_runs([save(tmp_path / "a", table, "/x"), save(tmp_path / "b", changed, "/y")])
    with pytest.raises(ValueError, match=f"a and b cannot be compared.*{said}"):
        compare_runs(runs, n_resamples=10)


def test_other_folds_and_the_order_of_rows_are_no_obstacle(tmp_path):
    table = make_run(0.5)
    other = table.assign(fold=0).sample(frac=1, random_state=0)
    runs = read_runs([save(tmp_path / "a", table, "/x"), save(tmp_path / "b", other, "/y")])
    found = compare_runs(runs, n_resamples=50)
    assert found["same_folds"] is False
    assert found["pairs"][0]["metrics"]["roc_auc"]["value"] == 0
    assert found["pairs"][0]["metrics"]["roc_auc"]["p"] == 1


def test_what_is_no_run_is_refused(tmp_path):
    run = save(tmp_path / "a", make_run(0.5), "/x")
    bare = save(tmp_path / "b", make_run(0.5).drop(columns="label"), "/x")
    for folders, said in (
        ([run], "at least two"),
        ([run, run], "twice"),
        ([run, tmp_path], "no predictions.csv"),
        ([run, bare], "lacks the column"),
    ):
        with pytest.raises(ValueError, match=said):
            read_runs(folders)


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    folders = [save(tmp_path / name / "run", make_run(0.5), "/x") for name in ("one", "two")]
    assert list(read_runs(folders)) == [str(folder) for folder in folders]


def test_holm_is_that_of_the_paper():
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.5, np.nan, 0.04])), [0.5, np.nan, 0.08])
    np.testing.assert_allclose(holm(np.array([0.9, 0.8])), [1.0, 1.0])
