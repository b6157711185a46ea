from importlib.util import find_spec

import numpy as np
import pytest
from tiny_detector import cnn, detector, statistics

from cnnsvm import InpaintDetector
from cnnsvm.detection import parity
from cnnsvm.features.devices import DeviceError

needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="the extra openvino")


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return list(rng.integers(0, 256, (12, 40, 40, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def fitted(images):
    return detector(cnn(), statistics()).fit(images, [0, 1] * 6)


@pytest.fixture
def loaded(fitted, tmp_path):
    return lambda **how: InpaintDetector.from_pretrained(
        fitted.save_pretrained(tmp_path / "m", bits=32), device="cpu", **how
    )


def test_what_was_fitted_is_saved_and_not_compared(loaded, images, monkeypatch):
    model = loaded()
    assert [tuple(each.fitted_way_) for each in model.embedder_] == [("torch", "float32")] * 2
    monkeypatch.setattr(parity, "_as_fitted", None)
    model.decision_function(images)
    assert not hasattr(model, "compared_ways_")


def test_automatic_precision_is_saved_as_what_it_was(images, tmp_path, monkeypatch):
    monkeypatch.setattr("cnnsvm.features.devices._has_bfloat16", lambda device: True)
    model = detector(cnn(precision="auto")).fit(images, [0, 1] * 6)
    monkeypatch.setattr("cnnsvm.features.devices._has_bfloat16", lambda device: False)
    again = InpaintDetector.from_pretrained(model.save_pretrained(tmp_path / "m"))
    assert again.embedder_[0].precision == "bfloat16"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@needs_openvino
def test_another_way_is_compared_once(loaded, fitted, images, caplog, precision):
    caplog.set_level("INFO")
    model = loaded(backend="openvino", precision=precision)
    found = [model.decision_function(images) for _ in range(2)][1]
    np.testing.assert_allclose(found, fitted.decision_function(images), atol=parity.TOLERANCE)
    assert caplog.text.count("log-odds of 8 images within") == 1
    assert tuple(model.compared_ways_[0]) == ("openvino", precision)
    (network, _) = model.embedder_
    assert (network.backend, network.precision) == ("openvino", precision)


def test_decisions_that_move_are_refused(loaded, images, monkeypatch):
    monkeypatch.setattr(parity, "TOLERANCE", 1e-12)
    model = loaded(precision="bfloat16")
    for _ in range(2):  # and not let through the second time
        with pytest.raises(DeviceError, match="which the detector was fitted with"):
            model.judge(images)
    assert model.embedder_[0].precision == "bfloat16"


@needs_openvino
def test_embeddings_of_another_backend_are_not_taken_from_a_cache(images, tmp_path):
    for backend in ("torch", "openvino"):
        detector(cnn(backend=backend), cache_dir=tmp_path).fit(images, [0, 1] * 6)
    assert len(list(tmp_path.glob("embeddings/*/*.npy"))) == 2
