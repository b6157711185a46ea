from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from engine_records import (
    DETECTOR,
    ENGINES,
    FITTED,
    JUDGED,
    N_SOURCES,
    TextureDetector,
    changed,
    detector_of,
    write_records,
)
from scipy.special import expit, logit

from cnnsvm.evaluation.protocol import outer_folds
from cnnsvm.evaluation.runs import RunMismatchError
from transfer_study.study import family_of, measure_transfer, plan_fits

OPTIONS = {"n_splits": 3}


@pytest.fixture(autouse=True)
def _nothing_seen():
    FITTED.clear()
    JUDGED.clear()


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_records(tmp_path_factory.mktemp("own"), ENGINES, range(N_SOURCES))


@pytest.fixture(scope="module")
def external(tmp_path_factory):
    folder = tmp_path_factory.mktemp("far")
    return write_records(folder, {"unheard of": 0.9}, range(50, 56), "far-")


@pytest.fixture(scope="module")
def fits_and_judged(manifest, external):
    """A run with everything, and what each fit was given."""
    FITTED.clear()
    judged = measure_transfer(DETECTOR, manifest, {"far": external}, growth=True, **OPTIONS)
    return list(FITTED), judged


@pytest.fixture(scope="module")
def judged(fits_and_judged):
    return fits_and_judged[1]


def facts_of(manifest, paths):
    return manifest.set_index("path").loc[paths]


def fitted_by_hand(manifest, target="variant"):
    model = changed()
    labels = manifest[target].to_numpy()
    return model.fit(manifest["path"].tolist(), labels, groups=manifest["source_id"])


def test_nothing_that_is_judged_was_fitted(fits_and_judged, manifest, external):
    fits, judged = fits_and_judged
    train, test = outer_folds(manifest, 3, 0)[0]
    expected = [set(ENGINES), *(set(ENGINES) - {name} for name in ENGINES)]
    order = [fit.families for fit in plan_fits(list(ENGINES), growth=True)[5:]]
    for (paths, _, groups), engines in zip(fits, [*expected, *map(set, order)], strict=True):
        seen = facts_of(manifest, paths)
        assert set(seen["engine"].dropna()) == engines
        assert set(groups) == set(manifest["source_id"].iloc[train])
        assert set(groups).isdisjoint(manifest["source_id"].iloc[test])
        assert (seen["label"] == 0).sum() == len(set(groups))
        assert set(paths).isdisjoint(external["path"])
        assert set(paths).isdisjoint(judged["path"])


def test_each_detector_judges_what_it_has_not_seen(judged, manifest, external):
    _, test = outer_folds(manifest, 3, 0)[0]
    rows = manifest.iloc[test]
    best = detector_of(judged, "none held out")
    assert set(best.loc[best["data"] == "", "path"]) == set(rows["path"])
    for name in ENGINES:
        part = detector_of(judged, "held out", name)
        own = part[part["data"] == ""]
        expected = rows[(rows["label"] == 0) | (rows["engine"] == name)]
        assert own["path"].tolist() == expected["path"].tolist()
        assert part.loc[part["data"] == "far", "path"].tolist() == external["path"].tolist()
        assert (part["n_families"] == 3).all()
    for size, unseen in ((1, 3), (2, 2)):
        part = detector_of(judged, "first", n_families=size)
        assert part.loc[part["data"] == "", "family"].nunique() == unseen


def test_scores_are_those_of_a_detector_fitted_by_hand(judged, manifest):
    train, _ = outer_folds(manifest, 3, 0)[0]
    seen = manifest.iloc[train]
    model = fitted_by_hand(seen[seen["engine"] != "c"])
    assert model.classes_.tolist() == ["original", "regenerated", "spliced"]
    part = detector_of(judged, "held out", "c")
    chance = 1 - model.predict_proba(part["path"].tolist())[:, 0]
    np.testing.assert_allclose(part["probability"], chance)
    np.testing.assert_allclose(part["score"], logit(chance))
    np.testing.assert_array_equal(part["prediction"], chance > 0.5)


def test_two_classes_keep_their_threshold(manifest):
    options = {**OPTIONS, "target": "label", "families": {"b:*": "b", "[ac]": "other"}}
    detector = changed(threshold=0.95)
    judged = measure_transfer(detector, manifest, **options)
    assert {tuple(sorted(set(labels))) for _, labels, _ in FITTED} == {(0, 1)}
    assert len(FITTED) == 3
    np.testing.assert_allclose(judged["probability"], expit(judged["score"] + logit(0.95)))
    np.testing.assert_array_equal(judged["prediction"], judged["probability"] > 0.95)
    assert judged["probability"].between(0.5, 0.95).any()


def test_a_family_is_left_out_as_one(manifest):
    judged = measure_transfer(DETECTOR, manifest, families={"b:*": "b"}, **OPTIONS)
    assert sorted(judged["held_out"].unique()) == ["", "a", "b", "c"]
    engines = [set(facts_of(manifest, paths)["engine"].dropna()) for paths, _, _ in FITTED]
    assert engines == [set(ENGINES), {"b:1", "b:2?x=1", "c"}, {"a", "c"}, set(ENGINES) - {"c"}]
    part = detector_of(judged, "held out", "b")
    assert set(part["engine"].dropna()) == {"b:1", "b:2?x=1"}


def test_engines_find_their_family():
    families = {"decoder:*": "decoders", "decoder:best": "best", "*": "rest"}
    assert family_of("decoder:x", families) == "decoders"
    assert family_of("decoder:best", families) == "best"  # its own name before any pattern
    assert family_of("vae:a?b=1", families) == "rest"
    assert family_of("vae:a") == "vae:a"


def test_growth_doubles_in_a_seeded_order():
    names = [f"engine {i}" for i in range(9)]
    grown = [fit for fit in plan_fits(names, True, 3) if fit.name == "first"]
    assert [len(fit.families) for fit in grown] == [1, 2, 4, 8]
    for small, large in pairwise(grown):
        assert set(small.families) < set(large.families)
    assert plan_fits(names[::-1], True, 3) == plan_fits(names, True, 3)
    orders = {tuple(fit.families for fit in plan_fits(names, True, seed)) for seed in range(5)}
    assert len(orders) == 5
    assert not [fit for fit in plan_fits(names) if fit.name == "first"]


def test_no_detector_is_fitted_twice(manifest):
    part = manifest[manifest["engine"].isna() | manifest["engine"].isin(["a", "c"])]
    judged = measure_transfer(DETECTOR, part, growth=True, **OPTIONS)
    assert len(FITTED) == 3  # the first of two is also the one without the other
    grown, left = (judged[judged["fit"] == fit] for fit in ("first", "held out"))
    same = left[left["held_out"] == (set("ac") - set(plan_fits("ac", True)[-1].families)).pop()]
    np.testing.assert_array_equal(grown["score"], same["score"])


def test_rounds_take_another_fold_each(manifest):
    options = {**OPTIONS, "families": {"b:*": "b", "c": "a"}}
    judged = measure_transfer(DETECTOR, manifest, rounds=3, **options)
    assert len(FITTED) == 9
    for _, part in judged.groupby("round"):
        assert part["source_id"].nunique() == N_SOURCES / 3
    assert judged["source_id"].nunique() == N_SOURCES
    left = judged[judged["fit"] == "held out"]
    assert len(left[left["label"] == 1]) == 2 * 4 * N_SOURCES


def test_externals_of_a_training_source_are_not_judged(manifest, external):
    train, test = outer_folds(manifest, 3, 0)[0]
    known, other = (manifest["source_id"].iloc[rows[0]] for rows in (train, test))
    names = {"far-50": known, "far-51": other}
    shared = external.assign(source_id=external["source_id"].replace(names))
    judged = measure_transfer(DETECTOR, manifest, {"far": shared}, **OPTIONS)
    part = judged[judged["data"] == "far"]
    assert set(part["source_id"]) == set(shared["source_id"]) - {known}


def test_an_interrupted_run_goes_on(judged, manifest, external, tmp_path, monkeypatch):
    externals = {"far": external}
    with monkeypatch.context() as patch:
        judge = TextureDetector._look

        def interrupted(self, X):
            if len(JUDGED) == 5:  # own and far of two detectors, own of a third
                raise KeyboardInterrupt
            return judge(self, X)

        patch.setattr(TextureDetector, "_look", interrupted)
        with pytest.raises(KeyboardInterrupt):
            measure_transfer(DETECTOR, manifest, externals, folder=tmp_path, **OPTIONS)
    assert len(FITTED) == 3
    whole = measure_transfer(DETECTOR, manifest, externals, folder=tmp_path, **OPTIONS)
    assert len(FITTED) == 5
    assert len(JUDGED) == 10
    grown = measure_transfer(DETECTOR, manifest, externals, growth=True, folder=tmp_path, **OPTIONS)
    assert len(FITTED) == 7  # those of growth alone
    pd.testing.assert_frame_equal(grown, judged)
    pd.testing.assert_frame_equal(grown.iloc[: len(whole)], whole)
    measure_transfer(DETECTOR, manifest, {"near": external}, folder=tmp_path, **OPTIONS)
    measure_transfer(DETECTOR, manifest, {"far": external.iloc[:3]}, folder=tmp_path, **OPTIONS)
    assert len(FITTED) == 7  # other data sets are judged by what is there
    assert not list(tmp_path.rglob("cache"))
    assert not list(tmp_path.rglob("*.partial"))


def test_the_folder_of_another_run_is_refused(manifest, tmp_path):
    measure_transfer(DETECTOR, manifest, folder=tmp_path, **OPTIONS)
    n_fitted = len(FITTED)
    for change in (
        {"detector": changed(classifier__kernel="linear")},
        {"manifest": manifest.iloc[:-9]},
        {"families": {"b:*": "b"}},
        {"target": "label"},
        {"n_splits": 4},
        {"random_state": 1},
    ):
        arguments = {"detector": DETECTOR, "manifest": manifest, **OPTIONS} | change
        with pytest.raises(RunMismatchError, match="Choose another output folder"):
            measure_transfer(folder=tmp_path, **arguments)
    assert len(FITTED) == n_fitted


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"families": {"*": "one"}}, "one family only, one"),
        ({"target": "engine"}, "empty in some rows"),
        ({"target": "path"}, "all originals"),
        ({"rounds": 4}, "between 1 and the 3 folds"),
        ({"n_splits": 13}, "13 folds"),
        ({"detector": changed(classifier__calibrate=False)}, "calibrate=True"),
        ({"detector": changed(classifier__cv=9)}, r"8 group\(s\) but 9 folds"),
        ({"externals": {" ": None}}, "needs a name"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_any_fit(manifest, change, message):
    arguments = {"detector": DETECTOR, "manifest": manifest, **OPTIONS} | change
    if "externals" in change:
        arguments["externals"] = {" ": manifest}
    with pytest.raises(ValueError, match=message):
        measure_transfer(**arguments)
    assert not FITTED
