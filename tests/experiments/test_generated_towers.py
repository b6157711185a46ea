"""The comparison of networks for generated images: means over kinds, and what a student sees."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from generated_towers import TRAINED_AFTER, Student, mean_auc

KINDS = ("one", "two", "three", "four", "five")


@pytest.fixture
def table():
    """Five kinds of real images, and generated ones, two of a style."""
    rows = [(f"{kind}{i}", f"{kind}{i}", 0, kind) for kind in KINDS for i in range(8)]
    rows += [(f"fake{i}", f"style{i // 2}", 1, "art") for i in range(16)]
    return pd.DataFrame(rows, columns=["path", "group", "label", "kind"])


def test_a_mean_counts_each_kind_once_and_its_draws_are_paired(table):
    rng = np.random.default_rng(0)
    judged = []
    for number, left in enumerate(KINDS):
        part = table[table["kind"].isin((left, "art"))].iloc[number:]  # kinds of unequal size
        score = part["label"] + rng.normal(size=len(part))
        judged.append(part.assign(left_out=left, probability=score.round(1)))
    expected = np.mean([roc_auc_score(part["label"], part["probability"]) for part in judged])
    one = pd.concat(judged)
    found = mean_auc(one, "art", n_resamples=300)
    assert found[0] == pytest.approx(expected)
    assert found[1:].mean() == pytest.approx(expected, abs=0.02)
    assert 0.01 < found[1:].std() < 0.2
    shuffled = one.sample(frac=1, random_state=0)
    np.testing.assert_allclose(mean_auc(shuffled, "art", n_resamples=300), found)


def test_a_student_learns_nothing_from_what_is_left_out(table):
    rng = np.random.default_rng(0)
    seen = np.flatnonzero(table["kind"] != "one")
    copies = pd.concat([table.iloc[seen]] * 2, ignore_index=True)
    embeddings = {
        k: rng.normal(table["label"].to_numpy()[:, None], 1, (56, 6)) for k in TRAINED_AFTER
    }
    rows = np.concatenate([embeddings[name][seen] for name in TRAINED_AFTER])
    decisions = []
    for changed in ("none", "one", "two"):
        shift = 9.0 * (table["kind"] == changed).to_numpy()[:, None]
        student = Student({k: v + shift for k, v in embeddings.items()}, table["path"])
        classifier, _ = student(rows, copies, 2, 0)
        decisions.append(classifier.decision_function(embeddings["clean"]))
    np.testing.assert_array_equal(decisions[0], decisions[1])
    assert not np.allclose(decisions[0], decisions[2])
