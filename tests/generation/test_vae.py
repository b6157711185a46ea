import json
import logging
import shutil
import sys

import numpy as np
import pytest
import torch
from generation_helpers import noise as plain_noise
from generation_helpers import right_half as hole
from tiny_models import make_tiny_pipeline, make_tiny_vae

from cnnsvm.data.images import ImageError
from cnnsvm.generation.engines import EngineError, Task, get_engine, vae
from cnnsvm.generation.engines.pretrained import move
from cnnsvm.generation.engines.vae import as_output, pad_to, vae_engine


def noise(height=48, width=64, seed=0):
    return plain_noise(height, width, seed)


def tasks_of(*images):
    return [Task(image, hole(image)) for image in images]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("autoencoders")
    make_tiny_vae(root / "kl")
    make_tiny_vae(root / "tiny", tiny=True)
    return {"kl": root / "kl", "tiny": root / "tiny"}


@pytest.fixture(scope="module")
def engine(folders):
    return get_engine(f"vae:{folders['kl']}")


@pytest.fixture
def copy(folders, tmp_path):
    return shutil.copytree(folders["kl"], tmp_path / "copy")


def reference(folder, kind, image, low=-1.0):
    """Encode and decode with diffusers itself, the pixels scaled to [low, 1]."""
    import diffusers

    network = getattr(diffusers, kind).from_pretrained(folder)
    scaled = torch.from_numpy(image).permute(2, 0, 1)[None] / 255 * (1 - low) + low
    with torch.inference_mode():
        encoded = network.encode(scaled)
        latents = encoded.latent_dist.mode() if kind == "AutoencoderKL" else encoded.latents
        decoded = network.decode(latents).sample[0].permute(1, 2, 0).numpy()
    return np.clip((decoded - low) / (1 - low), 0, 1) * 255


@pytest.mark.parametrize(("key", "kind"), [("kl", "AutoencoderKL"), ("tiny", "AutoencoderTiny")])
def test_equals_diffusers_fed_with_minus_one_to_one(folders, key, kind):
    image = noise()
    output = get_engine(f"vae:{folders[key]}")(image, hole(image))
    assert output.dtype == np.uint8
    assert np.abs(output - reference(folders[key], kind, image)).max() <= 0.51  # rounding
    off = np.abs(output - reference(folders[key], kind, image, low=0.0))
    assert off.mean() > 1  # what feeding [0, 1] would give


@pytest.mark.parametrize("key", ["kl", "tiny"])
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (9, 23), (47, 64)])
def test_any_size_is_mirrored_up_to_the_stride_and_cropped(folders, key, size):
    image = noise(*size)
    engine = get_engine(f"vae:{folders[key]}")
    output = engine(image, hole(image))
    assert output.shape == image.shape
    mirrored = np.pad(image, [(0, -size[0] % 8), (0, -size[1] % 8), (0, 0)], mode="symmetric")
    whole = engine(mirrored, hole(mirrored))
    np.testing.assert_array_equal(output, whole[: size[0], : size[1]])


def test_pixels_in_one_pass_are_bounded(folders, monkeypatch):
    engine = vae_engine(str(folders["kl"]), batch_size=8, max_pixels=1000)
    network = engine.repaint.__self__.network
    sizes = []
    encode = network.encode
    monkeypatch.setattr(network, "encode", lambda x: (sizes.append(len(x)), encode(x))[1])
    outputs = engine.repaint_all(tasks_of(*(noise(20, 20, seed) for seed in range(5))))
    assert sizes == [2, 2, 1]
    assert all(output.shape == (20, 20, 3) for output in outputs)
    with pytest.raises(ImageError, match=r"40x30 is 1,200 pixels.*\(1,000\).*max_pixels"):
        engine(noise(30, 40), np.ones((30, 40), bool))


def test_found_in_a_pipeline_and_by_name(tmp_path, folders):
    folder = make_tiny_pipeline(tmp_path / "pipeline")
    image = noise()
    found = get_engine(f"vae:{folder}")
    named = get_engine(f"vae:{folder}?subfolder=vae")
    assert found.name == named.name == "vae:pipeline"
    assert found.details == named.details
    np.testing.assert_array_equal(found(image, hole(image)), named(image, hole(image)))
    with pytest.raises(EngineError, match=r"'UNet2DConditionModel'.*AutoencoderKL and Autoenc"):
        get_engine(f"vae:{folder}?subfolder=unet")


def test_revision_follows_the_content_wherever_it_lies(folders, copy):
    original = get_engine(f"vae:{folders['kl']}").details["model_revision"]
    assert original.startswith("sha256:")
    assert get_engine(f"vae:{copy}").details["model_revision"] == original
    make_tiny_vae(copy, seed=1)
    assert get_engine(f"vae:{copy}").details["model_revision"] != original


def test_bfloat16_on_a_cpu_if_asked(folders):
    image = noise()
    engine = get_engine(f"vae:{folders['kl']}?precision=bfloat16")
    assert engine.details["precision"] == "bfloat16"
    exact = get_engine(f"vae:{folders['kl']}")(image, hole(image)).astype(int)
    assert 0 < np.abs(engine(image, hole(image)) - exact).mean() < 8


@pytest.mark.parametrize(("key", "expected"), [("kl", "float32"), ("tiny", "bfloat16")])
def test_half_precision_is_automatic_only_where_the_model_bears_it(
    folders, monkeypatch, key, expected
):
    half = (torch.device("cpu"), torch.bfloat16, 1)  # as if the device had half precision
    monkeypatch.setattr(vae, "choose_place", lambda *settings: half)
    assert vae_engine(str(folders[key])).details["precision"] == expected
    assert vae_engine(str(folders[key]), precision="float16").details["precision"] == "bfloat16"


def test_values_that_are_no_numbers_are_a_bad_image_not_a_black_one(engine, monkeypatch):
    network = engine.repaint.__self__.network
    decode = network.decode

    def broken(latents):
        decoded = decode(latents)
        decoded.sample[0] = torch.nan
        return decoded

    monkeypatch.setattr(network, "decode", broken)
    with pytest.raises(ImageError, match=r"not finite.*precision='float32'"):
        engine(noise(), hole(noise()))


def test_batch_that_does_not_fit_is_halved_and_one_that_does_not_is_named(
    folders, monkeypatch, caplog
):
    engine = vae_engine(str(folders["kl"]), batch_size=5)
    network = engine.repaint.__self__.network
    encode, limit, sizes = network.encode, [2], []

    def short_of_memory(pixels):
        sizes.append(len(pixels))
        if len(pixels) > limit[0]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(pixels)

    freed = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: freed.append(sys.exc_info()[0]))
    monkeypatch.setattr(network, "encode", short_of_memory)
    tasks = tasks_of(*(noise(16, 16, seed) for seed in range(5)))
    with caplog.at_level(logging.WARNING):
        outputs = engine.repaint_all(tasks)
    assert sizes == [5, 2, 3, 1, 2]
    assert freed == [None, None]  # outside the handler, whose traceback holds on to the tensors
    assert "5 images of 16x16 do not fit" in caplog.text
    for task, output in zip(tasks, outputs, strict=True):
        assert np.abs(engine(task.image, task.mask).astype(int) - output).max() <= 1
    limit[0] = 0
    with pytest.raises(ImageError, match=r"one image of 16x16.*smaller working size.*device"):
        engine(tasks[0].image, tasks[0].mask)


def test_another_failure_of_the_network_stops_the_build(engine, monkeypatch):
    def fail(pixels):
        raise RuntimeError("mat1 and mat2\ncannot be multiplied")

    monkeypatch.setattr(engine.repaint.__self__.network, "encode", fail)
    with pytest.raises(EngineError, match=r"fails on 64x48 pixels \(mat1 and mat2 cannot"):
        engine(noise(), hole(noise()))


def test_model_that_does_not_fit_is_named():
    class Large:
        def to(self, place):
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(EngineError, match=r"memory of cuda:0 .*device='cpu'"):
        move(Large(), torch.device("cuda:0"))


def change_config(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def only_bin(folder):
    weights = folder / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))


def truncate(folder):
    weights = folder / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-500])


def drop_a_weight(folder):
    from safetensors.torch import load_file, save_file

    weights = folder / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    del state["decoder.conv_in.weight"]
    save_file(state, weights, {"format": "pt"})


DAMAGE = {
    "no config": (lambda f: (f / "config.json").unlink(), r"no config.json in .* or .*vae"),
    "broken config": (lambda f: (f / "config.json").write_text("{"), "cannot be read"),
    "config of a list": (lambda f: (f / "config.json").write_text("[1]"), "cannot be read"),
    "another class": (lambda f: change_config(f, _class_name="VQModel"), "config of 'VQModel'"),
    "no class": (lambda f: change_config(f, _class_name=None), "config of None"),
    "grey images": (lambda f: change_config(f, in_channels=1), r"3 channels in and out.*\(1, 3\)"),
    "no weights": (
        lambda f: (f / "diffusion_pytorch_model.safetensors").unlink(),
        "no .safetensors weights",
    ),
    "only .bin": (only_bin, "only .bin weights.*can run code"),
    "cut off": (truncate, "AutoencoderKL cannot be read"),
    "a weight less": (drop_a_weight, r"1 weight\(s\) .* missing, such as decoder.conv_in.weight"),
    "other widths": (lambda f: change_config(f, latent_channels=8), "cannot be read"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_folder_that_is_no_autoencoder_says_why(copy, damage, message):
    damage(copy)
    with pytest.raises(EngineError, match=message) as caught:
        get_engine(f"vae:{copy}")
    assert "copy" in str(caught.value)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("", "needs a model.*vae:sd2-community"),
        ("?subfolder=vae", "needs a model"),
        ("owner/name?tile=1", "'tile=1'.*subfolder.*max_pixels"),
        ("owner/name?batch_size=0", "batch_size must be a whole number from 1 to 1024, got 0"),
        ("owner/name?max_pixels=0", "max_pixels must be .* got 0"),
        ("owner/name?precision=float16", "needs CUDA"),
        ("owner/name?precision=half", "got 'half'"),
        ("owner/name?device=gpu", "'gpu'"),
    ],
)
def test_bad_argument_says_why(argument, message):
    with pytest.raises(EngineError, match=message):
        get_engine(f"vae:{argument}")


def test_padding_mirrors_image_and_mask_alike():
    image, mask = noise(5, 3), np.arange(15).reshape(5, 3) > 6
    padded, padded_mask = pad_to(4, image), pad_to(4, mask)
    assert (padded.shape, padded_mask.shape) == ((8, 4, 3), (8, 4))
    np.testing.assert_array_equal(padded[5:, :3], image[:1:-1])
    np.testing.assert_array_equal(padded_mask[:5, 3], mask[:, 2])
    np.testing.assert_array_equal(pad_to(1, image), image)


def test_outputs_are_rounded_and_clipped():
    values = np.full((8, 8, 3), 127.6 / 255)
    values[0, 0] = (-0.2, 1.3, 0.4999 / 255)
    output = as_output(values, noise(1, 2))
    assert output.tolist() == [[[0, 255, 0], [128, 128, 128]]]


def test_black_is_an_error_unless_the_image_is_dark():
    black = np.zeros((8, 8, 3))
    assert isinstance(as_output(black, noise(8, 8)), ImageError)
    assert as_output(black, np.full((8, 8, 3), 2, np.uint8)).max() == 0
