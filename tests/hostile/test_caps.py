"""The cap of pixels is a parameter wherever images are judged, and holds before any is decoded."""

import os

import numpy as np
import pytest
from PIL import Image
from tiny_detector import cnn, detector

from cnnsvm import CombinedDetector, InpaintLocalizer
from cnnsvm.cli import main
from cnnsvm.data import images as images_module
from cnnsvm.data.decoding import CAP_VARIABLE
from cnnsvm.data.images import ImageError


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("image") / "a.png"
    pixels = np.random.default_rng(0).integers(0, 256, (90, 100, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def judges():
    given = list(np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), dtype=np.uint8))
    fitted = detector(cnn(finetune="none")).fit(given, [0, 1] * 6)
    combined = CombinedDetector.from_pretrained("cpu")
    localizer = InpaintLocalizer.from_pretrained().set_params(device="cpu")
    return {
        "detector": fitted.judge,
        "transform": fitted.transform,
        "combined": combined.explain,
        "region": combined.region.judge,
        "region map": lambda X: combined.region.explain(X[0]),
        "heatmap": lambda X: combined.trace.explain(X[0]),
        "localizer": localizer.predict_proba,
        "masks": localizer.predict,
        "score": lambda X: localizer.score(X, [None] * len(X)),
    }, (fitted, combined, combined.region, combined.trace, localizer)


@pytest.mark.parametrize(
    "name",
    [
        *("detector", "transform", "combined", "region", "region map", "heatmap"),
        *("localizer", "masks", "score"),
    ],
)
def test_max_pixels_holds_before_anything_is_decoded(name, judges, image, monkeypatch):
    calls, owners = judges
    for owner in owners:
        owner.set_params(max_pixels=8999)
    with monkeypatch.context() as patch:
        patch.setattr(images_module, "to_rgb", pytest.fail)
        with pytest.raises(ImageError, match="100x90 is 9,000 pixels, more than the cap of 8,999"):
            calls[name]([image])
    for owner in owners:
        owner.set_params(max_pixels=9000)
    calls[name]([image])


def test_the_command_line_has_it_too(image, tmp_path, capsys):
    assert main(["predict", str(image), "--max-pixels", "8999"]) == 2
    assert "more than the cap of 8,999" in capsys.readouterr().out
    assert main(["localize", str(image), str(tmp_path / "out"), "--max-pixels", "8999"]) == 1
    assert "8,999" in (tmp_path / "out" / "localize.csv").read_text()
    assert main(["predict", str(image), "--max-pixels", "9000", "--model", "cifake"]) < 2


@pytest.mark.parametrize("command", ["audit", "build", "cv", "explore", "fit"])
def test_a_data_set_has_it_too(command, tmp_path, capsys):
    data, out = tmp_path / "data", tmp_path / "out"
    for number in range(12):
        path = data / ("real", "fake")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    places = {
        "audit": [str(data)],
        "build": [str(data / "real"), str(out)],
        "fit": [str(data), str(out)],
    }
    given = [command, *places.get(command, ["--data", str(data), "--out", str(out)])]
    status = main([*given, "--max-pixels", "1599"])
    assert bool(status) != (command == "explore")  # which shows whatever is there
    assert "1,599" in "".join(capsys.readouterr())


@pytest.mark.parametrize("cap", ["0", "-1", str(10**13)])
def test_a_cap_that_is_none_is_refused(cap, image, capsys):
    assert main(["predict", str(image), "--max-pixels", cap]) == 3
    assert cap in capsys.readouterr().err
    assert CAP_VARIABLE not in os.environ


def test_a_cap_belongs_to_a_machine_and_is_not_saved(tmp_path, judges):
    _, (fitted, *_, localizer) = judges
    for model in (fitted, localizer):
        model.set_params(max_pixels=77)
        saved = model.save_pretrained(tmp_path / type(model).__name__)
        assert type(model).from_pretrained(saved).max_pixels is None


def test_training_images_beyond_the_usual_cap_are_read_if_it_is_raised(monkeypatch, tmp_path):
    paths = []
    for seed in range(12):
        pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        paths.append(tmp_path / f"{seed}.png")
        Image.fromarray(pixels).save(paths[-1])
    monkeypatch.setenv(CAP_VARIABLE, str(64 * 64 - 1))
    model = detector(cnn(finetune="none"), max_pixels=64 * 64 - 1)
    with pytest.raises(ImageError, match="cap"):
        model.fit(paths, [0, 1] * 6)
    model.set_params(max_pixels=64 * 64).fit(paths, [0, 1] * 6)
    assert len(model.predict(paths)) == 12
