import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.base import BaseEstimator
from sklearn.metrics import roc_auc_score
from tiny_detector import detector, statistics

from baselines.comparison import (
    ALL,
    COMPARED,
    compare_designs,
    paired_differences,
    summarise_designs,
)
from baselines.designs import SeedEmbedder, SquareEmbedder
from cnnsvm import ResidualStatistics
from cnnsvm.data.manifest import make_manifest, make_row
from cnnsvm.evaluation.bootstrap import paired_difference
from cnnsvm.evaluation.comparison import holm
from cnnsvm.evaluation.protocol import cross_validate_detector
from cnnsvm.evaluation.runs import RunMismatchError

DESIGNS = {
    "naive": detector(SquareEmbedder("squeezenet1_1", weights=None, size=64)),
    "seed": detector(SeedEmbedder(size=32, epochs=1)),
    "statistics": detector(statistics()),
}
OPTIONS = {"n_splits": 3, "n_resamples": 50}


@pytest.fixture(scope="module")
def manifest(labelled_images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    rows = []
    for i, (image, label, source) in enumerate(zip(*labelled_images, strict=True)):
        path = folder / f"{i:02d}.png"
        Image.fromarray(image).save(path)
        variant = ["original", "spliced", "regenerated"][i % 3]
        rows.append(make_row(path, int(label), source, variant=variant))
    return make_manifest(rows)


@pytest.fixture(scope="module")
def watched(manifest):
    """A comparison, and the sources that each fit was given: (comparison, fits)."""
    fits = []
    with pytest.MonkeyPatch.context() as patch:
        for kind in {type(design) for design in DESIGNS.values()}:
            patch.setattr(kind, "fit", _watching(kind.fit, fits))
        return compare_designs(DESIGNS, manifest, **OPTIONS), fits


def _watching(fit, fits):
    def watch(self, X, y=None, groups=None):
        fits.append((type(self).__name__, list(X), list(groups)))
        return fit(self, X, y, groups)

    return watch


def test_all_designs_have_the_same_folds(watched):
    comparison, fits = watched
    folds = comparison.predictions.pivot(index="path", columns="design", values="fold")
    assert len(folds) == 36
    assert (folds.nunique(axis=1) == 1).all()
    by_fold = [[paths for _, paths, _ in fits[k::3]] for k in range(3)]
    for given in by_fold:
        assert len(given) == len(DESIGNS)
        assert all(paths == given[0] for paths in given)


def test_no_design_is_fitted_on_its_test_sources(watched):
    comparison, fits = watched
    assert len(fits) == 9
    for number, (_, paths, sources) in enumerate(fits):
        name, fold = list(DESIGNS)[number // 3], number % 3
        rows = comparison.predictions
        judged = rows[(rows["design"] == name) & (rows["fold"] == fold)]
        assert len(judged) == 12
        assert set(judged["source_id"]).isdisjoint(sources)
        assert set(judged["path"]).isdisjoint(paths)


def test_a_design_scores_as_it_does_alone(watched, manifest):
    alone = cross_validate_detector(DESIGNS["statistics"], manifest, n_splits=3).predictions
    rows = watched[0].predictions
    together = rows[rows["design"] == "statistics"].drop(columns="design").reset_index(drop=True)
    pd.testing.assert_frame_equal(together, alone.reset_index(drop=True))


def test_the_summary_is_of_each_variant(watched):
    summary = watched[0].summary
    assert summary["design"].unique().tolist() == list(DESIGNS)
    for name, part in summary.groupby("design"):
        assert part["variant"].tolist() == [ALL, "regenerated", "spliced"]
        assert part["n_fakes"].tolist() == [24, 12, 12]
        assert (part["n_originals"] == 12).all()
        rows = watched[0].predictions
        rows = rows[(rows["design"] == name) & (rows["variant"] != "spliced")]
        auc = roc_auc_score(rows["label"], rows["probability"])
        assert part["roc_auc"].iloc[1] == pytest.approx(auc)
        alarms = rows.loc[rows["label"] == 0, "prediction"].mean()
        assert part["false_alarm_rate"].to_numpy() == pytest.approx(alarms)


def test_one_variant_is_not_listed_twice(watched):
    rows = watched[0].predictions
    only = rows[rows["variant"] != "spliced"]
    assert (summarise_designs(only, n_resamples=10)["variant"] == ALL).all()


def test_every_pair_is_tested_once(watched):
    comparison = watched[0]
    pairs = [("seed", "naive"), ("statistics", "naive"), ("statistics", "seed")]
    for metric in COMPARED:
        part = comparison.differences[comparison.differences["metric"] == metric]
        assert list(zip(part["design"], part["against"], strict=True)) == pairs
        tables = dict(iter(comparison.predictions.groupby("design")))
        for row in part.to_dict("records"):
            expected = paired_difference(
                tables[row["design"]], tables[row["against"]], metric, n_resamples=50
            )
            assert {name: row[name] for name in expected} == pytest.approx(expected)
        np.testing.assert_allclose(part["p_holm"], holm(part["p"].to_numpy()))


def judged(skills, n_sources=40):
    """Make predictions of designs with given skills on the same images."""
    rng = np.random.default_rng(0)
    parts = []
    for name, skill in skills.items():
        label = np.tile([0, 1], n_sources)
        score = rng.normal(skill * (2 * label - 1), 1.0)
        table = {"design": name, "path": [f"{i}.png" for i in range(len(label))], "label": label}
        table |= {"source_id": np.repeat(np.arange(n_sources).astype(str), 2), "fold": 0}
        table |= {"variant": np.where(label, "spliced", "original"), "prediction": score > 0}
        parts.append(pd.DataFrame(table).assign(probability=1 / (1 + np.exp(-score))))
    return pd.concat(parts, ignore_index=True).astype({"prediction": int})


def test_differences_are_antisymmetric():
    there = paired_differences(judged({"weak": 0.3, "strong": 1.5}), n_resamples=200)
    rows = judged({"weak": 0.3, "strong": 1.5})
    back = paired_differences(rows.iloc[::-1], n_resamples=200)
    assert there["design"].tolist() == back["against"].tolist() == ["strong", "strong"]
    np.testing.assert_allclose(there["value"], -back["value"])
    np.testing.assert_allclose(there["low"], -back["high"])
    np.testing.assert_allclose(there["p"], back["p"])
    assert (there["low"] > 0).all()
    assert (there["p_holm"] < 0.05).all()


def test_a_design_does_not_differ_from_itself():
    rows = judged({"one": 0.8})
    found = paired_differences(pd.concat([rows, rows.assign(design="same")]), n_resamples=100)
    assert (found[["value", "low", "high"]] == 0).all(axis=None)
    assert (found[["p", "p_holm"]] == 1).all(axis=None)


def test_against_a_reference():
    rows = judged({"a": 0.1, "b": 0.5, "c": 1.0})
    found = paired_differences(rows, "b", n_resamples=20)
    auc = found[found["metric"] == "roc_auc"]
    assert list(zip(auc["design"], auc["against"], strict=True)) == [("a", "b"), ("c", "b")]
    assert auc["value"].iloc[0] < 0 < auc["value"].iloc[1]


def test_one_design_has_nothing_to_differ_from():
    found = paired_differences(judged({"alone": 1.0}), n_resamples=20)
    assert len(found) == 0
    assert "p_holm" in found


def test_an_interrupted_comparison_goes_on(manifest, watched, tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ResidualStatistics, "fit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            compare_designs(DESIGNS, manifest, folder=tmp_path, **OPTIONS)
    assert (tmp_path / "seed" / "fold_2" / "fold.json").is_file()
    with monkeypatch.context() as patch:
        for kind in (SquareEmbedder, SeedEmbedder):
            patch.setattr(kind, "fit", interrupted)
        resumed = compare_designs(DESIGNS, manifest, folder=tmp_path, **OPTIONS)
    columns = ["design", "path", "fold", "prediction"]
    expected = watched[0].predictions
    pd.testing.assert_frame_equal(resumed.predictions[columns], expected[columns])
    np.testing.assert_allclose(resumed.predictions["score"], expected["score"], atol=1e-9)
    assert len(resumed.folds) == 9
    changed = {"seed": detector(SeedEmbedder(size=32, epochs=2))}
    with pytest.raises(RunMismatchError, match="Choose another output folder"):
        compare_designs(changed, manifest, folder=tmp_path, **OPTIONS)


class Unsure(BaseEstimator):
    calibrate = False


@pytest.mark.parametrize(
    ("designs", "reference", "message"),
    [
        ({}, None, "no designs"),
        ({"../seed": DESIGNS["seed"]}, None, r"becomes a folder, got '\.\./seed'"),
        ({"a b": DESIGNS["seed"]}, None, "becomes a folder"),
        ({"unsure": Unsure()}, None, "'unsure' gives no probabilities"),
        (DESIGNS, "best", "reference must be one of naive, seed, statistics, got 'best'"),
    ],
)
def test_mistakes_are_told_before_anything_is_fitted(manifest, designs, reference, message):
    with pytest.raises(ValueError, match=message):
        compare_designs(designs, manifest, reference=reference)
