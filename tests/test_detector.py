import io
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from cnnsvm import InpaintDetector
from cnnsvm.images import ImageError
from cnnsvm.records import make_manifest, make_row
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
    seen = []
    fit = TunedSVC.fit
    monkeypatch.setattr(
        TunedSVC, "fit", lambda self, X, y, groups: seen.append(groups) or fit(self, X, y, groups)
    )
    detector = InpaintDetector(**QUICK).fit(manifest)
    assert list(seen[0]) == list(groups)
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
    scores = detector.svm_.oof_decision_

    def balanced(cut):
        called = scores > cut
        return (called[y == 1].mean() + (~called[y == 0]).mean()) / 2

    chosen = np.log(detector.threshold_ / (1 - detector.threshold_))
    assert balanced(chosen) >= max(balanced(cut) for cut in [*scores, scores.min() - 1]) - 1e-12
    np.testing.assert_array_equal(
        detector.predict(images), (detector.predict_proba(images)[:, 1] > detector.threshold_) * 1
    )


def test_unfitted(pictures):
    for method in ("predict", "predict_proba", "decision_function", "transform"):
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


def test_a_cached_fit_is_the_same_and_does_nothing_twice(pictures, tmp_path, monkeypatch):
    images, y, groups = pictures
    settings = QUICK | {"finetune": "full", "epochs": 2, "cache_dir": tmp_path}
    first = InpaintDetector(**settings).fit(images, y, groups)

    def forbidden(*args, **kwargs):
        raise AssertionError("computed again")

    monkeypatch.setattr("cnnsvm.features.extractor.finetune", forbidden)
    again = InpaintDetector(**settings)
    with monkeypatch.context() as patch:
        patch.setattr("cnnsvm.features.extractor.embed_images", forbidden)
        again.fit(images, y, groups)
    assert again.history_ == first.history_
    np.testing.assert_array_equal(again.predict_proba(images), first.predict_proba(images))


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
        ({"kernel": "sigmoid"}, "kernel must be one of"),
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
    def forbidden(*args, **kwargs):
        raise AssertionError("fine-tuned first")

    monkeypatch.setattr("cnnsvm.features.extractor.finetune", forbidden)
    images, y, groups = pictures
    settings = QUICK | {"backbone": "vgg11", "finetune": "full"} | change
    with pytest.raises(ValueError, match=r"kernel|n_trials|cv|13 folds|crop_size=16"):
        InpaintDetector(**settings).fit(images, y, groups)
