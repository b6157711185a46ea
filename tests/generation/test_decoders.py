import itertools

import numpy as np
import pytest
import torch
from torch import nn

from cnnsvm.generation.engines.decoder_networks import (
    BOTTLENECKS,
    CODE_DIM,
    FACTORS,
    LOSSES,
    UPSAMPLINGS,
    Autoencoder,
    DecoderSpec,
    Denoiser,
)
from decoders import training as decoder_training
from decoders.training import (
    read_images,
    signal_and_noise,
    train_autoencoder,
    train_denoiser,
)

CPU = torch.device("cpu")
SPECS = [
    DecoderSpec(*values, width=8)
    for values in itertools.product(UPSAMPLINGS, FACTORS, BOTTLENECKS, LOSSES[:1])
]


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch):
    monkeypatch.setattr(decoder_training, "BATCH", 4)


def small(upsampling="nearest", factor=8, bottleneck="kl", loss="l1"):
    return DecoderSpec(upsampling, factor, bottleneck, loss, width=8)


def draw_images(n=3):
    """Smooth colours, which a small network learns in a few steps."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 1, 72)[:, None, None] * np.ones((72, 80, 1))
    return [np.uint8(rng.uniform(0, 90, 3) + ramp * rng.uniform(0, 160, 3)) for _ in range(n)]


def as_values(images):
    cut = np.stack([image[:64, :64] for image in images])
    return torch.from_numpy(cut).permute(0, 3, 1, 2).float() / 127.5 - 1


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_output_has_the_shape_and_every_parameter_a_gradient(spec):
    torch.manual_seed(0)
    model = Autoencoder(spec).train()
    images = torch.rand(2, 3, 16, 24) * 2 - 1
    made, penalty = model(images)
    assert made.shape == images.shape
    assert made.isfinite().all()
    ((made - images).abs().mean() + penalty).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_denoiser_has_the_shape_and_every_parameter_a_gradient():
    torch.manual_seed(0)
    model = Denoiser(8)
    images = torch.randn(2, 3, 8, 12)
    made = model(images, torch.tensor([0.1, 0.9]))
    assert made.shape == images.shape
    made.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
@pytest.mark.parametrize("factor", FACTORS)
def test_the_decoder_enlarges_as_its_name_says_and_as_often(upsampling, factor):
    decoder = Autoencoder(small(upsampling, factor)).decoder
    enlarging = (nn.Upsample, nn.ConvTranspose2d, nn.PixelShuffle)
    used = [module for module in decoder.modules() if isinstance(module, enlarging)]
    assert 2 ** len(used) == factor
    kind = {"transposed": nn.ConvTranspose2d, "pixelshuffle": nn.PixelShuffle}
    assert {type(module) for module in used} == {kind.get(upsampling, nn.Upsample)}
    if upsampling not in kind:
        assert {module.mode for module in used} == {upsampling}


@pytest.mark.parametrize("factor", FACTORS)
def test_the_latent_is_smaller_by_the_factor(factor):
    model = Autoencoder(small(factor=factor))
    assert model.encoder(torch.zeros(1, 3, 32, 48)).shape[2:] == (32 // factor, 48 // factor)


@pytest.mark.parametrize("factor", FACTORS)
def test_vq_decodes_vectors_of_the_codebook_and_the_nearest(factor):
    torch.manual_seed(0)
    model = Autoencoder(small(factor=factor, bottleneck="vq")).eval()
    bottleneck = model.bottleneck
    seen = []
    bottleneck.inwards.register_forward_hook(lambda module, args, output: seen.append(output))
    bottleneck.outwards.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    with torch.inference_mode():
        model(torch.rand(2, 3, 16, 24) * 2 - 1)
    latent, quantised = (
        x.unflatten(1, (bottleneck.n_groups, CODE_DIM)).permute(1, 0, 3, 4, 2).flatten(1, 3)
        for x in seen
    )
    for group, codes in enumerate(bottleneck.codes):
        equal = (quantised[group][:, None] == codes).all(dim=2)
        assert equal.any(dim=1).all()
        nearest = (latent[group][:, None] - codes).square().sum(dim=2).argmin(dim=1)
        assert equal[torch.arange(len(nearest)), nearest].all()


def test_kl_is_random_in_training_only():
    torch.manual_seed(0)
    model = Autoencoder(small())
    image = torch.zeros(1, 3, 16, 16)
    with torch.no_grad():
        assert not torch.equal(model(image)[0], model(image)[0])
        model.eval()
        assert torch.equal(model(image)[0], model(image)[0])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("cubic", 8, "kl", "l1"), "upsampling must be one of .*'cubic'"),
        (("nearest", 2, "kl", "l1"), "factor must be one of .*got 2"),
        (("nearest", 8, "ae", "l1"), "bottleneck must be one of"),
        (("nearest", 8, "kl", "l2"), "loss must be one of"),
        (("nearest", 8, "kl", "l1", 20), "width must be a multiple of 8 from 8 to 512, got 20"),
        (("nearest", 8, "kl", "l1", 0), "got 0"),
        (("nearest", 8, "kl", "l1", "24"), "got '24'"),
    ],
)
def test_bad_spec_says_why(values, message):
    with pytest.raises(ValueError, match=message):
        DecoderSpec(*values)


def train(spec, seed, n_steps=3, images=None):
    images = draw_images() if images is None else images
    options = {"n_steps": n_steps, "random_state": seed, "device": CPU}
    if spec is None:
        return train_denoiser(images, width=8, **options)
    return train_autoencoder(spec, images, **options)


@pytest.mark.parametrize(
    "spec",
    [
        small("pixelshuffle"),
        small(bottleneck="vq", loss="pyramid"),
        small(loss="adversarial"),
        None,
    ],
    ids=["kl", "vq", "adversarial", "denoiser"],
)
def test_training_depends_on_the_seed_alone(spec):
    first = train(spec, 1).state_dict()
    torch.manual_seed(99)
    state = torch.get_rng_state()
    second = train(spec, 1).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[key], second[key]) for key in first)
    other = train(spec, 2).state_dict()
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("loss", LOSSES)
def test_an_autoencoder_learns(loss):
    images = draw_images()
    values = as_values(images)

    def error(n_steps):
        model = train(small(loss=loss), 0, n_steps, images)
        return (model(values)[0] - values).abs().mean()

    assert error(30) < 0.5 * error(1)


def test_losses_make_different_weights():
    weights = [
        train(small(loss=loss), 0).state_dict()["decoder.0.layers.2.weight"] for loss in LOSSES
    ]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(weights, 2))


def test_a_denoiser_learns():
    images = draw_images()
    values = as_values(images)
    noise = torch.randn(values.shape, generator=torch.Generator().manual_seed(0))
    level = torch.full((len(values),), 0.5)
    signal, sigma = signal_and_noise(level)

    def error(n_steps):
        model = train(None, 0, n_steps, images)
        found = model(signal * values + sigma * noise, level)
        return (found - noise).square().mean()

    assert error(30) < 0.7 * error(1)


def test_shares_of_image_and_noise():
    signal, sigma = signal_and_noise(torch.linspace(0, 1, 11))
    torch.testing.assert_close(signal**2 + sigma**2, torch.ones(11, 1, 1, 1))
    assert (signal[0], sigma[0]) == (1, 0)
    assert (sigma.diff(dim=0) > 0).all()


@pytest.mark.parametrize(
    ("images", "n_steps", "message"),
    [
        ([], 3, "at least 64 pixels a side, and there is none"),
        ([np.zeros((64, 63, 3), np.uint8)], 3, "and one has 63"),
        (None, 0, "n_steps must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_trained_on_says_why(images, n_steps, message):
    with pytest.raises(ValueError, match=message):
        train(small(), 0, n_steps, images)


def test_images_are_read_and_small_ones_left_out(tmp_path):
    from PIL import Image

    sizes = [(64, 80), (63, 80), (90, 70), (65, 66)]
    paths = [tmp_path / f"{i}.png" for i in range(len(sizes))]
    for path, size in zip(paths, sizes, strict=True):
        Image.new("RGB", size).save(path)
    read = read_images(paths)
    assert [image.shape for image in read] == [(80, 64, 3), (70, 90, 3), (66, 65, 3)]
    assert len(read_images(paths[2:], at_most=1)) == 1
    with pytest.raises(ValueError, match="none of 1 images has at least 64"):
        read_images(paths[1:2])
