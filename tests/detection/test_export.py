import json

import numpy as np
import onnxruntime
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import FunctionTransformer
from tiny_detector import cnn, detector, statistics, tuning

from cnnsvm import TunedSVC
from cnnsvm.detection.export import ExportError, _Classifier, _Detector
from cnnsvm.features.crops import fixed_crops
from cnnsvm.features.statistics import residual_statistics


class Statistics(torch.nn.Module):
    def forward(self, pixels):
        return residual_statistics(pixels)


def mean_colour(images):
    return np.array([np.asarray(image).mean(axis=(0, 1)) for image in images])


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (70 + 3 * i, 90, 3), dtype=np.uint8) for i in range(12)]


@pytest.fixture(scope="module")
def fitted(images):
    """Fit a network that ranks crops, for three classes."""
    ranking = cnn(finetune=tuning(epochs=1), pooling="mean_std_top_peak", mirror=True)
    svm = TunedSVC(("rbf", "poly"), voting="soft", n_trials=1, cv=2, random_state=0)
    labels = np.array(["original", "spliced", "whole"] * 4)
    return detector(ranking, classifier=svm).fit(images, labels)


@pytest.fixture(scope="module")
def with_statistics(images):
    """Fit statistics beside a network: their export takes 20 seconds, so it is followed only."""
    traces = statistics(finetune=tuning(epochs=1), pooling="mean_std_top", crop_size=48, n_crops=4)
    return detector(cnn(), traces).fit(images, [0, 1] * 6)


@pytest.fixture(scope="module")
def session(fitted, tmp_path_factory):
    file = fitted.to_onnx(tmp_path_factory.mktemp("onnx") / "detector.onnx")
    assert [path.name for path in file.parent.iterdir()] == ["detector.onnx"]
    return onnxruntime.InferenceSession(file)


def test_the_graph_gives_our_probabilities(fitted, session, images):
    for n_images in (1, 5):
        chosen = images[:n_images]
        crops = np.stack([fixed_crops(image, 32, 2) for image in chosen])
        (found,) = session.run(None, {"crops": crops})
        np.testing.assert_allclose(found, fitted.predict_proba(chosen), atol=1e-5)
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)


def test_statistics_are_followed_by_the_graph(with_statistics, images):
    crops, larger = (
        torch.from_numpy(np.stack([fixed_crops(image, *shape) for image in images[:5]]))
        for shape in ((32, 2), (48, 4))
    )
    with torch.inference_mode():
        found = _Detector(with_statistics, [0, 1]).eval()(crops, larger).numpy()
    np.testing.assert_allclose(found, with_statistics.predict_proba(images[:5]), atol=1e-6)
    shapes = ({0: torch.export.Dim("crops")},)
    program = torch.export.export(Statistics(), (crops[0].movedim(3, 1),), dynamic_shapes=shapes)
    pixels = crops[:, 0].movedim(3, 1)  # as many as were not there when it was traced
    assert torch.equal(program.module()(pixels), residual_statistics(pixels))


def test_the_graph_says_how_images_are_cut(fitted, session):
    said = json.loads(session.get_modelmeta().custom_metadata_map["cnnsvm"])
    assert said["classes"] == ["original", "spliced", "whole"]
    assert said["inputs"] == {"crops": {"crop_size": 32, "n_crops": 2, "resize": None}}
    assert said["threshold"] == fitted.threshold_


@pytest.mark.parametrize("kernel", ["linear", "rbf", "poly", ("linear", "rbf")])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_classifier_is_ours_in_float64(kernel, n_classes):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 5)), np.arange(60) % n_classes
    X[:, 0] += y
    voting = None if isinstance(kernel, str) else "soft"
    svm = TunedSVC(kernel, voting=voting, n_trials=1, cv=2, random_state=0).fit(X, y)
    with torch.inference_mode():
        found = _Classifier(svm)(torch.from_numpy(X)).numpy()
    np.testing.assert_allclose(found, svm.predict_proba(X), rtol=1e-9, atol=1e-12)


def test_what_is_no_graph_is_refused(images, tmp_path):
    labels = np.array([0, 1] * 6)
    cases = {
        "FunctionTransformer is no embedder": detector(FunctionTransformer(mean_colour)),
        "only a TunedSVC that calibrates": detector(classifier=LogisticRegression()),
    }
    for said, unfitted in cases.items():
        with pytest.raises(ExportError, match=said):
            unfitted.fit(images, labels).to_onnx(tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())
