"""What every architecture of the localiser must do, in its smallest size."""

import copy

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from cnnsvm.localization.architectures import (
    ARCHITECTURES,
    LEAST,
    STRIDE,
    AnySize,
    build_network,
    mirror_up,
)

SMALLEST = {"fcn_resnet50": {}, "nixnet": {"size": "2m"}, "iidnet": {"size": "small"}}
SIZES = [(1, 1), (7, 33), (65, 40), (32, 48)]


def pixels(n, height, width, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (n, 3, height, width), dtype=np.uint8)
    return torch.from_numpy(values)


def build(name, **options):
    return build_network(name, **(SMALLEST[name] | options))


@pytest.fixture(scope="module", params=SMALLEST)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def network(name):
    """A network in eval mode that knows the statistics of noise: fresh ones flatten it."""
    built = build(name)
    norms = [module for module in built.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        built(pixels(2, 64, 64, seed=99))
    for norm in norms:
        norm.momentum = 0.1
    return built.eval()


def logits_of(network, batch):
    with torch.inference_mode():
        return network(batch)


def assert_alike(found, wanted, share):
    """Within a share of the spread of what is wanted."""
    torch.testing.assert_close(found, wanted, rtol=0, atol=share * float(wanted.std() + 1e-6))


def test_all_architectures_are_held_to_this():
    assert set(SMALLEST) == set(ARCHITECTURES)


@pytest.mark.parametrize("size", SIZES)
def test_any_size_gives_a_logit_a_pixel(network, size):
    found = logits_of(network, pixels(2, *size))
    assert found.shape == (2, 1, *size)
    assert found.dtype == torch.float32
    assert found.isfinite().all()


def test_a_flat_image_is_no_trouble(network):
    assert logits_of(network, torch.zeros(1, 3, 40, 40, dtype=torch.uint8)).isfinite().all()


def test_gradients_reach_every_parameter(name):
    built = build(name)
    target = torch.zeros(2, 1, 41, 50)
    target[:, :, :20, 10:30] = 1
    nn.functional.binary_cross_entropy_with_logits(built(pixels(2, 41, 50)), target).backward()
    unreached = [
        key
        for key, parameter in built.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert not unreached
    assert all(parameter.requires_grad for parameter in built.parameters())


def test_a_single_smallest_image_can_be_trained_on(name):
    built = build(name)
    built(pixels(1, 1, 1)).sum().backward()


def test_weights_follow_the_seed_and_leave_torchs_generator_alone(name):
    state = torch.get_rng_state()
    first = build(name, random_state=3).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    again, other = (build(name, random_state=seed).state_dict() for seed in (3, 4))
    assert first.keys() == again.keys()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_the_result_is_the_same_every_time(network):
    batch = pixels(2, 40, 33)
    assert torch.equal(logits_of(network, batch), logits_of(network, batch))


def test_an_image_is_judged_by_itself(network):
    batch = pixels(3, 40, 33)
    batch[1] = 128  # unlike its neighbours
    alone = torch.cat([logits_of(network, image[None]) for image in batch])
    assert_alike(logits_of(network, batch), alone, 1e-3)


def test_one_and_many_devices_agree(network):
    """As in nn.DataParallel: each replica has a copy of the state and a part of the batch."""
    batch = pixels(4, 40, 33)
    parts = []
    for part in batch.chunk(2):
        state = {key: value.clone() for key, value in network.state_dict().items()}
        parts.append(functional_call(network, state, (part,)).detach())
    assert_alike(torch.cat(parts), logits_of(network, batch), 1e-3)


def test_forward_changes_no_parameter(name):
    built = build(name)
    before = copy.deepcopy(dict(built.named_parameters()))
    built(pixels(2, 33, 40))
    assert all(torch.equal(before[key], value) for key, value in built.named_parameters())
    state = copy.deepcopy(built.eval().state_dict())
    logits_of(built, pixels(2, 33, 40))
    assert all(torch.equal(state[key], value) for key, value in built.state_dict().items())


def test_bfloat16_tells_much_the_same(network):
    batch = pixels(2, 48, 48)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = logits_of(network, batch)
    assert rough.dtype == torch.float32
    exact = logits_of(network, batch)
    assert torch.corrcoef(torch.stack([rough.flatten(), exact.flatten()]))[0, 1] > 0.8


def test_the_exported_program_agrees(network):
    batch = pixels(2, 33, 40)
    with torch.no_grad():
        exported = torch.export.export(network, (batch,)).module()
        assert_alike(exported(batch), network(batch), 1e-4)


def test_a_trained_state_moves_to_another_network(name, network):
    other = build(name, random_state=5).eval()
    other.load_state_dict(network.state_dict())
    batch = pixels(1, 40, 33)
    assert torch.equal(logits_of(other, batch), logits_of(network, batch))


def smoothed(n, side=32):
    """Noise that is blurred in one half of each image, left or right in turn."""
    noise = np.random.default_rng(7).normal(128, 12, (n, side, side, 3))
    half = side // 2
    masks = np.zeros((n, 1, side, side), dtype=np.float32)
    for k, image in enumerate(noise):
        place = slice(0, half) if k % 2 else slice(half, side)
        image[:, place] = cv2.GaussianBlur(image, (0, 0), 1.0)[:, place]
        masks[k, :, :, place] = 1
    values = np.clip(noise, 0, 255).astype(np.uint8).transpose(0, 3, 1, 2)
    return torch.from_numpy(values.copy()), torch.from_numpy(masks)


def test_a_localised_trace_is_learnt(name):
    built, (batch, masks) = build(name), smoothed(4)
    optimizer = torch.optim.Adam(built.parameters(), lr=1e-3)
    losses = []
    for _ in range(12):
        loss = nn.functional.binary_cross_entropy_with_logits(built(batch), masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize(
    "batch",
    [
        pytest.param(torch.rand(1, 3, 32, 32), id="scaled already"),
        pytest.param(torch.zeros(1, 1, 32, 32, dtype=torch.uint8), id="grey"),
        pytest.param(torch.zeros(3, 32, 32, dtype=torch.uint8), id="no batch"),
        pytest.param(torch.zeros(1, 3, 0, 32, dtype=torch.uint8), id="empty"),
    ],
)
def test_other_than_pixels_are_refused(network, batch):
    with pytest.raises(ValueError, match=r"pixels must be uint8 of shape \(N, 3, H, W\).*got"):
        network(batch)


def test_unknown_architectures_and_options_name_the_known():
    with pytest.raises(ValueError, match=r"one of fcn_resnet50, nixnet, iidnet, got 'unet'"):
        build_network("unet")
    with pytest.raises(ValueError, match=r"size='28m' means nothing to 'fcn_resnet50'.*weights"):
        build_network("fcn_resnet50", size="28m")
    with pytest.raises(ValueError, match=r"weights='imagenet' means nothing to 'nixnet'"):
        build_network("nixnet", weights="imagenet")
    for architecture in ("nixnet", "iidnet"):
        with pytest.raises(ValueError, match=r"size must be one of .*, got '3m'"):
            build_network(architecture, size="3m")


class Brightness(nn.Module):
    """Calls bright what is bright, and notes what it was shown."""

    def forward(self, pixels):
        self.seen = pixels
        return pixels[:, :1].double() - 128


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (31, 32), (33, 100), (64, 40)])
def test_mirroring_is_numpys_reflection(size):
    batch = pixels(2, *size)
    extended = mirror_up(batch)
    height, width = extended.shape[2:]
    assert height % STRIDE == width % STRIDE == 0
    assert min(height, width) >= LEAST
    assert height - size[0] < max(STRIDE, LEAST)
    padding = ((0, 0), (0, 0), (0, height - size[0]), (0, width - size[1]))
    np.testing.assert_array_equal(extended, np.pad(batch.numpy(), padding, mode="reflect"))


@pytest.mark.parametrize("size", [(1, 1), (9, 70), (32, 48)])
def test_each_logit_stays_with_its_pixel(size):
    batch, body = pixels(2, *size), Brightness()
    found = AnySize(body)(batch)
    assert found.dtype == torch.float32
    assert torch.equal(found, batch[:, :1].float() - 128)
    assert (body.seen is batch) == (size == (32, 48))  # a size that fits goes through as it is
