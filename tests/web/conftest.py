"""A small detector, fitted once, and the application around it."""

import threading
import time

import numpy as np
import pytest
from PIL.PngImagePlugin import PngInfo
from tiny_detector import cnn, detector, tuning
from web_client import wait_for

from cnnsvm.data.encoding import encode_image
from cnnsvm.report.judging import Judge


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    images = list(np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), dtype=np.uint8))
    model = detector(cnn(finetune=tuning("head", epochs=1)), max_error=0.4)
    model.fit(images, [0, 1] * 6)
    return model.save_pretrained(tmp_path_factory.mktemp("served") / "model")


@pytest.fixture(scope="session")
def judge(saved):
    return Judge(str(saved), device="cpu")


@pytest.fixture(scope="session")
def png():
    """Return the bytes of one of many PNG files of 70x64 pixels."""

    def make(seed=0, size=(64, 70)):
        pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
        return encode_image(pixels, "PNG")

    return make


@pytest.fixture(scope="session")
def named():
    """Return the bytes of a PNG file whose metadata name a generator."""
    text = PngInfo()
    text.add_text("parameters", "a painting\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1")
    pixels = np.random.default_rng(0).integers(0, 256, (64, 70, 3), dtype=np.uint8)
    return encode_image(pixels, "PNG", pnginfo=text)


@pytest.fixture
def slow(judge, monkeypatch):
    """Make the judge wait until it is let go; how many wait, and the most that did at once."""
    gate, seen = threading.Event(), {"now": 0, "most": 0}
    rows = judge.rows

    def wait(images):
        seen["now"] += 1
        seen["most"] = max(seen["most"], seen["now"])
        gate.wait(10)
        time.sleep(0.005)
        seen["now"] -= 1
        return rows(images)

    monkeypatch.setattr(judge, "rows", wait)
    yield gate, seen
    gate.set()


@pytest.fixture
def client(judge):
    """Return clients of applications with limits of one's own."""
    from fastapi.testclient import TestClient

    from cnnsvm.web.app import make_app
    from cnnsvm.web.limits import Limits

    opened = []

    def make(token=None, load=lambda: judge, **limits):
        app = make_app(load, limits=Limits(**limits), token=token, hosts=["testserver"])
        opened.append(TestClient(app).__enter__())
        if load() is judge:
            wait_for(lambda: app.state.service.judge is not None)
        return opened[-1]

    yield make
    for each in opened:
        each.__exit__(None, None, None)
