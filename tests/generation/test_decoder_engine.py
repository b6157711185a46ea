import json
import shutil

import numpy as np
import pytest
import torch
from generation_helpers import noise as plain_noise
from generation_helpers import right_half as hole

from cnnsvm.data.images import ImageError
from cnnsvm.generation import build
from cnnsvm.generation.engines import EngineError, Task, get_engine
from cnnsvm.generation.engines.decoder import (
    LEVELS,
    N_STEPS,
    decoder_engine,
    load_decoder,
    read_training,
    renoise,
    save_decoder,
)
from cnnsvm.generation.engines.decoder_networks import Autoencoder, DecoderSpec, Denoiser
from cnnsvm.generation.engines.vae import pad_to
from cnnsvm.io.bundle import read_bundle, write_bundle

SPECS = [
    DecoderSpec("nearest", 8, "kl", "pyramid", width=8),
    DecoderSpec("transposed", 4, "vq", "l1", width=8),
    None,
]
NAMES = ["nearest-8-kl-pyramid", "transposed-4-vq-l1", "denoiser"]


def noise(height=24, width=40, seed=0):
    return plain_noise(height, width, seed)


def make(spec, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Denoiser(8) if spec is None else Autoencoder(spec)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("decoders")
    return {
        name: save_decoder(make(spec), root / name) for name, spec in zip(NAMES, SPECS, strict=True)
    }


@pytest.fixture(scope="module")
def engines(folders):
    return {name: get_engine(f"decoder:{folder}") for name, folder in folders.items()}


@pytest.fixture
def copy(folders, tmp_path):
    return shutil.copytree(folders[NAMES[0]], tmp_path / "copy")


@pytest.mark.parametrize("name", NAMES)
def test_says_what_it_is(engines, folders, name):
    engine = engines[name]
    assert engine.name == f"decoder:{name}"
    digest = read_bundle(folders[name])[0]["files"]["weights.safetensors"]
    assert engine.details["model_revision"] == f"sha256:{digest[:16]}"


def test_revision_follows_the_weights(tmp_path, engines, copy):
    again = decoder_engine(copy)
    assert again.details == engines[NAMES[0]].details
    other = decoder_engine(save_decoder(make(SPECS[0], seed=1), tmp_path / "other"))
    assert other.name == again.name
    assert other.details["model_revision"] != again.details["model_revision"]


@pytest.mark.parametrize(("spec", "name"), list(zip(SPECS, NAMES, strict=True)))
def test_what_was_saved_computes_the_same_to_the_bit(folders, spec, name):
    state = torch.get_rng_state()
    loaded = load_decoder(folders[name])
    assert torch.equal(torch.get_rng_state(), state)
    model = make(spec)
    assert list(loaded.state_dict()) == list(model.state_dict())
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    values = torch.rand(2, 3, 16, 24) * 2 - 1
    more = [] if spec else [torch.tensor([0.2, 0.3])]
    pairs = zip(model(values, *more), loaded(values, *more), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", NAMES[:2])
def test_equals_the_network_fed_with_minus_one_to_one(engines, folders, name):
    image = noise()
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1
    values = load_decoder(folders[name])(pixels)[0][0].permute(1, 2, 0).numpy()
    wanted = np.clip((values + 1) * 127.5, 0, 255)
    assert np.abs(engines[name](image, hole(image)) - wanted).max() <= 0.51  # rounding


@pytest.mark.parametrize("name", NAMES)
def test_float32_even_where_the_caller_computes_in_less(engines, folders, name):
    image = noise()
    exact = engines[name](image, hole(image))
    tf32 = torch.backends.cudnn.allow_tf32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_array_equal(engines[name](image, hole(image)), exact)
    assert torch.backends.cudnn.allow_tf32 == tf32


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 301), (23, 8), (7, 17)])
def test_any_size_is_mirrored_up_to_8_and_cropped(engines, name, size):
    image = noise(*size)
    output = engines[name](image, hole(image), 3)
    mirrored = pad_to(8, image)
    whole = engines[name](mirrored, hole(mirrored), 3)
    np.testing.assert_array_equal(output, whole[: size[0], : size[1]])


class Knowing(Denoiser):
    """Knows the image, so finds exactly the noise; notes the levels it is asked for."""

    def __init__(self, clean):
        super().__init__(8)
        self.clean, self.levels = clean, []

    def forward(self, noisy, level):
        self.levels.append(level)
        angle = level.view(-1, 1, 1, 1) * torch.pi / 2
        return (noisy - angle.cos() * self.clean) / angle.sin()


def test_a_perfect_denoiser_gives_the_image_back_from_levels_that_fall_to_none():
    clean = torch.rand(5, 3, 8, 8) * 2 - 1
    model = Knowing(clean)
    torch.testing.assert_close(renoise(model, clean, range(5)), clean, atol=1e-5, rtol=0)
    levels = torch.stack(model.levels)
    start = levels[0]
    assert len(levels) == N_STEPS
    assert LEVELS[0] <= start.min() < start.max() <= LEVELS[1]
    shares = torch.arange(N_STEPS, 0, -1) / N_STEPS
    torch.testing.assert_close(levels, shares[:, None] * start)


def test_what_is_denoised_keeps_the_variance_of_its_level():
    seen = []

    class Blind(Denoiser):
        def forward(self, noisy, level):
            seen.append(noisy)
            noise = torch.Generator().manual_seed(len(seen))
            return torch.randn(noisy.shape, generator=noise)

    model = Blind(8)
    with torch.inference_mode():
        renoise(model, torch.zeros(1, 3, 128, 128), [0])
    draw = torch.Generator().manual_seed(0)
    start = LEVELS[0] + (LEVELS[1] - LEVELS[0]) * float(torch.rand((), generator=draw))
    assert float(seen[0].std()) == pytest.approx(np.sin(start * np.pi / 2), rel=0.02)


def test_levels_cover_the_range():
    model = Knowing(torch.zeros(200, 3, 4, 4))
    renoise(model, torch.zeros(200, 3, 4, 4), range(200))
    start = model.levels[0]
    assert start.min() < LEVELS[0] + 0.01
    assert start.max() > LEVELS[1] - 0.01


def test_pixels_in_one_pass_are_bounded(folders, monkeypatch):
    engine = decoder_engine(folders[NAMES[0]], batch_size=8, max_pixels=1000)
    encoder, sizes = engine.repaint.__self__.model.encoder, []
    encoder.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    outputs = engine.repaint_all([Task(noise(20, 20), hole(noise(20, 20)))] * 5)
    assert sizes == [2, 2, 1]
    assert all(output.shape == (20, 20, 3) for output in outputs)
    with pytest.raises(ImageError, match=r"40x30 is 1,200 pixels.*\(1,000\).*max_pixels"):
        engine(noise(30, 40), np.ones((30, 40), bool))


def test_options_are_read_from_the_name(folders):
    engine = get_engine(f"decoder:{folders['denoiser']}?device=cpu&batch_size=2&max_pixels=99")
    assert (engine.batch_size, engine.repaint.__self__.max_pixels) == (2, 99)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("?precision=bfloat16", "cannot read the option 'precision=bfloat16'.*device, batch_size"),
        ("?batch_size=0", "batch_size must be a whole number from 1 to 1024, got 0"),
        ("?max_pixels=0", "max_pixels must be .* got 0"),
        ("?device=gpu", "'gpu'"),
    ],
)
def test_bad_option_says_why(folders, options, message):
    with pytest.raises(EngineError, match=message):
        get_engine(f"decoder:{folders['denoiser']}{options}")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("", "needs a folder, as in decoder:/path"),
        ("nowhere", r"nowhere holds no saved model.*train_decoders.py"),
        ("nowhere@main", "nowhere@main holds no saved model"),
    ],
)
def test_no_folder_says_why(argument, message):
    with pytest.raises(EngineError, match=message):
        get_engine(f"decoder:{argument}")


def flip_a_byte(folder):
    file = folder / "weights.safetensors"
    raw = bytearray(file.read_bytes())
    raw[-9] ^= 1
    file.write_bytes(bytes(raw))


def edit_config(folder):
    file = folder / "config.json"
    file.write_text(file.read_text().replace('"nearest"', '"bilinear"'))


def rewrite(folder, change):
    """Save it again as a sound bundle of other content."""
    config, arrays = read_bundle(folder)
    config = {key: config[key] for key in ("kind", "model", "training")}
    change(config, arrays)
    write_bundle(folder, config, arrays)


def changed(**values):
    return lambda folder: rewrite(folder, lambda config, arrays: config.update(values))


def changed_spec(**values):
    return lambda folder: rewrite(folder, lambda config, arrays: config["model"].update(values))


def drop_a_weight(config, arrays):
    del arrays["weights"]["bottleneck.inwards.bias"]


def break_a_weight(config, arrays):
    arrays["weights"]["bottleneck.inwards.bias"][0] = np.nan


DAMAGE = {
    "a byte of the weights": (flip_a_byte, "has changed since it was saved"),
    "the description": (edit_config, "has changed since it was saved"),
    "no weights": (lambda f: (f / "weights.safetensors").unlink(), "is missing"),
    "no JSON": (lambda f: (f / "config.json").write_text("{"), "not a model's description"),
    "another kind": (changed(kind="InpaintDetector"), "kind 'InpaintDetector', not 'decoder'"),
    "unknown upsampling": (changed_spec(upsampling="cubic"), "upsampling must be .*'cubic'"),
    "unknown key": (changed_spec(depth=3), "unexpected keyword argument 'depth'"),
    "other sides": (changed_spec(factor=4), "Missing key|Unexpected key|size mismatch"),
    "other width": (changed_spec(width=16), "size mismatch"),
    "no spec": (changed(model=None), "no generator in"),
    "denoiser without width": (changed(model="denoiser"), "width"),
    "a weight less": (lambda f: rewrite(f, drop_a_weight), "bottleneck.inwards.bias"),
    "a weight that is none": (lambda f: rewrite(f, break_a_weight), "no finite number"),
    "other arrays": (lambda f: rewrite(f, lambda c, a: a.clear()), "weights"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_damaged_folder_says_why(copy, damage, message):
    damage(copy)
    with pytest.raises(EngineError, match=message) as caught:
        get_engine(f"decoder:{copy}")
    assert "copy" in str(caught.value)
    assert "again" in str(caught.value)


def test_only_generators_are_replaced(tmp_path, copy):
    before = read_bundle(copy)[1]["weights"]["encoder.0.weight"]
    save_decoder(make(SPECS[0], seed=1), copy, {"seed": 1})
    assert (read_bundle(copy)[1]["weights"]["encoder.0.weight"] != before).any()
    assert read_training(copy) == {"seed": 1}
    write_bundle(tmp_path / "detector", {"kind": "InpaintDetector"}, {})
    (tmp_path / "letters").mkdir()
    for name, message in (("detector", "another kind"), ("letters", "not overwritten")):
        with pytest.raises(EngineError, match=message):
            save_decoder(make(None), tmp_path / name)
    with pytest.raises(EngineError, match="kind 'InpaintDetector'"):
        read_training(tmp_path / "detector")
    with pytest.raises(EngineError, match="no saved model"):
        read_training(tmp_path / "letters")


def test_weights_that_are_no_numbers_are_not_saved(tmp_path):
    model = make(None)
    model.enter.bias[0] = torch.inf
    with pytest.raises(EngineError, match=r"denoiser to save: 1 weight.*enter.bias"):
        save_decoder(model, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_description_is_plain(folders):
    config = json.loads((folders[NAMES[0]] / "config.json").read_text())
    assert config["model"] == {
        "upsampling": "nearest",
        "factor": 8,
        "bottleneck": "kl",
        "loss": "pyramid",
        "width": 8,
    }
    assert json.loads((folders["denoiser"] / "config.json").read_text())["model"] == "denoiser"


def test_records_tell_the_generator(tmp_path, photos, engines):
    made = build(
        photos, tmp_path / "out", engine=engines["denoiser"], schemas="left", variants="both"
    )
    fakes = made[made["label"] == 1]
    assert set(fakes["variant"]) == {"spliced", "regenerated"}
    assert set(fakes["engine"]) == {"decoder:denoiser"}
    assert set(fakes["model_revision"]) == {engines["denoiser"].details["model_revision"]}
