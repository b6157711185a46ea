"""What every engine keeps to, and what the OpenCV engines do."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from generation_helpers import noise, right_half
from tiny_models import make_tiny_pipeline, make_tiny_vae

from cnnsvm.data.images import ImageError
from cnnsvm.data.mask_shapes import MASK_SCHEMAS
from cnnsvm.generation.engines import ENGINES, Engine, EngineError, Task, get_engine, one_by_one
from cnnsvm.generation.engines.decoder import save_decoder
from cnnsvm.generation.engines.decoder_networks import Autoencoder, DecoderSpec, Denoiser

#: Name of each engine in the folder of `models`, and what decides its output: mask, seed or both.
CONTRACT = {
    "opencv-telea": "mask",
    "opencv-ns:5": "mask",
    "self-blend": "seed",
    "vae:{}/kl": "",
    "vae:{}/tiny": "",
    "diffusion:{}/pipeline?steps=2": "mask seed",
    "decoder:{}/nearest": "",
    "decoder:{}/vq": "",
    "decoder:{}/denoiser": "seed",
}
SIZES = [(1, 40), (7, 17), (48, 64), (50, 61)]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    make_tiny_vae(root / "kl")
    make_tiny_vae(root / "tiny", tiny=True)
    make_tiny_pipeline(root / "pipeline")
    specs = {"nearest": ("nearest", 8, "kl", "pyramid"), "vq": ("transposed", 4, "vq", "l1")}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name, spec in specs.items():
            save_decoder(Autoencoder(DecoderSpec(*spec, width=8)), root / name)
        save_decoder(Denoiser(8), root / "denoiser")
    return root


@pytest.fixture(scope="module", params=CONTRACT)
def contract(request, models):
    """An engine and what decides its output."""
    return get_engine(request.param.format(models)), CONTRACT[request.param].split()


def test_every_engine_keeps_the_contract_but_the_one_of_files():
    assert {name.partition(":")[0] for name in CONTRACT} == set(ENGINES) - {"file"}


@pytest.mark.parametrize("size", SIZES)
def test_output_has_the_shape_of_the_image_which_stays(contract, size):
    image = noise(*size)
    before = image.copy()
    output = contract[0](image, right_half(image), 3)
    assert (output.shape, output.dtype) == (image.shape, np.uint8)
    np.testing.assert_array_equal(image, before)


def test_the_task_alone_decides_and_torchs_generator_stays(contract):
    engine, decides = contract
    image = noise(48, 64)
    mask, top = right_half(image), MASK_SCHEMAS["top"](48, 64, np.random.default_rng(0))
    first = engine(image, mask, 2**32 - 1)
    torch.rand(5)
    state = torch.get_rng_state()
    np.testing.assert_array_equal(first, engine(image, mask, 2**32 - 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert (first != engine(image, mask, 7)).any() == ("seed" in decides)
    assert (first != engine(image, top, 2**32 - 1)).any() == ("mask" in decides)
    assert engine.uses_mask or "mask" not in decides


def test_a_batch_equals_one_by_one(contract):
    engine = contract[0]
    images = [noise(20, 30, seed) for seed in range(4)]
    tasks = [Task(image, right_half(image), seed) for seed, image in enumerate(images)]
    for task, output in zip(tasks, replace(engine, batch_size=3).repaint_all(tasks), strict=True):
        alone = engine(task.image, task.mask, task.seed)
        assert np.abs(alone.astype(int) - output).max() <= 1


def test_details_are_text_and_models_are_described(contract):
    engine, _ = contract
    assert all(isinstance(value, str) for value in engine.details.values())
    if ":" in engine.name and not engine.name.startswith("opencv"):
        assert engine.name.endswith(f":{engine.details['model_id']}")
        assert engine.details["model_revision"].startswith("sha256:")
        assert engine.details["precision"] == "float32"
        assert engine.uses_mask == (engine.prompt is not None) == (engine.size is not None)
        assert not engine.parallel


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)


@pytest.fixture
def mask():
    return MASK_SCHEMAS["random_patches"](40, 56, np.random.default_rng(1))


@pytest.mark.parametrize("name", ["opencv-telea", "opencv-ns", "opencv-telea:5", "opencv-ns:1"])
def test_opencv_repaints_the_hole_and_only_the_hole(name, image, mask):
    before = image.copy()
    output = get_engine(name)(image, mask, 0)
    np.testing.assert_array_equal(output[~mask], image[~mask])
    assert (output[mask] != image[mask]).any(axis=1).mean() > 0.95
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("name", ["opencv-telea", "opencv-ns"])
@pytest.mark.parametrize("schema", MASK_SCHEMAS)
def test_opencv_does_not_see_what_was_in_the_hole(name, schema, image):
    mask = MASK_SCHEMAS[schema](40, 56, np.random.default_rng(1))
    other = image.copy()
    other[mask] = 255 - other[mask]
    np.testing.assert_array_equal(*(get_engine(name)(x, mask, 0) for x in (image, other)))


def test_opencv_refuses_a_hole_without_a_rim(image):
    with pytest.raises(ImageError, match="outside the mask"):
        get_engine("opencv-ns")(image, np.ones((40, 56), bool), 0)


def test_opencv_does_the_same_whatever_the_seed_and_the_order_of_channels(image, mask):
    for name in ("opencv-telea", "opencv-ns"):
        engine = get_engine(name)
        np.testing.assert_array_equal(engine(image, mask, 0), engine(image, mask, 7))
        flipped = engine(np.ascontiguousarray(image[:, :, ::-1]), mask, 0)[:, :, ::-1]
        np.testing.assert_array_equal(flipped, engine(image, mask, 0))


def test_methods_and_radii_differ(image, mask):
    outputs = [get_engine(n)(image, mask, 0) for n in ("opencv-telea", "opencv-ns")]
    outputs.append(get_engine("opencv-telea:9")(image, mask, 0))
    assert (outputs[0] != outputs[1]).any()
    assert (outputs[0] != outputs[2]).any()


def test_name_says_the_radius_unless_it_is_the_default():
    names = ("opencv-telea", "opencv-telea:3", "opencv-ns:05")
    assert [get_engine(name).name for name in names] == [
        "opencv-telea",
        "opencv-telea",
        "opencv-ns:5",
    ]


def test_engine_passes_through():
    engine = Engine("mine", one_by_one(lambda image, mask, seed: image))
    assert get_engine(engine) is engine


def test_unknown_engine_lists_what_there_is():
    with pytest.raises(EngineError, match=r"'magic'.*opencv-ns, opencv-telea"):
        get_engine("magic")


@pytest.mark.parametrize("radius", ["0", "101", "-1", "3.5", "x"])
def test_bad_radius_is_refused(radius):
    with pytest.raises(EngineError, match="1 to 100"):
        get_engine(f"opencv-telea:{radius}")


def test_prefix_chooses_the_factory_and_the_rest_is_its_argument(monkeypatch):
    made = []

    def factory(argument):
        made.append(argument)
        repaint = one_by_one(lambda image, mask, seed: image)
        return Engine(f"vae:{argument}", repaint, {"model_id": argument})

    monkeypatch.setitem(ENGINES, "vae", factory)
    assert get_engine("vae:owner/model:v2").details == {"model_id": "owner/model:v2"}
    assert made == ["owner/model:v2"]


@pytest.mark.parametrize(
    "output", [np.zeros((4, 4, 3)), np.zeros((4, 5, 3), np.uint8), np.zeros((4, 4), np.uint8), None]
)
def test_wrong_output_names_the_engine(output):
    engine = Engine("broken", one_by_one(lambda image, mask, seed: output))
    with pytest.raises(EngineError, match=r"'broken' must return uint8 \(4, 4, 3\)"):
        engine(np.zeros((4, 4, 3), np.uint8), np.eye(4, dtype=bool), 0)


@pytest.mark.parametrize("mask", [np.ones((4, 5), bool), np.ones((4, 4), np.uint8)])
def test_mask_that_does_not_fit_is_refused(mask):
    with pytest.raises(EngineError, match="a mask for an image"):
        get_engine("opencv-ns")(np.zeros((4, 4, 3), np.uint8), mask, 0)


def test_engine_that_writes_into_its_input_cannot_reach_the_callers_image():
    def scribble(image, mask, seed):
        image[mask] = 9
        return image

    image = np.zeros((4, 4, 3), np.uint8)
    assert Engine("scribbler", one_by_one(scribble))(image, np.eye(4, dtype=bool)).max() == 9
    assert image.max() == 0
