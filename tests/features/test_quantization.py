import ctypes
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from tiny_detector import cnn, detector

from cnnsvm import InpaintDetector
from cnnsvm.features.backends import _Stack
from cnnsvm.features.quantization import quantize

pytestmark = pytest.mark.skipif(
    None in map(find_spec, ("onnx", "onnxruntime", "onnxscript", "openvino")),
    reason="the extras onnx and openvino",
)


@pytest.fixture(scope="module")
def images():
    coarse = np.random.default_rng(0).integers(0, 256, (12, 6, 6, 3), dtype=np.uint8)
    return list(coarse.repeat(8, axis=1).repeat(8, axis=2))


@pytest.fixture(scope="module")
def embedder(images):
    return cnn("plain_cnn", preprocessing="imagenet", random_state=0).fit(images)


@pytest.fixture(scope="module")
def rounded(embedder, images, tmp_path_factory):
    return quantize(embedder, images, tmp_path_factory.mktemp("int8") / "network.onnx")


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_int8_embeddings_are_near_those_of_float32(rounded, embedder, images, backend):
    rounded.set_params(backend=backend, device="cpu").fit(images)
    expected, found = embedder.transform(images), rounded.transform(images)
    apart = np.linalg.norm(found - expected) / np.linalg.norm(expected - expected.mean(axis=0))
    assert 1e-4 < apart < 0.5


def test_the_file_is_a_quarter_and_cuts_images_as_before(rounded, embedder):
    size = Path(rounded.backbone.removeprefix("onnx:")).stat().st_size
    weights = sum(value.numel() for value in embedder.network_.parameters())
    assert weights < size < 1.2 * weights  # a byte each
    assert (rounded.crop_size, rounded.n_crops) == (embedder.crop_size, embedder.n_crops)


def test_a_detector_of_it_is_saved_with_its_network(rounded, images, tmp_path):
    model = detector(rounded.set_params(backend="openvino", device="cpu"))
    model.fit(images, [0, 1] * 6)
    again = InpaintDetector.from_pretrained(model.save_pretrained(tmp_path / "m", bits=32))
    assert again.embedder_[0].backend == "openvino"
    again.embedder_[0].set_params(device="cpu")
    np.testing.assert_allclose(
        again.decision_function(images), model.decision_function(images), atol=1e-5
    )


@pytest.mark.skipif(sys.platform != "linux", reason="reads the stack as Linux has it")
def test_signals_keep_the_stack_of_their_handlers(rounded, images):
    def stack():
        found = _Stack()
        ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found))
        return found.sp, found.flags, found.size

    before = stack()
    other = clone(rounded).set_params(backend="openvino", device="cpu")
    other.fit(images).transform(images)
    assert stack() == before
