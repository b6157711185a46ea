import numpy as np
import pytest
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score, roc_auc_score

from cnnsvm.evaluation.localization_metrics import (
    PER_IMAGE,
    POOLED,
    UNTOUCHED,
    count_pixels,
    summarise,
)


def made(n_sources=12, seed=0, shape=(20, 24)):
    """Two repainted images and an untouched one of each source; some sources are hard."""
    rng = np.random.default_rng(seed)
    masks, maps, sources = [], [], []
    for source in range(n_sources):
        skill = rng.uniform(0, 2)
        for share in (0.2, 0.5, 0.0):
            mask = rng.random(shape) < share
            logits = rng.normal(skill * (2.0 * mask - 1), 1)
            masks.append(mask)
            maps.append((1 / (1 + np.exp(-logits))).astype(np.float32))
            sources.append(f"s{source}")
    return masks, maps, sources


def values(part):
    return {name: interval["value"] for name, interval in part.items()}


def width(interval):
    return interval["high"] - interval["low"]


def test_means_over_images_agree_with_scikit_learn():
    masks, maps, sources = made()
    found = values(summarise(count_pixels(masks, maps, sources, 0.4), 2)["per_image"])
    pairs = [(m.ravel(), p.ravel()) for m, p in zip(masks, maps, strict=True) if m.any()]
    wanted = {
        "iou": np.mean([jaccard_score(m, p >= 0.4) for m, p in pairs]),
        "f1": np.mean([f1_score(m, p >= 0.4) for m, p in pairs]),
        "precision": np.mean([precision_score(m, p >= 0.4) for m, p in pairs]),
        "recall": np.mean([recall_score(m, p >= 0.4) for m, p in pairs]),
    }
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, abs=1e-9)
    auc = np.mean([roc_auc_score(m, p) for m, p in pairs])
    assert found["auc"] == pytest.approx(auc, abs=5e-4)
    assert set(found) == set(PER_IMAGE)


def test_pooled_scores_agree_with_scikit_learn():
    masks, maps, sources = made()
    found = values(summarise(count_pixels(masks, maps, sources), 2)["pooled"])
    mask, probability = (np.concatenate([x.ravel() for x in part]) for part in (masks, maps))
    called = probability >= 0.5
    assert found["iou"] == pytest.approx(jaccard_score(mask, called))
    assert found["f1"] == pytest.approx(f1_score(mask, called))
    assert found["precision"] == pytest.approx(precision_score(mask, called))
    assert found["recall"] == pytest.approx(recall_score(mask, called))
    assert found["auc"] == pytest.approx(roc_auc_score(mask, probability), abs=2e-4)
    tries = [f1_score(mask, probability >= cut) for cut in np.linspace(0.02, 0.98, 97)]
    assert found["best_f1"] >= max(tries)
    best = probability >= np.float32(found["best_threshold"])
    assert found["best_iou"] == pytest.approx(jaccard_score(mask, best))
    assert set(found) == set(POOLED)


def test_untouched_images_are_reported_apart():
    masks, maps, sources = made()
    summary = summarise(count_pixels(masks, maps, sources), 2)
    untouched = [p for m, p in zip(masks, maps, strict=True) if not m.any()]
    found = values(summary["untouched"])
    assert (summary["n_images"], summary["n_untouched"], summary["n_sources"]) == (36, 12, 12)
    assert found["false_alarm"] == pytest.approx(np.mean([(p >= 0.5).mean() for p in untouched]))
    assert found["clean"] == 0
    assert set(found) == set(UNTOUCHED)
    quiet = [np.where(m, p, np.float32(0)) for m, p in zip(masks, maps, strict=True)]
    found = values(summarise(count_pixels(masks, quiet, sources), 2)["untouched"])
    assert found == {"false_alarm": 0, "clean": 1}


def test_the_interval_is_that_of_resampled_images():
    masks, maps, sources = made(15, shape=(9, 10))
    summary = summarise(count_pixels(masks, maps, sources), 400)
    rng = np.random.default_rng(1)
    called = [probability >= 0.5 for probability in maps]
    by_image = [jaccard_score(m.ravel(), c.ravel()) for m, c in zip(masks, called, strict=True)]
    ious, pooled = [], []
    for _ in range(300):
        rows = np.concatenate([np.arange(3 * s, 3 * s + 3) for s in rng.integers(15, size=15)])
        ious.append(np.mean([by_image[k] for k in rows if masks[k].any()]))
        drawn = (np.concatenate([part[k].ravel() for k in rows]) for part in (masks, called))
        pooled.append(f1_score(*drawn))
    for interval, found in ((summary["per_image"]["iou"], ious), (summary["pooled"]["f1"], pooled)):
        wanted = np.quantile(found, [0.025, 0.975])
        np.testing.assert_allclose([interval["low"], interval["high"]], wanted, atol=0.03)


def test_copies_within_a_source_do_not_narrow_the_interval():
    masks, maps, sources = made()
    many = summarise(count_pixels(masks * 5, maps * 5, sources * 5), 200)
    apart = summarise(count_pixels(masks * 5, maps * 5), 200)
    once = summarise(count_pixels(masks, maps, sources), 200)
    for part, name in (("per_image", "iou"), ("pooled", "auc"), ("untouched", "false_alarm")):
        assert many[part][name] == pytest.approx(once[part][name])
        assert width(apart[part][name]) < 0.6 * width(many[part][name])


def test_every_interval_holds_its_value_and_repeats():
    counts = count_pixels(*made())
    first, second = summarise(counts, 100), summarise(counts, 100)
    assert first == second
    for part in ("per_image", "pooled", "untouched"):
        for interval in first[part].values():
            assert interval["low"] <= interval["value"] <= interval["high"]


def test_maps_may_come_one_at_a_time():
    masks, maps, sources = made(3)
    counts = count_pixels(iter(masks), (probability for probability in maps), iter(sources))
    assert counts.rows["source_id"].tolist() == sources
    assert counts.rows["n_pixels"].eq(480).all()
    assert counts.rows["n_repainted"].tolist() == [int(mask.sum()) for mask in masks]
    assert counts.histograms.shape[:2] == (3, 2)
    assert counts.histograms.sum() == 9 * 480


def test_sources_keep_their_histograms_whatever_their_order():
    masks, maps, sources = made(11)  # s10 sorts before s2
    order = np.random.default_rng(0).permutation(len(masks))
    mixed = ([part[k] for k in order] for part in (masks, maps, sources))
    first = summarise(count_pixels(*mixed), 50)
    second = summarise(count_pixels(masks, maps, sources), 50)
    for part in ("per_image", "pooled", "untouched"):
        for name, interval in first[part].items():
            assert interval == pytest.approx(second[part][name])


def test_one_source_has_no_interval():
    masks, maps, _ = made(2)
    summary = summarise(count_pixels(masks, maps, ["a"] * 6))
    iou = summary["per_image"]["iou"]
    assert 0 < iou["value"] < 1
    assert np.isnan([iou["low"], iou["high"]]).all()


def test_without_repainted_images_there_is_nothing_to_average():
    masks, maps, _ = made(4)
    untouched = [k for k, mask in enumerate(masks) if not mask.any()]
    counts = count_pixels([masks[k] for k in untouched], [maps[k] for k in untouched])
    summary = summarise(counts, 20)
    assert np.isnan(list(values(summary["per_image"]).values())).all()
    assert summary["untouched"]["false_alarm"]["value"] > 0
    assert summary["pooled"]["iou"]["value"] == 0


def test_what_does_not_fit_is_named():
    masks, maps, sources = made(2)
    with pytest.raises(ValueError, match="zip"):
        count_pixels(masks, maps[1:], sources)
    with pytest.raises(ValueError, match="zip"):
        count_pixels(masks, maps, sources[1:])
    with pytest.raises(ValueError, match="no masks to compare"):
        count_pixels([], [])
    with pytest.raises(ValueError, match=r"threshold must lie in \(0, 1\), got 1"):
        count_pixels(masks, maps, threshold=1)
    with pytest.raises(ValueError, match="n_resamples must be at least 1"):
        summarise(count_pixels(masks, maps, sources), 0)
