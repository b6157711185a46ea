import numpy as np
import pytest
from sklearn.metrics import (
    f1_score,
    jaccard_score,
    precision_recall_curve,
    precision_score,
    recall_score,
    roc_auc_score,
)

from cnnsvm.localization import pixel_scores
from cnnsvm.localization.pixel_scores import (
    EDGES,
    SCORES,
    edges_with,
    histogram_scores,
    pixel_histogram,
)


def made(seed, shape=(70, 90), share=0.3, skill=1.0):
    rng = np.random.default_rng(seed)
    mask = rng.random(shape) < share
    logits = rng.normal(skill * (2.0 * mask - 1), 1.5)
    return mask, (1 / (1 + np.exp(-logits))).astype(np.float32)


def scores(mask, probability, threshold=0.5):
    edges = edges_with(threshold)
    found = histogram_scores(pixel_histogram(mask, probability, edges), edges, threshold)
    return {name: float(value) for name, value in found.items()}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("threshold", [0.5, 0.3, 0.987654])
def test_the_fixed_threshold_agrees_with_scikit_learn(seed, threshold):
    mask, probability = made(seed)
    probability.flat[:50] = np.float32(threshold)  # what reaches it is called
    called = probability >= np.float32(threshold)
    found, flat = scores(mask, probability, threshold), (mask.ravel(), called.ravel())
    assert found["iou"] == pytest.approx(jaccard_score(*flat), abs=1e-12)
    assert found["f1"] == pytest.approx(f1_score(*flat), abs=1e-12)
    assert found["precision"] == pytest.approx(precision_score(*flat), abs=1e-12)
    assert found["recall"] == pytest.approx(recall_score(*flat), abs=1e-12)
    assert found["called"] == pytest.approx(called.mean(), abs=1e-12)
    assert found["false_alarm"] == pytest.approx(called[~mask].mean(), abs=1e-12)


@pytest.mark.parametrize("skill", [-0.5, 0.2, 1.0, 9.0])
def test_auc_and_the_best_threshold_are_as_fine_as_the_bins(skill):
    mask, probability = made(0, skill=skill)
    found = scores(mask, probability)
    wanted = roc_auc_score(mask.ravel(), probability.ravel())
    assert found["auc"] == pytest.approx(wanted, abs=2e-4)
    precision, recall, _ = precision_recall_curve(mask.ravel(), probability.ravel())
    best = (2 * precision * recall / np.maximum(precision + recall, 1e-9)).max()
    assert best - 2e-3 < found["best_f1"] <= best + 1e-9
    called = probability >= np.float32(found["best_threshold"])
    assert found["best_f1"] == pytest.approx(f1_score(mask.ravel(), called.ravel()), abs=1e-12)
    assert found["best_iou"] == pytest.approx(jaccard_score(mask.ravel(), called.ravel()))
    assert found["best_precision"] == pytest.approx(precision_score(mask.ravel(), called.ravel()))
    assert found["best_recall"] == pytest.approx(recall_score(mask.ravel(), called.ravel()))


def test_sure_answers_keep_their_order():
    """Where networks are sure, bins of equal width would see ties."""
    mask, probability = made(1)
    probability = probability * np.float32(1e-4)
    found = scores(mask, probability)["auc"]
    assert found == pytest.approx(roc_auc_score(mask.ravel(), probability.ravel()), abs=2e-4)


def test_of_several_best_thresholds_the_one_next_to_one_half_is_taken():
    mask = np.array([[True, True, False]])
    assert scores(mask, np.array([[0.99, 0.98, 0.01]]))["best_threshold"] == 0.5
    assert 0.01 < scores(mask, np.array([[0.2, 0.3, 0.01]]))["best_threshold"] <= 0.2
    assert 0.7 < scores(mask, np.array([[0.9, 0.9, 0.7]]))["best_threshold"] < 0.71


def test_empty_masks_are_defined():
    empty, low = np.zeros((4, 5), bool), np.full((4, 5), 0.1)
    nothing = scores(empty, low)
    assert (nothing["iou"], nothing["f1"], nothing["false_alarm"]) == (1, 1, 0)
    undefined = {name for name, value in nothing.items() if np.isnan(value)}
    assert undefined == {"precision", "recall", "auc", *(n for n in SCORES if "best" in n)}
    low[0, 0] = 0.9
    alarm = scores(empty, low)
    assert (alarm["iou"], alarm["f1"], alarm["precision"]) == (0, 0, 0)
    assert alarm["false_alarm"] == alarm["called"] == 1 / 20


def test_whole_masks_are_defined():
    found = scores(np.ones((4, 5), bool), np.linspace(0.1, 0.9, 20).reshape(4, 5))
    assert found["iou"] == found["recall"] == found["called"] == 0.5
    assert found["precision"] == found["best_iou"] == 1
    assert np.isnan(found["auc"])
    assert np.isnan(found["false_alarm"])


def test_zero_and_one_have_their_place():
    mask = np.array([[True, False]])
    assert scores(mask, np.array([[1.0, 0.0]]))["iou"] == 1
    assert scores(mask, np.array([[0.0, 1.0]]))["auc"] == 0


def test_histograms_add_up_and_strips_do_not_matter(monkeypatch):
    pairs = [made(seed, (31, 17)) for seed in range(3)]
    pooled = sum(pixel_histogram(*pair) for pair in pairs)
    joined = [np.concatenate([pair[k].ravel() for pair in pairs]) for k in (0, 1)]
    assert (pooled == pixel_histogram(*joined)).all()
    monkeypatch.setattr(pixel_scores, "_STRIP", 100)
    assert (pooled == pixel_histogram(*joined)).all()
    assert pooled.sum() == 3 * 31 * 17
    assert pooled[1].sum() == joined[0].sum()


def test_many_histograms_are_scored_at_once():
    histograms = np.stack([pixel_histogram(*made(seed)) for seed in range(4)])
    together = histogram_scores(histograms.reshape(2, 2, 2, -1))
    assert set(together) == set(SCORES)
    for k, histogram in enumerate(histograms):
        alone = histogram_scores(histogram)
        for name in SCORES:
            assert together[name].shape == (2, 2)
            assert together[name].flat[k] == alone[name]


def test_edges_are_fine_and_have_one_half():
    assert 0.5 in EDGES
    assert np.diff(EDGES).max() < 0.004
    assert EDGES[0] < 2e-7
    assert EDGES[-1] > 1 - 2e-7


def test_what_does_not_fit_is_named():
    mask, probability = made(0)
    with pytest.raises(ValueError, match=r"mask of shape \(70, 90\) and a map of shape \(90, 70\)"):
        pixel_histogram(mask, probability.T)
    for wrong in (-0.1, 1.5, np.nan):
        with pytest.raises(ValueError, match=r"must lie in \[0, 1\].*not logits"):
            pixel_histogram(mask, np.full(mask.shape, wrong))
    with pytest.raises(ValueError, match=r"threshold 0\.3 is no edge"):
        histogram_scores(pixel_histogram(mask, probability), threshold=0.3)
