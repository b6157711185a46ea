import io
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from cnnsvm import InpaintDetector
from cnnsvm.data.images import ImageError
from cnnsvm.data.manifest import make_manifest, make_row
from cnnsvm.detection import fitting
from cnnsvm.features.crops import fixed_crops
from cnnsvm.features.finetuning import FineTuner
from cnnsvm.features.statistics import STATISTICS_DIM, residual_statistics
from cnnsvm.svm import TunedSVC

QUICK = {
    "backbone": "squeezenet1_1",
    "weights": None,
    "finetune": "none",
    "crop_size": 48,
    "n_crops": 2,
    "n_trials": 2,
    "cv": 2,
    "precision": "float32",
    "random_state": 0,
}


#: A small network that is fine-tuned.
TUNED = QUICK | {"backbone": "resnet18", "truncate_at": "layer1", "finetune": "full", "epochs": 2}


@parametrize_with_checks(
    [
        InpaintDetector("precomputed", n_trials=2),
        InpaintDetector("precomputed", n_trials=1, threshold="balanced_accuracy", calibrate=False),
    ]
)
def test_scikit_learns_checks_on_precomputed_embeddings(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def fitted(pictures):
    images, y, groups = pictures
    return InpaintDetector(**QUICK).fit(images, y, groups=groups)


@pytest.fixture(scope="module")
def files(pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    paths = []
    for i, image in enumerate(pictures[0]):
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


def forbidden(*args, **kwargs):
    raise AssertionError("computed again")


def test_shapes_and_ranges(fitted, pictures):
    images = pictures[0][:5]
    probabilities = fitted.predict_proba(images)
    assert probabilities.shape == (5, 2)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert fitted.decision_function(images).shape == (5,)
    assert fitted.transform(images).shape == (5, 1024)
    assert len(fitted.get_feature_names_out()) == 1024
    assert set(fitted.predict(images)) <= {0, 1}


def test_decision_probability_and_prediction_agree(fitted, pictures):
    images = pictures[0]
    scores, probabilities = fitted.decision_function(images), fitted.predict_proba(images)[:, 1]
    np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-scores)))
    np.testing.assert_array_equal(fitted.predict(images), (scores > 0).astype(int))


def test_order_and_subset_do_not_matter(fitted, pictures):
    images = pictures[0]
    scores = fitted.decision_function(images)
    np.testing.assert_allclose(fitted.decision_function(images[::-1])[::-1], scores, atol=1e-3)
    np.testing.assert_allclose(fitted.decision_function(images[7:9]), scores[7:9], atol=1e-3)
    np.testing.assert_allclose(fitted.decision_function(images[:1]), scores[:1], atol=1e-3)


def test_a_refit_starts_afresh(pictures):
    images, y, groups = pictures
    detector = InpaintDetector(**QUICK | {"finetune": "full", "epochs": 1})
    first = detector.fit(images, y, groups).decision_function(images)
    other = [image[:, ::-1].copy() for image in images]
    detector.fit(other, y, groups)
    np.testing.assert_array_equal(detector.fit(images, y, groups).decision_function(images), first)


def test_all_kinds_of_input_agree(fitted, pictures, files):
    array = pictures[0][3]
    content = Path(files[3]).read_bytes()
    kinds = [array, files[3], content, Image.fromarray(array)]
    scores = fitted.decision_function(kinds)
    np.testing.assert_allclose(scores, scores[0], atol=1e-3)
    series = fitted.decision_function(pd.Series([files[3]]))
    path = fitted.decision_function(files[3])
    np.testing.assert_allclose([series[0], path[0]], scores[0], atol=1e-3)


def test_inputs_are_not_changed(pictures):
    images, y, groups = pictures
    before = [image.copy() for image in images]
    InpaintDetector(**QUICK | {"finetune": "full", "epochs": 1}).fit(images, y, groups)
    assert all(np.array_equal(a, b) for a, b in zip(before, images, strict=True))


def test_a_manifest_brings_labels_and_groups(pictures, files, fitted, monkeypatch):
    _, y, groups = pictures
    rows = [
        make_row(f, int(label), source) for f, label, source in zip(files, y, groups, strict=True)
    ]
    manifest = make_manifest(rows)
    seen = watch_svm(monkeypatch)
    detector = InpaintDetector(**QUICK).fit(manifest)
    assert list(seen[0]["groups"]) == list(groups)
    np.testing.assert_allclose(
        detector.predict_proba(manifest), fitted.predict_proba(files), atol=1e-6
    )


def test_groups_reach_every_inner_split(pictures, monkeypatch):
    from cnnsvm.features import finetuning
    from cnnsvm.svm import inner_cv

    images, y, groups = pictures
    splits = []
    for module in (finetuning, inner_cv):
        original = module.grouped_folds

        def watched(labels, codes, *args, original=original):
            folds = original(labels, codes, *args)
            splits.extend((codes[train], codes[test]) for train, test in folds)
            return folds

        monkeypatch.setattr(module, "grouped_folds", watched)
    results = cross_validate(
        InpaintDetector(**QUICK | {"finetune": "full", "epochs": 1}),
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


def test_works_in_a_pipeline_and_a_grid_search(pictures):
    images, y, groups = pictures
    pipeline = make_pipeline(InpaintDetector(**QUICK))
    pipeline.fit(images, y, inpaintdetector__groups=groups)
    assert pipeline.predict(images[:2]).shape == (2,)
    search = GridSearchCV(
        InpaintDetector(**QUICK), {"pooling": ["mean", "mean_max"]}, cv=GroupKFold(2)
    )
    search.fit(images, y, groups=groups)
    assert search.best_params_["pooling"] in ("mean", "mean_max")


def test_three_classes(pictures):
    images, y, groups = pictures
    names = np.array(["original", "regenerated", "spliced"])[y + (np.arange(len(y)) % 3 == 2)]
    detector = InpaintDetector(**QUICK).fit(images, names, groups)
    assert detector.classes_.tolist() == ["original", "regenerated", "spliced"]
    assert detector.predict_proba(images[:4]).shape == (4, 3)
    assert set(detector.predict(images)) <= set(names)


def test_the_threshold_is_chosen_on_out_of_fold_scores(pictures):
    images, y, groups = pictures
    detector = InpaintDetector(**QUICK, threshold="balanced_accuracy").fit(images, y, groups)
    scores = detector.svm_.cv_decision_

    def balanced(cut):
        called = scores > cut
        return (called[y == 1].mean() + (~called[y == 0]).mean()) / 2

    chosen = np.log(detector.threshold_ / (1 - detector.threshold_))
    assert balanced(chosen) >= max(balanced(cut) for cut in [*scores, scores.min() - 1]) - 1e-12
    np.testing.assert_array_equal(
        detector.predict(images), (detector.predict_proba(images)[:, 1] > detector.threshold_) * 1
    )


def test_unfitted(pictures):
    methods = ("predict", "predict_proba", "decision_function", "transform", "verdict", "save")
    for method in methods:
        with pytest.raises(NotFittedError):
            getattr(InpaintDetector(**QUICK), method)(pictures[0][:1])


def test_clone_keeps_parameters_and_drops_what_was_fitted(fitted):
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    assert not hasattr(copy, "svm_")


def test_pickles_without_caches(pictures, tmp_path):
    images, y, groups = pictures
    detector = InpaintDetector(**QUICK, cache_dir=tmp_path).fit(images, y, groups)
    plain = InpaintDetector(**QUICK).fit(images, y, groups)
    content = pickle.dumps(detector)
    assert len(content) < len(pickle.dumps(plain)) + 10_000
    again = pickle.loads(content)
    np.testing.assert_array_equal(again.predict_proba(images), detector.predict_proba(images))


@pytest.mark.parametrize("change", [{}, {"n_views": 2, "augmentation": "robust"}])
def test_a_cached_fit_is_the_same_and_does_nothing_twice(pictures, tmp_path, monkeypatch, change):
    images, y, groups = pictures
    settings = TUNED | {"cache_dir": tmp_path} | change
    first = InpaintDetector(**settings).fit(images, y, groups)
    plain = InpaintDetector(**settings | {"cache_dir": None}).fit(images, y, groups)
    np.testing.assert_array_equal(plain.predict_proba(images), first.predict_proba(images))
    monkeypatch.setattr("cnnsvm.features.cache.finetune", forbidden)
    again = InpaintDetector(**settings)
    with monkeypatch.context() as patch:
        patch.setattr("cnnsvm.features.cache.embed_crops", forbidden)
        again.fit(images, y, groups)
    assert again.history_ == first.history_
    np.testing.assert_array_equal(again.predict_proba(images), first.predict_proba(images))
    np.testing.assert_array_equal(again.explain(images[1]), first.explain(images[1]))


@pytest.mark.parametrize("n_views", [None, 2])
def test_an_interrupted_fit_goes_on_where_it_stopped(pictures, tmp_path, monkeypatch, n_views):
    settings = TUNED | {"cache_dir": tmp_path, "n_views": n_views, "augmentation": "robust"}
    expected = InpaintDetector(**settings | {"cache_dir": None}).fit(*pictures)

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    for place in ("features.extractor.embed_crops", "fitting.TunedSVC"):
        with monkeypatch.context() as patch:
            patch.setattr(f"cnnsvm.{place}", interrupt)
            with pytest.raises(KeyboardInterrupt):
                InpaintDetector(**settings).fit(*pictures)
        monkeypatch.setattr("cnnsvm.features.cache.finetune", forbidden)
    monkeypatch.setattr("cnnsvm.features.embeddings.iterate_crops", forbidden)
    resumed = InpaintDetector(**settings).fit(*pictures)
    monkeypatch.undo()
    scores = expected.decision_function(pictures[0])
    np.testing.assert_array_equal(resumed.decision_function(pictures[0]), scores)


def test_views_do_not_meet_the_cache_of_others(pictures, tmp_path):
    for n_views in (None, 1, 2):
        InpaintDetector(**QUICK, n_views=n_views, cache_dir=tmp_path).fit(*pictures)
    assert len(list(tmp_path.iterdir())) == 3


def test_the_cache_sees_a_changed_image(pictures, files, tmp_path):
    images, y, groups = pictures
    settings = QUICK | {"cache_dir": tmp_path}
    InpaintDetector(**settings).fit(files, y, groups)
    changed = [image.copy() for image in images]
    changed[0][0, 0] ^= 255
    InpaintDetector(**settings).fit(changed, y, groups)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": "resnet19"}, "backbone must be one of .*got 'resnet19'"),
        ({"finetune": "some"}, "finetune must be one of none, head, full"),
        ({"crop_size": 8}, "crop_size must be a whole number >= 16, got 8"),
        ({"n_crops": 2.5}, "n_crops must be a whole number"),
        ({"validation_fraction": 0.9}, r"validation_fraction must lie in \(0, 0.5\]"),
        ({"threshold": 1.5}, r"threshold must be .* got 1.5"),
        ({"threshold": 0.3, "calibrate": False}, "which calibrate=False does not give"),
        ({"gpu_memory_fraction": 2}, r"gpu_memory_fraction must be None or lie in \(0, 1\]"),
        ({"device": "cuda:99"}, "torch sees .* CUDA device"),
        ({"weights": "nowhere.pth"}, "nowhere.pth.*no such file"),
        ({"preprocessing": "other"}, "preprocessing 'other' is not known"),
        ({"learning_rate": 0}, "learning_rate must be None or above 0"),
        ({"kernel": "sigmoid"}, "kernel.*sigmoid"),
        ({"stem": "x"}, "stem must be one of native, nopool, nodown, small, got 'x'"),
        (
            {"backbone": "resnet18", "truncate_at": "layer9"},
            "truncate_at must name a stage of resnet18, got 'layer9'. Choose one of .*layer2",
        ),
        (
            {"pooling": "mean_top"},
            "pooling='mean_top' ranks .*finetune='none' trains none. Use finetune='full' or 'head'",
        ),
        ({"max_error": 2}, r"max_error is the share .* in \(0, 1\), such as 0.05; got 2"),
        ({"max_error": 0.0}, "max_error is the share .* got 0.0"),
        ({"max_error": "low"}, "max_error is the share .* got 'low'"),
        ({"max_error": 0.1, "calibrate": False}, "max_error=0.1 needs .* Use calibrate=True"),
        ({"n_views": 0}, "n_views must be None or a whole number >= 1, got 0"),
        ({"n_views": 1.5}, "n_views must be None or a whole number >= 1, got 1.5"),
        ({"pairs_per_source": 0}, "pairs_per_source must be None or a whole number >= 1, got 0"),
        ({"statistics": "yes"}, "statistics must be True or False, got 'yes'"),
        ({"preprocessing": {"filters": ["round"]}}, "filters must name some of across"),
    ],
)
def test_bad_parameters_are_named(pictures, change, message):
    images, y, groups = pictures
    with pytest.raises(ValueError, match=message):
        InpaintDetector(**QUICK | change).fit(images, y, groups)


def test_bad_data_is_named(pictures, fitted):
    images, y, groups = pictures
    detector = InpaintDetector(**QUICK)
    with pytest.raises(ValueError, match="only one class"):
        detector.fit(images, np.zeros(len(images)), groups)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        detector.fit(images, y[:-1], groups)
    with pytest.raises(ValueError, match="y to be passed"):
        detector.fit(images)
    with pytest.raises(ValueError, match=r"1 group\(s\) but 2 folds"):
        detector.fit(images, y, np.where(y == 1, "one", groups))
    with pytest.raises(ImageError, match=r"gone\.png: no such file"):
        detector.fit([*images[:-1], "gone.png"], y, groups)
    with pytest.raises(ValueError, match="no images to judge"):
        fitted.predict([])
    buffer = io.BytesIO()
    Image.fromarray(images[0]).save(buffer, "PNG")
    with pytest.raises(ImageError, match="bytes"):
        fitted.predict([buffer.getvalue()[:500]])


def test_nan_embeddings_are_named():
    X = np.random.default_rng(0).normal(size=(20, 3))
    X[7, 1] = np.nan
    with pytest.raises(ValueError, match=r"(?i)nan"):
        InpaintDetector("precomputed", n_trials=1).fit(X, np.arange(20) % 2)


def test_the_cache_sees_another_preprocessing(pictures, tmp_path):
    images, y, groups = pictures
    for preprocessing in ("residual", "imagenet"):
        settings = QUICK | {"cache_dir": tmp_path, "preprocessing": preprocessing}
        detector = InpaintDetector(**settings).fit(images, y, groups)
        plain = InpaintDetector(**settings | {"cache_dir": None}).fit(images, y, groups)
        np.testing.assert_array_equal(detector.predict_proba(images), plain.predict_proba(images))
    assert len(list(tmp_path.iterdir())) == 2


def test_other_inner_folds_find_their_own_studies(pictures, tmp_path):
    images, y, groups = pictures
    for cv in (2, 3):
        InpaintDetector(**QUICK | {"cache_dir": tmp_path, "cv": cv}).fit(images, y, groups)


@pytest.mark.parametrize(
    "change", [{"kernel": "rfb"}, {"n_trials": 0}, {"cv": 1}, {"cv": 13}, {"crop_size": 16}]
)
def test_what_cannot_work_is_refused_before_fine_tuning(pictures, monkeypatch, change):
    monkeypatch.setattr("cnnsvm.features.cache.finetune", forbidden)
    images, y, groups = pictures
    settings = QUICK | {"backbone": "vgg11", "finetune": "full"} | change
    with pytest.raises(ValueError, match=r"kernel|n_trials|cv|13 folds|crop_size=16"):
        InpaintDetector(**settings).fit(images, y, groups)


def test_views_need_a_source_a_fold_before_fine_tuning(monkeypatch):
    monkeypatch.setattr("cnnsvm.features.cache.finetune", forbidden)
    images = list(np.random.default_rng(0).integers(0, 256, (7, 48, 48, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match=r"1 group\(s\) but 2 folds were asked for"):
        InpaintDetector(**TUNED, n_views=2).fit(images, [0] * 6 + [1])


@pytest.mark.parametrize("finetune", ["none", "head", "full"])
def test_residual_statistics_alone_make_a_detector(pictures, finetune):
    images, y, groups = pictures
    settings = QUICK | {"backbone": "statistics", "finetune": finetune, "epochs": 3}
    detector = InpaintDetector(**settings).fit(images[:27], y[:27], groups[:27])
    dim = 2 * (STATISTICS_DIM if finetune == "none" else 256)
    assert detector.transform(images[:2]).shape == (2, dim)
    scores = detector.decision_function(images)
    assert roc_auc_score(y[27:], scores[27:]) > 0.9
    again = InpaintDetector(**settings).fit(images[:27], y[:27], groups[:27])
    np.testing.assert_array_equal(again.decision_function(images), scores)


@pytest.mark.parametrize("finetune", ["none", "full"])
def test_the_cache_sees_the_statistics(pictures, tmp_path, finetune):
    settings = TUNED | {"finetune": finetune, "epochs": 1, "cache_dir": tmp_path}
    n_features = [
        InpaintDetector(**settings, statistics=statistics).fit(*pictures).svm_.n_features_in_
        for statistics in (False, True)
    ]
    more = STATISTICS_DIM if finetune == "none" else 256
    assert n_features == [2 * 128, 2 * (128 + more)]
    assert len(list(tmp_path.iterdir())) == 2


def test_statistics_are_pooled_as_the_embedding_is(pictures, fitted):
    images = pictures[0][:3]
    detector = InpaintDetector(**QUICK, statistics=True).fit(*pictures)
    found = np.split(detector.transform(images), 2, axis=1)
    plain = np.split(fitted.transform(images), 2, axis=1)
    for pool, both, alone in zip(("mean", "std"), found, plain, strict=True):
        assert both.shape == (3, 512 + STATISTICS_DIM)
        np.testing.assert_array_equal(both[:, :512], alone)
        for row, image in zip(both, images, strict=True):
            crops = torch.from_numpy(fixed_crops(image, 48, 2).transpose(0, 3, 1, 2).copy())
            expected = getattr(residual_statistics(crops).numpy(), pool)(axis=0)
            np.testing.assert_allclose(row[512:], expected, atol=1e-3)


def test_the_top_crops_are_pooled(pictures):
    images = pictures[0][:3]
    settings = TUNED | {"n_crops": 4, "crop_size": 32, "epochs": 1}
    detector = InpaintDetector(**settings, pooling="mean_top").fit(*pictures)
    found = detector.transform(images)
    for row, image in zip(found, images, strict=True):
        crops = torch.from_numpy(fixed_crops(image, 32, 4).transpose(0, 3, 1, 2).copy())
        with torch.inference_mode():
            embeddings = detector.network_(crops)
            top = embeddings[detector.network_.logits(crops).softmax(dim=1)[:, 0].argmin()]
        np.testing.assert_allclose(row[:128], embeddings.mean(dim=0), atol=1e-4)
        np.testing.assert_allclose(row[128:], top, atol=1e-4)


@pytest.mark.parametrize("n_views", [1, 3])
def test_views_are_balanced_and_keep_their_source(pictures, monkeypatch, n_views):
    from cnnsvm.svm import inner_cv

    images, y, groups = pictures
    seen, splits = watch_svm(monkeypatch), []
    folds_of = inner_cv.grouped_folds

    def watched(labels, codes, *args):
        folds = folds_of(labels, codes, *args)
        splits.extend((codes[train], codes[test]) for train, test in folds)
        return folds

    monkeypatch.setattr(inner_cv, "grouped_folds", watched)
    settings = QUICK | {"n_views": n_views, "augmentation": "robust"}
    detector = InpaintDetector(**settings).fit(images, y, groups)
    (rows,) = seen
    assert rows["X"].shape == (12 * 2 * n_views, 1024)
    for source in np.unique(rows["groups"]):
        labels = rows["y"][rows["groups"] == source]
        assert (labels == 0).sum() == (labels == 1).sum() == n_views
    assert len(splits) == 2
    for train, test in splits:
        assert set(train).isdisjoint(test)
    # the first view of each class of a source is one of its images as it is, the others are not
    plain, degraded = detector.transform(images), []
    for source in np.unique(rows["groups"]):
        for label in (0, 1):
            own = plain[(groups == np.unique(groups)[source]) & (y == label)]
            views = rows["X"][(rows["groups"] == source) & (rows["y"] == label)]
            distance = np.abs(views[:, None] - own[None]).max(axis=2).min(axis=1)
            assert distance[0] < 1e-3
            degraded += (distance[1:] > 1e-3).tolist()
    assert n_views == 1 or np.mean(degraded) > 0.7
    assert detector.score(images, y) > 0.7


def test_without_groups_each_image_is_the_source_of_its_views(pictures, monkeypatch):
    images, y, _ = pictures
    seen = watch_svm(monkeypatch)
    InpaintDetector(**QUICK, n_views=2).fit(images, y)
    assert np.bincount(seen[0]["groups"]).tolist() == [2] * len(images)
    np.testing.assert_array_equal(seen[0]["y"], np.repeat(y, 2))


@pytest.mark.parametrize("n_views", [None, 2])
def test_sources_of_early_stopping_calibrate_if_they_are_enough(pictures, monkeypatch, n_views):
    images, y, groups = pictures
    seen, judged = watch_svm(monkeypatch), set()
    validate = FineTuner.validate

    def watch(self):
        judged.update(groups[self.valid])
        return validate(self)

    monkeypatch.setattr(FineTuner, "validate", watch)
    settings = TUNED | {"validation_fraction": 0.5, "n_views": n_views, "epochs": 1}
    InpaintDetector(**settings).fit(images, y, groups)
    assert len(judged) == 6
    assert seen[-1]["calibration"] is None  # 6 sources are fewer than 10
    for enough, passed in ((6, True), (7, False)):
        monkeypatch.setattr(fitting, "MIN_HELD_OUT", enough)
        InpaintDetector(**settings).fit(images, y, groups)
        assert (seen[-1]["calibration"] is not None) == passed
        if passed:
            of_rows = seen[-1]["groups"]
            names = of_rows if n_views is None else np.unique(groups)[of_rows]
            expected = [name in judged for name in names]
            np.testing.assert_array_equal(seen[-1]["calibration"], expected)


def test_ten_sources_of_early_stopping_are_enough(monkeypatch):
    rng = np.random.default_rng(0)
    images = list(rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8))
    seen = watch_svm(monkeypatch)
    settings = TUNED | {"crop_size": 32, "n_crops": 1, "epochs": 1, "validation_fraction": 0.5}
    InpaintDetector(**settings).fit(images, np.arange(40) % 2, np.arange(40) // 2)
    assert seen[-1]["calibration"].sum() == 20


def test_a_network_that_has_learnt_nothing_calibrates_on_everything(pictures, monkeypatch):
    monkeypatch.setattr(fitting, "MIN_HELD_OUT", 1)
    seen = watch_svm(monkeypatch)
    InpaintDetector(**QUICK).fit(*pictures)
    assert seen[0]["calibration"] is None


def test_threshold_and_confidence_are_chosen_on_the_sources_that_calibrate(pictures, monkeypatch):
    monkeypatch.setattr(fitting, "MIN_HELD_OUT", 2)
    rows, seen = [], watch_svm(monkeypatch)
    choose = fitting.choose_confidence

    def watch(probabilities, named, codes, max_error, copies=1):
        rows.append((probabilities, codes))
        return choose(probabilities, named, codes, max_error)

    monkeypatch.setattr(fitting, "choose_confidence", watch)
    settings = TUNED | {"validation_fraction": 0.5, "max_error": 0.2, "epochs": 1}
    detector = InpaintDetector(**settings, threshold="balanced_accuracy").fit(*pictures)
    mask = seen[0]["calibration"]
    expected = 1 / (1 + np.exp(-detector.svm_.cv_decision_[mask]))
    assert 0 < mask.sum() < len(mask)
    np.testing.assert_allclose(rows[0][0][:, 1], expected)
    np.testing.assert_array_equal(rows[0][1], pictures[1][mask])
    called = np.array([expected > cut for cut in [-1, *expected]])
    y = pictures[1][mask]
    best = max((row[y == 1].mean() + (~row[y == 0]).mean()) / 2 for row in called)
    chosen = expected > detector.threshold_
    assert (chosen[y == 1].mean() + (~chosen[y == 0]).mean()) / 2 == pytest.approx(best)


@pytest.fixture(scope="module")
def noisy(pictures):
    """Images of which every seventh has the wrong label, so that some verdicts must be wrong."""
    images, y, groups = pictures
    flipped = y.copy()
    flipped[::7] = 1 - flipped[::7]
    return images, flipped, groups


@pytest.mark.parametrize(
    ("threshold", "max_error"),
    [(0.5, 0.12), (0.3, 0.12), (0.8, 0.26), ("balanced_accuracy", 0.12)],
)
def test_verdicts_keep_the_error_on_the_rows_that_calibrate(threshold, max_error):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 240)
    X = rng.normal(size=(240, 3)) + 1.2 * y[:, None] * [1, 0.5, 0]
    detector = InpaintDetector(
        "precomputed", n_trials=1, random_state=0, threshold=threshold, max_error=max_error
    ).fit(X, y, groups=np.arange(240) // 2)
    proba = 1 / (1 + np.exp(-detector.svm_.cv_decision_))
    named = (proba > detector.threshold_).astype(int)
    confidence = np.where(named == 1, proba, 1 - proba)

    def decided(cut):
        sure = confidence > cut
        fine = (np.count_nonzero(named[sure] != y[sure]) + 1) / (sure.sum() + 1) <= max_error
        return sure.sum() if fine else 0

    assert decided(detector.confidence_) == max(map(decided, [-1, *confidence])) > 0
    new = rng.normal(size=(300, 3)) * 2
    verdicts, probabilities = detector.verdict(new), detector.predict_proba(new)
    predicted = detector.predict(new)
    sure = probabilities[np.arange(300), predicted] > detector.confidence_
    assert verdicts.tolist() == np.where(sure, predicted.astype(object), "unsure").tolist()
    assert set(verdicts.tolist()) == {0, 1, "unsure"}


def test_an_error_that_cannot_be_kept_leaves_everything_unsure(noisy):
    detector = InpaintDetector(**QUICK, max_error=0.001).fit(*noisy)
    assert detector.confidence_ == 1
    assert set(detector.verdict(noisy[0])) == {"unsure"}


def test_without_a_largest_error_every_verdict_stands(fitted, pictures):
    assert fitted.confidence_ == 0
    assert fitted.verdict(pictures[0]).tolist() == fitted.predict(pictures[0]).tolist()


def test_margins_give_no_verdict(pictures):
    detector = InpaintDetector(**QUICK, calibrate=False).fit(*pictures)
    with pytest.raises(ValueError, match="verdict compares probabilities; use calibrate=True"):
        detector.verdict(pictures[0])


def test_three_named_classes_go_straight_through(pictures, tmp_path):
    images, y, groups = pictures
    names = np.array(["original", "regenerated", "spliced"])[y + (np.arange(len(y)) % 3 == 2)]
    settings = TUNED | {"max_error": 0.4, "epochs": 3, "n_views": 2}
    detector = InpaintDetector(**settings).fit(images, names, groups)
    assert detector.classes_.tolist() == ["original", "regenerated", "spliced"]
    probabilities = detector.predict_proba(images)
    assert probabilities.shape == (36, 3)
    np.testing.assert_array_equal(
        detector.predict(images), detector.classes_[probabilities.argmax(axis=1)]
    )
    sure = probabilities.max(axis=1) > detector.confidence_
    verdicts = np.where(sure, detector.predict(images), "unsure")
    assert detector.verdict(images).tolist() == verdicts.tolist()
    assert sure.any()
    heat = detector.explain(images[1])
    assert heat.shape == (72, 80)
    again = InpaintDetector.load(detector.save(tmp_path / "three"))
    again.set_params(precision="float32")  # which is the machine's choice, and not saved
    np.testing.assert_array_equal(again.predict_proba(images), probabilities)
    assert again.verdict(images).tolist() == verdicts.tolist()
    np.testing.assert_array_equal(again.explain(images[1]), heat)
    assert again.classes_.tolist() == detector.classes_.tolist()


@pytest.mark.parametrize(
    "change",
    [
        {"stem": "nopool", "pooling": "mean_std_top"},
        {"stem": "nodown", "preprocessing": "residual_bank", "statistics": True},
        {"truncate_at": None, "crop_size": 64, "preprocessing": "imagenet"},
        {"finetune": "head", "preprocessing": {"residual": 4.0, "filters": ["down", "square"]}},
        {"backbone": "squeezenet1_1", "truncate_at": "6", "stem": "nopool"},
        {"finetune": "head", "statistics": True},
        {"finetune": "none", "statistics": True},
        {"backbone": "statistics", "truncate_at": None, "finetune": "full"},
        {"backbone": "statistics", "truncate_at": None, "finetune": "none"},
    ],
)
def test_saved_and_loaded_is_the_same(pictures, tmp_path, change):
    images, y, groups = (part[:18] for part in pictures)
    settings = TUNED | {"max_error": 0.3, "epochs": 1, "threshold": "balanced_accuracy"} | change
    detector = InpaintDetector(**settings).fit(images, y, groups)
    images = images[:4]
    again = InpaintDetector.load(detector.save(tmp_path / "saved"))
    again.set_params(precision="float32")  # which is the machine's choice, and not saved
    np.testing.assert_array_equal(again.transform(images), detector.transform(images))
    np.testing.assert_array_equal(again.predict_proba(images), detector.predict_proba(images))
    assert again.confidence_ == detector.confidence_
    assert again.threshold_ == detector.threshold_
    assert again.verdict(images).tolist() == detector.verdict(images).tolist()
    if settings["finetune"] == "none":
        assert again.network_.classifier is None
    else:
        np.testing.assert_array_equal(again.explain(images[1]), detector.explain(images[1]))
    kept = set(settings) - {"precision", "preprocessing"}
    assert {k: again.get_params()[k] for k in kept} == {k: settings[k] for k in kept}


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


@pytest.mark.parametrize(
    "change",
    [{"statistics": True}, {"finetune": "none", "backbone": "statistics", "truncate_at": None}],
)
def test_odd_images_have_finite_probabilities(noisy, change):
    settings = TUNED | {"epochs": 1, "n_views": 2, "augmentation": "robust", "max_error": 0.3}
    detector = InpaintDetector(**settings | change).fit(*noisy)
    probabilities = detector.predict_proba(odd_images())
    assert np.isfinite(probabilities).all()
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert set(detector.verdict(odd_images()).tolist()) <= {0, 1, "unsure"}
    for image, row in zip(odd_images(), probabilities, strict=True):
        np.testing.assert_allclose(detector.predict_proba([image])[0], row, atol=1e-3)


def test_odd_images_can_be_learnt_from():
    images = odd_images() * 2
    y = np.arange(len(images)) % 2
    settings = TUNED | {"epochs": 1, "n_views": 2, "augmentation": "robust", "statistics": True}
    detector = InpaintDetector(**settings).fit(images, y)
    assert np.isfinite(detector.predict_proba(images)).all()


def test_no_class_may_be_named_as_a_verdict_that_cannot_be_given(pictures):
    message = "the class 'unsure', which is what `verdict` says .* Give the class another name"
    images, y, groups = pictures
    names = np.array(["real", "unsure"])[y]
    with pytest.raises(ValueError, match=message):
        InpaintDetector(**QUICK).fit(images, names, groups)
    X = np.random.default_rng(0).normal(size=(20, 3))
    for labels in (names[:20], names[:20].astype(object)):
        with pytest.raises(ValueError, match=message):
            InpaintDetector("precomputed", n_trials=1).fit(X, labels)


def test_a_refit_on_embeddings_forgets_the_network(pictures, tmp_path):
    images, y, groups = pictures
    detector = InpaintDetector(**QUICK).fit(images, y, groups)
    assert detector.network_ is not None
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(36, 3)), columns=["a", "b", "c"])
    detector.set_params(backbone="precomputed").fit(X, y, groups)
    left = {"network_", "history_"} & set(vars(detector))
    assert not left
    again = InpaintDetector.load(detector.save(tmp_path / "embeddings"))
    np.testing.assert_array_equal(again.predict_proba(X), detector.predict_proba(X))

    detector.set_params(backbone="squeezenet1_1").fit(images, y, groups)
    assert not {"n_features_in_", "feature_names_in_"} & set(vars(detector))
    assert InpaintDetector.load(detector.save(tmp_path / "images")).network_ is not None
