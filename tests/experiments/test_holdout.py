import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from tiny_detector import cnn, detector

from cifake_study.holdout import draw_groups, evaluate_held_out, hold_out
from cnnsvm import FineTuning, InpaintDetector, TunedSVC
from cnnsvm.evaluation.runs import RunMismatchError

DETECTOR = detector(
    cnn(
        "plain_cnn",
        preprocessing="imagenet",
        finetune=FineTuning(augmentation="none", epochs=2),
        n_crops=1,
        pooling="mean",
    ),
    classifier=TunedSVC(n_trials=2),
)


def draw_images(n=60):
    """Fakes are smooth, reals are not."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 2
    noise = rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
    images = np.where(labels[:, None, None, None] == 1, noise // 16 + 100, noise)
    manifest = pd.DataFrame(
        {
            "path": [f"{i}.png" for i in range(n)],
            "label": labels,
            "source_id": [f"s{i // 2}" for i in range(n)],
            "variant": np.where(labels == 1, "regenerated", "original"),
            "engine": None,
            "mask_schema": None,
            "sha256": [f"{i:064x}" for i in range(n)],
        }
    )
    return images.astype(np.uint8), manifest


def test_whole_groups_are_held_out_in_the_classes_proportion():
    labels, groups = np.arange(1000) % 2, np.arange(1000) // 3
    train, test = hold_out(labels, groups, 200, random_state=1)
    assert sorted([*train, *test]) == list(range(1000))
    assert set(groups[train]).isdisjoint(groups[test])
    assert len(test) == pytest.approx(200, abs=20)
    assert labels[test].mean() == pytest.approx(0.5, abs=0.05)
    assert not np.array_equal(test, hold_out(labels, groups, 200, random_state=2)[1])


@pytest.mark.parametrize("n", [0, -5, 501])
def test_an_impossible_share_is_refused(n):
    with pytest.raises(ValueError, match=f"half of all 1,000, got {n}"):
        hold_out(np.arange(1000) % 2, np.arange(1000), n)


def test_drawn_groups_are_whole():
    groups = np.repeat(np.arange(100), 7)
    rows = draw_groups(groups, 50, 3)
    assert len(rows) == 56  # eight groups of seven
    assert (np.bincount(groups[rows], minlength=100)[groups[rows]] == 7).all()
    np.testing.assert_array_equal(draw_groups(groups, 10**6), np.arange(700))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    images, manifest = draw_images()
    folder = tmp_path_factory.mktemp("run")
    split = (np.arange(40), np.arange(40, 60))
    found, model = evaluate_held_out(DETECTOR, manifest, *split, images=images, folder=folder)
    return images, manifest, split, folder, found, model


def test_only_the_held_out_part_is_judged(run):
    images, manifest, split, _, found, model = run
    assert found.predictions["path"].tolist() == manifest["path"].iloc[split[1]].tolist()
    assert found.folds[0]["metrics"]["roc_auc"] > 0.95
    assert (found.folds[0]["n_train"], found.folds[0]["n_test"]) == (40, 20)
    probability = model.predict_proba(list(images[40:]))[:, 1]
    np.testing.assert_allclose(found.predictions["probability"], probability, atol=1e-6)
    assert {"train_accuracy", "valid_accuracy"} <= set(found.curves[0]["history"][0])


def test_a_second_call_fits_nothing(run, monkeypatch):
    images, manifest, split, folder, found, _ = run
    monkeypatch.setattr(InpaintDetector, "fit", lambda *_: pytest.fail("fitted again"))
    again, _ = evaluate_held_out(DETECTOR, manifest, *split, images=images, folder=folder)
    pd.testing.assert_frame_equal(again.predictions, found.predictions)
    assert again.folds[0]["seconds"] == found.folds[0]["seconds"]  # of the fit, not of loading


def test_a_time_that_is_not_known_is_not_made_up(run):
    images, manifest, split, folder, *_ = run
    (folder / "seconds.json").unlink()
    again, _ = evaluate_held_out(DETECTOR, manifest, *split, images=images, folder=folder)
    assert np.isnan(again.folds[0]["seconds"])


def test_other_settings_are_not_mixed_in(run):
    images, manifest, split, folder, *_ = run
    other = clone(DETECTOR)
    other.embedder[0].finetune.epochs = 3
    with pytest.raises(RunMismatchError, match="Choose another"):
        evaluate_held_out(other, manifest, *split, images=images, folder=folder)
    split = (split[0][:-2], split[1])
    with pytest.raises(RunMismatchError, match="other data"):
        evaluate_held_out(DETECTOR, manifest, *split, images=images, folder=folder)


def test_a_source_on_both_sides_is_refused():
    images, manifest = draw_images()
    with pytest.raises(ValueError, match=r"1 source.* such as 's19'"):
        evaluate_held_out(DETECTOR, manifest, np.arange(39), np.arange(39, 60), images=images)
