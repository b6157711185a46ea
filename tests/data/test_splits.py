import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from cnnsvm.data.splits import encode_groups, grouped_folds


def records(n_sources=20, n_fakes=5):
    """Return labels and groups as a manifest has them: one original and its fakes a source."""
    y = np.tile([0] + [1] * n_fakes, n_sources)
    groups = np.repeat([f"source {k}" for k in range(n_sources)], n_fakes + 1)
    order = np.random.default_rng(1).permutation(len(y))
    return y[order], groups[order]


@pytest.mark.parametrize("random_state", [0, 7, None])
def test_no_source_in_two_folds(random_state):
    y, groups = records()
    for train, test in grouped_folds(y, groups, 5, random_state):
        assert set(groups[train]).isdisjoint(groups[test])


def test_test_parts_are_disjoint_and_cover_everything():
    y, groups = records()
    folds = grouped_folds(y, groups, 4)
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(len(y)))
    for train, test in folds:
        assert sorted([*train, *test]) == list(range(len(y)))


def test_folds_keep_the_proportions_of_the_classes():
    y = np.array([0] * 80 + [1] * 20)
    for _, test in grouped_folds(y, None, 5):
        assert y[test].mean() == pytest.approx(0.2)
    y, groups = records(25)
    for _, test in grouped_folds(y, groups, 5):
        assert y[test].mean() == pytest.approx(5 / 6)


def test_the_seed_decides_the_folds():
    y, groups = records()
    first, again, other = (grouped_folds(y, groups, 5, seed) for seed in (3, 3, 4))
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a[1], b[1]) for a, b in zip(first, other, strict=True))


def test_labels_may_be_strings_and_inputs_lists():
    folds = grouped_folds(["real", "fake"] * 4, list("aabbccdd"), 2)
    assert [len(test) for _, test in folds] == [4, 4]


@pytest.mark.parametrize("n_splits", [1, 0, -3])
def test_too_few_folds(n_splits):
    with pytest.raises(ValueError, match=f"n_splits must be at least 2, got {n_splits}"):
        grouped_folds([0, 1], None, n_splits)


def test_a_class_with_fewer_groups_than_folds_is_named():
    y, groups = [0, 0, 0, 1, 1, 1], ["a", "b", "c", "d", "d", "e"]
    with pytest.raises(ValueError, match=r"class .*1.* has 2 group\(s\) but 3 folds.*Add sources"):
        grouped_folds(y, groups, 3)


@pytest.mark.parametrize(("labels", "shown"), [([0, 1], "0"), (["a", "b"], "'a'")])
def test_a_class_is_named_as_one_writes_it(labels, shown):
    y = np.array(labels).repeat([2, 3])
    with pytest.raises(ValueError, match=rf"^class {shown} has 2 group"):
        grouped_folds(y, None, 3)


def test_a_wrong_number_of_groups():
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        grouped_folds([0, 1, 0, 1], ["a", "b"], 2)


def test_groups_are_numbered_from_zero():
    codes = encode_groups(["b", "a", "b", "c"], 4)
    assert codes.dtype == np.int64
    assert codes.tolist() == [1, 0, 1, 2]


def test_without_groups_every_sample_is_its_own():
    assert encode_groups(None, 4).tolist() == [0, 1, 2, 3]


def test_groups_of_mixed_types_are_told_apart():
    assert len(set(encode_groups([1, "a", 2.5, (3, 4)[0]], 4))) == 4


@pytest.mark.parametrize("hole", [None, float("nan"), pd.NA, pd.NaT])
def test_a_missing_group_is_named(hole):
    with pytest.raises(ValueError, match=r"groups\[1\] is missing .*every sample needs"):
        encode_groups(["a", hole, "b"], 3)


def test_groups_from_a_table_column():
    assert encode_groups(pd.Series(["x", "y", "x"], index=[7, 8, 9]), 3).tolist() == [0, 1, 0]


@pytest.mark.parametrize("seed", range(12))
def test_folds_are_those_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(40, 200))
    y = rng.integers(0, int(rng.integers(2, 5)), n)
    groups = rng.integers(0, n // int(rng.integers(1, 4)), n)
    n_splits = int(rng.integers(2, 6))
    found = grouped_folds(y, groups, n_splits, seed)
    codes = encode_groups(groups, n)
    reference = StratifiedGroupKFold(n_splits, shuffle=True, random_state=seed).split(y, y, codes)
    for (_, wanted), (_, test) in zip(reference, found, strict=True):
        np.testing.assert_array_equal(test, wanted)


def test_folds_are_found_without_scikit_learns_own_loop(monkeypatch):
    monkeypatch.setattr(
        StratifiedGroupKFold, "_find_best_fold", lambda *_: pytest.fail("slow"), raising=True
    )
    y, groups = records()
    assert len(grouped_folds(y, groups, 5)) == 5
