import io
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_validate
from sklearn.pipeline import make_pipeline
from textures import texture
from tiny_detector import cnn, detector, on_this_machine, statistics, tuning

from cnnsvm import CNNEmbedder, FineTuning, InpaintDetector, ResidualStatistics, TunedSVC
from cnnsvm.data.images import ImageError
from cnnsvm.data.manifest import make_manifest, make_row
from cnnsvm.detection import fitting as module
from cnnsvm.features.statistics import STATISTICS_DIM
from cnnsvm.svm import CalibratedClassifier


@pytest.fixture(scope="module")
def fitted(labelled_images):
    return detector().fit(*labelled_images)


@pytest.fixture(scope="module")
def files(labelled_images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("labelled_images")
    paths = []
    for i, image in enumerate(labelled_images[0]):
        paths.append(str(folder / f"{i:02d}.png"))
        Image.fromarray(image).save(paths[-1])
    return paths


def watch_svm(monkeypatch):
    """List what each fit of the SVM is given."""
    seen = []
    fit = TunedSVC.fit

    def watched(self, X, y, groups=None, calibration_rows=None):
        seen.append({"X": X, "y": y, "groups": groups, "calibration": calibration_rows})
        return fit(self, X, y, groups, calibration_rows)

    monkeypatch.setattr(TunedSVC, "fit", watched)
    return seen


def forbid(monkeypatch, owner, name):
    def forbidden(*args, **kwargs):
        raise AssertionError("computed again")

    monkeypatch.setattr(owner, name, forbidden)


# what it answers


def test_shapes_ranges_and_agreement(fitted, labelled_images):
    images = labelled_images[0]
    scores, probabilities = fitted.decision_function(images), fitted.predict_proba(images)
    assert scores.shape == (36,)
    assert probabilities.shape == (36, 2)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    np.testing.assert_allclose(probabilities[:, 1], 1 / (1 + np.exp(-scores)))
    np.testing.assert_array_equal(fitted.predict(images), (scores > 0).astype(int))
    assert fitted.transform(images[:5]).shape == (5, 512)
    assert len(fitted.get_feature_names_out()) == 512
    judged = fitted.judge(images)
    np.testing.assert_array_equal(judged.decisions, scores)
    np.testing.assert_array_equal(judged.probabilities, probabilities)
    assert not judged.is_unsure.any()


def test_order_and_subset_do_not_matter(fitted, labelled_images):
    images = labelled_images[0]
    scores = fitted.decision_function(images)
    np.testing.assert_allclose(fitted.decision_function(images[::-1])[::-1], scores, atol=1e-3)
    np.testing.assert_allclose(fitted.decision_function(images[7:9]), scores[7:9], atol=1e-3)


def test_all_kinds_of_input_agree(fitted, labelled_images, files):
    array = labelled_images[0][3]
    kinds = [array, files[3], Path(files[3]).read_bytes(), Image.fromarray(array)]
    scores = fitted.decision_function(kinds)
    np.testing.assert_allclose(scores, scores[0], atol=1e-3)
    for one in (pd.Series([files[3]]), files[3], iter([files[3]]), pd.DataFrame({"path": files})):
        np.testing.assert_allclose(fitted.decision_function(one)[-1:].shape, (1,))
    np.testing.assert_allclose(fitted.decision_function(iter([files[3]])), scores[:1], atol=1e-3)


def test_a_manifest_brings_labels_and_groups(labelled_images, files, fitted, monkeypatch):
    _, y, groups = labelled_images
    rows = [
        make_row(f, int(label), source) for f, label, source in zip(files, y, groups, strict=True)
    ]
    manifest = make_manifest(rows)
    seen = watch_svm(monkeypatch)
    model = detector().fit(manifest)
    assert list(seen[0]["groups"]) == list(groups)
    np.testing.assert_allclose(
        model.predict_proba(manifest), fitted.predict_proba(files), atol=1e-6
    )
    assert model.score(manifest, y) == fitted.score(files, y)
    assert model.verdict(manifest).tolist() == fitted.verdict(files).tolist()


def test_inputs_are_not_changed(labelled_images):
    images, y, groups = labelled_images
    before = [image.copy() for image in images]
    detector(cnn(finetune=tuning(epochs=1))).fit(images, y, groups)
    assert all(np.array_equal(a, b) for a, b in zip(before, images, strict=True))


def odd_images():
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (50, 40), dtype=np.uint8)
    deep = io.BytesIO()
    Image.fromarray(grey.astype(np.uint16) * 257).save(deep, "PNG")
    return [
        np.zeros((1, 1, 3), np.uint8),
        rng.integers(0, 256, (3, 700, 3), dtype=np.uint8),
        rng.integers(0, 256, (700, 3, 3), dtype=np.uint8),
        *(np.full((60, 60, 3), value, np.uint8) for value in (0, 128, 255)),
        grey,
        rng.integers(0, 256, (20, 300, 4), dtype=np.uint8),
        Image.fromarray(grey).convert("1"),
        Image.fromarray(grey).convert("P"),
        Image.fromarray(np.dstack([grey] * 3)).convert("CMYK"),
        deep.getvalue(),
    ]


@pytest.mark.parametrize("kind", ["learnt", "raw"])
def test_odd_images_have_finite_probabilities(labelled_images, kind):
    embedders = (
        [cnn(finetune=tuning(epochs=1)), statistics()] if kind == "learnt" else [statistics()]
    )
    model = detector(*embedders, n_views=2, max_error=0.3).fit(*labelled_images)
    probabilities = model.predict_proba(odd_images())
    assert np.isfinite(probabilities).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert set(model.verdict(odd_images()).tolist()) <= {0, 1, "unsure"}
    for image, row in zip(odd_images(), probabilities, strict=True):
        np.testing.assert_allclose(model.predict_proba([image])[0], row, atol=1e-3)


def test_odd_images_can_be_learnt_from():
    images = odd_images() * 2
    model = detector(cnn(finetune=tuning(epochs=1)), statistics(), n_views=2)
    model.fit(images, np.arange(len(images)) % 2)
    assert np.isfinite(model.predict_proba(images)).all()


# composition


def test_a_string_is_the_backbone_of_a_cnn(labelled_images):
    embedder = InpaintDetector("resnet50").embedders()[0]
    assert isinstance(embedder, CNNEmbedder)
    assert embedder.get_params() == CNNEmbedder("resnet50").get_params()


def test_embedders_stand_side_by_side(labelled_images):
    images = labelled_images[0][:4]
    parts = [cnn(), statistics()]
    model = detector(*parts).fit(*labelled_images)
    alone = [detector(part).fit(*labelled_images).transform(images) for part in parts]
    np.testing.assert_array_equal(model.transform(images), np.hstack(alone))
    assert model.transform(images).shape == (4, 512 + 2 * STATISTICS_DIM)


@pytest.mark.parametrize("finetune", ["none", tuning(epochs=3)])
def test_residual_statistics_alone_make_a_detector(labelled_images, finetune):
    images, y, groups = (part[:27] for part in labelled_images)
    model = detector(statistics(finetune=finetune)).fit(images, y, groups)
    scores = model.decision_function(labelled_images[0][27:])
    assert roc_auc_score(labelled_images[1][27:], scores) > 0.9
    again = detector(statistics(finetune=finetune)).fit(images, y, groups)
    np.testing.assert_array_equal(again.decision_function(labelled_images[0][27:]), scores)


class Means(TransformerMixin, BaseEstimator):
    """Somebody's embedder: the mean and deviation of each channel."""

    def __init__(self, n_jobs=-1):  # all cores, as in scikit-learn
        self.n_jobs = n_jobs

    def fit(self, images, y=None):
        return self

    def transform(self, images):
        return np.array([[*image.mean((0, 1)), *image.std((0, 1))] for image in images])


def test_any_transformer_is_an_embedder(labelled_images, tmp_path):
    model = detector(Means(), n_views=2, max_error=0.4, cache_dir=tmp_path).fit(*labelled_images)
    assert model.transform(labelled_images[0]).shape == (36, 6)
    assert set(model.verdict(labelled_images[0])) <= {0, 1, "unsure"}
    with pytest.raises(TypeError, match="without pickle"):
        model.save_pretrained(tmp_path / "model")


@pytest.mark.parametrize(
    "classifier",
    [
        LogisticRegression(),
        RandomForestClassifier(20),
        GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}),  # whose cv is no number
    ],
)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_any_classifier_is_calibrated_on_folds_by_group(
    labelled_images, classifier, n_classes, tmp_path
):
    images, y, groups = labelled_images
    y = y + (np.arange(len(y)) % 3 == 2) if n_classes == 3 else y
    model = detector(statistics(), classifier=classifier, max_error=0.3, cv=2)
    model.fit(images, y, groups)
    assert isinstance(model.classifier_, CalibratedClassifier)
    probabilities = model.predict_proba(images)
    assert probabilities.shape == (36, n_classes)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert model.score(images, y) > 0.6
    assert 0 < model.rejection_threshold_ <= 1
    again = clone(model).fit(images, y, groups)
    np.testing.assert_array_equal(again.predict_proba(images), probabilities)
    with pytest.raises(TypeError, match="TunedSVC"):
        model.save_pretrained(tmp_path / "model")


def test_parameters_are_few_and_nested():
    assert len(InpaintDetector().get_params(deep=False)) <= 12
    for embedder in (CNNEmbedder(), ResidualStatistics(), FineTuning()):
        assert len(embedder.get_params(deep=False)) <= 20
    model = InpaintDetector(CNNEmbedder("resnet18", finetune=FineTuning()), TunedSVC())
    model.set_params(embedder__crop_size=64, embedder__finetune__epochs=3, classifier__n_trials=2)
    copy = clone(model)
    assert copy.embedder.crop_size == 64
    assert copy.embedder.finetune.epochs == 3
    assert copy.classifier.n_trials == 2


def test_works_in_a_pipeline_and_a_grid_search(labelled_images):
    images, y, groups = labelled_images
    pipeline = make_pipeline(detector()).fit(images, y, inpaintdetector__groups=groups)
    assert pipeline.predict(images[:2]).shape == (2,)
    single = InpaintDetector(cnn(), TunedSVC(n_trials=1, cv=2), random_state=0)
    grid = {"embedder__pooling": ["mean", "mean_max"]}
    search = GridSearchCV(single, grid, cv=GroupKFold(2)).fit(images, y, groups=groups)
    assert search.best_params_["embedder__pooling"] in ("mean", "mean_max")


def test_clone_keeps_parameters_and_drops_what_was_fitted(fitted):
    copy = clone(fitted)
    assert repr(copy.get_params()) == repr(fitted.get_params())
    assert not hasattr(copy, "classifier_")


# groups and leakage


def test_groups_reach_every_inner_split(labelled_images, monkeypatch):
    from cnnsvm.features import finetuning
    from cnnsvm.svm import inner_cv

    images, y, groups = labelled_images
    splits = []
    for place in (finetuning, inner_cv):
        original = place.grouped_folds

        def watched(labels, codes, *args, original=original):
            folds = original(labels, codes, *args)
            splits.extend((codes[train], codes[test]) for train, test in folds)
            return folds

        monkeypatch.setattr(place, "grouped_folds", watched)
    for classifier in (None, LogisticRegression()):
        splits.clear()
        results = cross_validate(
            detector(cnn(finetune=tuning(epochs=1)), classifier=classifier, cv=2),
            images,
            y,
            groups=groups,
            params={"groups": groups},
            cv=GroupKFold(2),
            error_score="raise",
        )
        assert len(results["test_score"]) == 2
        assert len(splits) >= 2 * (2 + 2)
        for train, test in splits:
            assert len(train) > len(set(train))  # several images a source: groups did arrive
            assert set(train).isdisjoint(test)


@pytest.mark.parametrize("n_views", [1, 3])
def test_views_are_balanced_and_keep_their_source(labelled_images, monkeypatch, n_views):
    images, y, groups = labelled_images
    seen = watch_svm(monkeypatch)
    model = detector(n_views=n_views).fit(images, y, groups)
    (rows,) = seen
    assert rows["X"].shape == (12 * 2 * n_views, 512)
    for source in np.unique(rows["groups"]):
        labels = rows["y"][rows["groups"] == source]
        assert (labels == 0).sum() == (labels == 1).sum() == n_views
    # the first view of each class of a source is one of its images as it is, the others are not
    plain, degraded = model.transform(images), []
    for source in np.unique(rows["groups"]):
        for label in (0, 1):
            own = plain[(groups == np.unique(groups)[source]) & (y == label)]
            views = rows["X"][(rows["groups"] == source) & (rows["y"] == label)]
            distance = np.abs(views[:, None] - own[None]).max(axis=2).min(axis=1)
            assert distance[0] < 1e-3
            degraded += (distance[1:] > 1e-3).tolist()
    assert n_views == 1 or np.mean(degraded) > 0.7


def test_every_embedder_sees_the_same_views(labelled_images, monkeypatch):
    seen = watch_svm(monkeypatch)
    detector(cnn(), statistics(), n_views=3).fit(*labelled_images)
    detector(statistics(), n_views=3).fit(*labelled_images)
    np.testing.assert_array_equal(seen[0]["X"][:, 512:], seen[1]["X"])


def test_without_groups_each_image_is_the_source_of_its_views(labelled_images, monkeypatch):
    images, y, _ = labelled_images
    seen = watch_svm(monkeypatch)
    detector(n_views=2).fit(images, y)
    assert np.bincount(seen[0]["groups"]).tolist() == [2] * len(images)
    np.testing.assert_array_equal(seen[0]["y"], np.repeat(y, 2))


# calibration and the option to decline


def test_three_named_classes_go_straight_through(labelled_images, tmp_path):
    images, y, groups = labelled_images
    names = np.array(["original", "regenerated", "spliced"])[y + (np.arange(len(y)) % 3 == 2)]
    model = detector(cnn(finetune=tuning(epochs=3)), max_error=0.4, n_views=2)
    model.fit(images, names, groups)
    assert model.classes_.tolist() == ["original", "regenerated", "spliced"]
    probabilities = model.predict_proba(images)
    np.testing.assert_array_equal(model.predict(images), model.classes_[probabilities.argmax(1)])
    sure = probabilities.max(axis=1) > model.rejection_threshold_
    assert (
        model.verdict(images).tolist() == np.where(sure, model.predict(images), "unsure").tolist()
    )
    heat = model.explain(images[1])
    assert heat.shape == (72, 80)
    again = InpaintDetector.from_pretrained(model.save_pretrained(tmp_path / "m", bits=32))
    on_this_machine(again)
    np.testing.assert_array_equal(again.predict_proba(images), probabilities)
    np.testing.assert_array_equal(again.explain(images[1]), heat)


def test_the_threshold_is_chosen_on_out_of_fold_scores(labelled_images):
    images, y, groups = labelled_images
    model = detector(threshold="balanced_accuracy").fit(images, y, groups)
    scores = model.classifier_.cv_decision_

    def balanced(cut):
        called = scores > cut
        return (called[y == 1].mean() + (~called[y == 0]).mean()) / 2

    chosen = np.log(model.threshold_ / (1 - model.threshold_))
    assert balanced(chosen) >= max(balanced(cut) for cut in [*scores, scores.min() - 1]) - 1e-12
    np.testing.assert_array_equal(
        model.predict(images), (model.predict_proba(images)[:, 1] > model.threshold_) * 1
    )


@pytest.mark.parametrize("n_views", [None, 2])
def test_sources_of_early_stopping_calibrate_if_they_are_enough(
    labelled_images, monkeypatch, n_views
):
    images, y, groups = labelled_images
    seen = watch_svm(monkeypatch)
    embedder = cnn(finetune=tuning(epochs=1, validation_fraction=0.5))
    model = detector(embedder, n_views=n_views).fit(images, y, groups)
    judged = set(groups[model.embedder_[0].validation_rows_])
    assert len(judged) == 6
    assert seen[-1]["calibration"] is None  # 6 sources are fewer than 10
    for enough, passed in ((6, True), (7, False)):
        monkeypatch.setattr(module, "MIN_HELD_OUT", enough)
        detector(embedder, n_views=n_views).fit(images, y, groups)
        assert (seen[-1]["calibration"] is not None) == passed
        if passed:
            names = seen[-1]["groups"]
            names = names if n_views is None else np.unique(groups)[names]
            np.testing.assert_array_equal(
                seen[-1]["calibration"], [name in judged for name in names]
            )


def test_frozen_embedders_calibrate_on_everything(labelled_images, monkeypatch):
    monkeypatch.setattr(module, "MIN_HELD_OUT", 1)
    seen = watch_svm(monkeypatch)
    detector().fit(*labelled_images)
    assert seen[0]["calibration"] is None


@pytest.mark.parametrize("classifier", [None, LogisticRegression()])
@pytest.mark.parametrize(
    ("threshold", "max_error"), [(0.5, 0.12), (0.3, 0.2), ("balanced_accuracy", 0.12)]
)
def test_verdicts_keep_the_error_on_out_of_fold_rows(
    labelled_images, threshold, max_error, classifier
):
    images, y, groups = labelled_images
    noisy = y.copy()
    noisy[::7] = 1 - noisy[::7]
    model = detector(
        statistics(), classifier=classifier, threshold=threshold, max_error=max_error, cv=2
    ).fit(images, noisy, groups)
    proba = 1 / (1 + np.exp(-model.classifier_.cv_decision_))
    named = (proba > model.threshold_).astype(int)
    confidence = np.where(named == 1, proba, 1 - proba)

    def decided(cut):
        sure = confidence > cut
        fine = (np.count_nonzero(named[sure] != noisy[sure]) + 1) / (sure.sum() + 1) <= max_error
        return sure.sum() if fine else 0

    assert decided(model.rejection_threshold_) == max(map(decided, [-1, *confidence]))
    predicted, probabilities = model.predict(images), model.predict_proba(images)
    sure = probabilities[np.arange(36), predicted] > model.rejection_threshold_
    expected = np.where(sure, predicted.astype(object), "unsure").tolist()
    assert model.verdict(images).tolist() == expected


def test_an_error_that_cannot_be_kept_leaves_everything_unsure(labelled_images):
    model = detector(max_error=0.001).fit(*labelled_images)
    assert model.rejection_threshold_ == 1
    assert set(model.verdict(labelled_images[0])) == {"unsure"}


def test_margins_give_no_probability_and_no_verdict(labelled_images):
    model = detector(classifier=TunedSVC(n_trials=1, cv=2, calibrate=False)).fit(*labelled_images)
    assert model.decision_function(labelled_images[0]).shape == (36,)
    for method in ("predict_proba", "verdict", "judge"):
        assert not hasattr(model, method)


def test_images_of_unknown_sizes_are_unsure(labelled_images):
    images, y, groups = labelled_images
    model = detector(cnn(crop_size=80, n_crops=1), max_error=0.45).fit(images, y, groups)
    assert (model.min_side_, model.max_side_) == (72, 80)
    model.rejection_threshold_ = 0.0
    rng = np.random.default_rng(0)
    tiny, large = (rng.integers(0, 256, (*s, 3), dtype=np.uint8) for s in ((31, 90), (81, 80)))
    usual = images[0]
    said = model.verdict([tiny, usual, large]).tolist()
    assert said[0] == said[2] == "unsure"
    assert said[1] != "unsure"
    assert "unsure" not in model.set_params(max_error=None).verdict([tiny, large]).tolist()


# state


def test_unfitted(labelled_images):
    for method in (
        "predict",
        "predict_proba",
        "decision_function",
        "transform",
        "verdict",
        "judge",
    ):
        with pytest.raises(NotFittedError):
            getattr(detector(), method)(labelled_images[0][:1])
    with pytest.raises(NotFittedError):
        detector().save_pretrained("nowhere")


def test_a_refit_starts_afresh(labelled_images):
    images, y, groups = labelled_images
    model = detector(cnn(finetune=tuning(epochs=1)))
    first = model.fit(images, y, groups).decision_function(images)
    model.fit([image[:, ::-1].copy() for image in images], y, groups)
    np.testing.assert_array_equal(model.fit(images, y, groups).decision_function(images), first)


@pytest.mark.parametrize("stage", ["network", "embedding", "svm"])
def test_a_fit_that_fails_leaves_everything_as_it_was(labelled_images, monkeypatch, stage):
    from cnnsvm.features import cache, embedder

    images, y, groups = labelled_images
    model = detector(cnn(finetune=tuning(epochs=1))).fit(images, y, groups)
    scores, known = model.decision_function(images), set(vars(model))

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    owner, name = {
        "network": (cache, "finetune"),
        "embedding": (embedder, "embed_crops"),
        "svm": (TunedSVC, "fit"),
    }[stage]
    other = [image[:, ::-1].copy() for image in images]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, interrupt)
        with pytest.raises(KeyboardInterrupt):
            model.fit(other, 1 - y, groups)
        new = clone(model)
        with pytest.raises(KeyboardInterrupt):
            new.fit(other, y, groups)
    assert set(vars(model)) == known
    np.testing.assert_array_equal(model.decision_function(images), scores)
    with pytest.raises(NotFittedError):
        new.predict(images)


def test_fit_records_what_it_was_trained_on(fitted, labelled_images):
    from cnnsvm.detection.training_overlap import find_training_images

    assert [i for i, _ in find_training_images(fitted, labelled_images[0][:3])] == [0, 1, 2]
    noise = np.random.default_rng(9).integers(0, 256, (90, 90, 3), dtype=np.uint8)
    assert find_training_images(fitted, [noise], 2) == []


# caches


def test_pickles_without_caches(labelled_images, tmp_path):
    images, y, groups = labelled_images
    model = detector(cache_dir=tmp_path).fit(images, y, groups)
    plain = detector().fit(images, y, groups)
    content = pickle.dumps(model)
    assert len(content) < len(pickle.dumps(plain)) + 10_000
    np.testing.assert_array_equal(
        pickle.loads(content).predict_proba(images), model.predict_proba(images)
    )


@pytest.mark.parametrize("n_views", [None, 2])
def test_an_interrupted_fit_resumes_and_a_repeated_one_is_quick(
    labelled_images, tmp_path, monkeypatch, n_views
):
    from cnnsvm.features import cache, embedder

    settings = {"n_views": n_views, "random_state": 0}
    parts = (cnn(finetune=tuning()), statistics(finetune=tuning()))
    expected = detector(*parts, **settings).fit(*labelled_images)

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    for owner, name in ((embedder, "embed_crops"), (TunedSVC, "fit")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, interrupt)
            with pytest.raises(KeyboardInterrupt):
                detector(*parts, cache_dir=tmp_path, **settings).fit(*labelled_images)
        forbid(monkeypatch, cache, "finetune")
    forbid(monkeypatch, embedder, "embed_crops")
    resumed = detector(*parts, cache_dir=tmp_path, **settings).fit(*labelled_images)
    monkeypatch.undo()
    assert resumed.history_ == expected.history_
    scores = expected.decision_function(labelled_images[0])
    np.testing.assert_array_equal(resumed.decision_function(labelled_images[0]), scores)
    np.testing.assert_array_equal(
        resumed.explain(labelled_images[0][1]), expected.explain(labelled_images[0][1])
    )


def test_the_cache_tells_tasks_apart(labelled_images, files, tmp_path):
    images, y, groups = labelled_images
    changed = [image.copy() for image in images]
    changed[0][0, 0] ^= 255
    variants = [
        (detector(), files),
        (detector(), changed),
        (detector(n_views=1), files),
        (detector(n_views=2), files),
        (detector(cnn(preprocessing="imagenet")), files),
        (detector(cnn(pooling="mean")), files),
        (detector(statistics()), files),
        (detector(cnn(), statistics()), files),
    ]
    for model, given in variants:
        cached = clone(model).set_params(cache_dir=tmp_path).fit(given, y, groups)
        plain = model.fit(given, y, groups)
        np.testing.assert_array_equal(cached.predict_proba(images), plain.predict_proba(images))
    assert len({path.name for path in tmp_path.iterdir()} - {"embeddings"}) == len(variants)


def test_other_inner_folds_find_their_own_studies(labelled_images, tmp_path):
    for cv in (2, 3):
        svm = TunedSVC(n_trials=1, cv=cv)
        detector(classifier=svm, cache_dir=tmp_path).fit(*labelled_images)


# errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embedder": cnn("resnet19")}, r"'resnet19' is not known\. Choose one of .*resnet18"),
        ({"embedder": cnn(finetune="some")}, r"'finetune'.*'some'"),
        ({"embedder": cnn(finetune=FineTuning(epochs=0))}, r"'epochs'.*Got 0"),
        ({"embedder": cnn(finetune=FineTuning(validation_fraction=0.9))}, r"'validation_fraction'"),
        ({"embedder": cnn(finetune=FineTuning(learning_rate=0))}, r"'learning_rate'.*Got 0"),
        ({"embedder": cnn(crop_size=8)}, r"'crop_size'.*Got 8"),
        ({"embedder": cnn(n_crops=2.5)}, r"'n_crops'.*Got 2\.5"),
        ({"embedder": cnn(gpu_memory_fraction=2)}, r"'gpu_memory_fraction'.*Got 2"),
        ({"embedder": cnn(device="cuda:99")}, r"torch sees .* CUDA device"),
        ({"embedder": cnn(weights="nowhere.pth")}, r"nowhere\.pth.*no such file"),
        ({"embedder": cnn(preprocessing="other")}, r"preprocessing 'other' is not known"),
        ({"embedder": cnn(preprocessing={"filters": ["round"]})}, r"filters must name some of"),
        ({"embedder": cnn(stem="x")}, r"'stem'.*'x'"),
        ({"embedder": cnn("resnet18", truncate_at="layer9")}, r"resnet18, got 'layer9'.*layer2"),
        ({"embedder": cnn(pooling="mean_top")}, r"pooling='mean_top'.*finetune='full' or 'head'"),
        ({"embedder": cnn(output="scores")}, r"output='scores'.*finetune='full' or 'head'"),
        ({"embedder": []}, r"embedder=\[\] embeds nothing"),
        ({"embedder": 3}, r"'embedder'.*Got 3"),
        ({"classifier": "svm"}, r"'classifier'.*'svm'"),
        ({"classifier": TunedSVC(kernel="sigmoid")}, r"sigmoid"),
        ({"threshold": 1.5}, r"'threshold'.*Got 1\.5"),
        ({"max_error": 2}, r"'max_error'.*Got 2"),
        ({"max_error": "low"}, r"'max_error'.*Got 'low'"),
        ({"n_views": 0}, r"'n_views'.*Got 0"),
        ({"n_views": 2, "augmentation": "geometric"}, r"n_views=2.*makes copies"),
        (
            {"threshold": 0.3, "classifier": TunedSVC(calibrate=False)},
            r"threshold=0\.3 needs probabilities",
        ),
        (
            {"max_error": 0.1, "classifier": TunedSVC(calibrate=False)},
            r"max_error=0\.1 needs probabilities.*calibrate=True",
        ),
    ],
)
def test_bad_parameters_are_named(labelled_images, change, message):
    model = detector().set_params(**change)
    with pytest.raises(ValueError, match=message):
        model.fit(*labelled_images)
    assert not hasattr(model, "classifier_")


def test_bad_data_is_named(labelled_images, fitted):
    images, y, groups = labelled_images
    with pytest.raises(ValueError, match="only one class"):
        detector().fit(images, np.zeros(len(images)), groups)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        detector().fit(images, y[:-1], groups)
    with pytest.raises(ValueError, match="y to be passed"):
        detector().fit(images)
    with pytest.raises(ValueError, match=r"1 group\(s\) but 2 folds"):
        detector().fit(images, y, np.where(y == 1, "one", groups))
    with pytest.raises(ImageError, match=r"gone\.png: no such file"):
        detector().fit([*images[:-1], "gone.png"], y, groups)
    with pytest.raises(ValueError, match="there are no images"):
        fitted.predict([])
    with pytest.raises(ValueError, match=r"class 'unsure'"):
        detector().fit(images, np.array(["real", "unsure"])[y], groups)
    buffer = io.BytesIO()
    Image.fromarray(images[0]).save(buffer, "PNG")
    with pytest.raises(ImageError, match="bytes"):
        fitted.predict([buffer.getvalue()[:500]])


@pytest.mark.parametrize(
    "model",
    [
        detector(cnn(finetune=tuning()), classifier=TunedSVC(kernel="rfb", cv=2)),
        detector(cnn(finetune=tuning()), classifier=TunedSVC(n_trials=1, cv=13)),
        detector(cnn(finetune=tuning()), classifier=LogisticRegression(), cv=13),
        detector(cnn("vgg11", crop_size=16, finetune=tuning())),
    ],
)
def test_what_cannot_work_is_refused_before_fine_tuning(labelled_images, monkeypatch, model):
    from cnnsvm.features import cache

    forbid(monkeypatch, cache, "finetune")
    with pytest.raises(ValueError, match=r"kernel|13 folds|crop_size=16"):
        model.fit(*labelled_images)


# auxiliary labels


def test_auxiliary_labels_train_the_network_and_the_classes_are_predicted(labelled_images):
    images, y, groups = labelled_images
    kinds = np.array(
        [f"{label} {source[-1] in '02468'}" for label, source in zip(y, groups, strict=True)]
    )
    model = detector(cnn(finetune=tuning()), statistics())
    model.fit(images, y, groups, kinds)
    network = model.embedder_[0].network_
    assert network.classifier.out_features == 4
    assert network.parents == (0, 0, 1, 1)
    assert model.predict_proba(images).shape == (36, 2)
    assert model.explain(images[0]).shape == (72, 80)


@pytest.mark.parametrize(
    ("embedder", "change", "message"),
    [
        (cnn(), lambda kinds: kinds, "finetune='none' trains none"),
        (statistics(finetune=tuning()), lambda kinds: kinds, "CNNEmbedder"),
        (cnn(finetune=tuning()), lambda kinds: np.full(36, "image"), "two classes of y"),
        (cnn(finetune=tuning()), lambda kinds: kinds[:-1], "inconsistent numbers of samples"),
        (cnn(finetune=tuning()), lambda kinds: [None, *kinds[1:]], r"auxiliary_labels\[0\]"),
    ],
)
def test_bad_auxiliary_labels_are_refused(labelled_images, embedder, change, message):
    images, y, groups = labelled_images
    kinds = np.array([f"{label} kind" for label in y], dtype=object)
    with pytest.raises(ValueError, match=message):
        detector(embedder).fit(images, y, groups, change(kinds))


def test_recalibration_bounds_what_is_named_among_untouched_images(labelled_images, tmp_path):
    images, y, groups = labelled_images
    model = detector(cnn(n_crops=2), max_error=0.1).fit(images, y, groups=groups)
    untouched = [texture(seed) for seed in range(100, 160)]
    more = [texture(seed) for seed in range(200, 260)]
    assert model.recalibrate(untouched, 0.1) is model
    assert model.false_alarms_.expected <= 0.1
    scores = 1 - model.predict_proba(untouched)[:, 0]
    assert (model.verdict(untouched) == 1).sum() == (scores > model.false_alarms_.threshold).sum()
    assert (model.verdict(more) == 1).mean() <= 0.3
    folder = model.save_pretrained(tmp_path / "model", bits=32)
    loaded = InpaintDetector.from_pretrained(folder)
    assert loaded.false_alarms_ == model.false_alarms_
    assert loaded.verdict(more).tolist() == model.verdict(more).tolist()
    assert model.fit(images, y, groups=groups).false_alarms_ is None
