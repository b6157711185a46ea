import pytest
import torch
from torch import nn

from cnnsvm.localization.architectures import build_network
from cnnsvm.localization.architectures.nixnet import SIZES, CrossScaleFusion, Stream, resample

WIDTHS = (16, 32, 64)


def pixels(seed=0, low=0, high=256):
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, (2, 3, 32, 40), dtype=torch.uint8, generator=rng)


@pytest.mark.parametrize("size", SIZES)
def test_a_size_has_the_parameters_that_it_is_named_by(size):
    with torch.device("meta"):
        n_parameters = sum(p.numel() for p in build_network("nixnet", size=size).parameters())
    assert n_parameters / 1e6 == pytest.approx(float(size.removesuffix("m")), rel=0.1)


def test_the_noise_stream_does_not_see_the_image():
    """Its fixed filters sum to zero, so that brightness goes."""
    listen = build_network("nixnet", size="2m").body.listen
    dark = pixels(high=150)
    assert torch.equal(listen(dark), listen(dark + 100))
    assert not listen(torch.full((1, 3, 9, 9), 77, dtype=torch.uint8)).any()
    assert listen(dark).shape == (2, 18, 32, 40)
    assert not list(listen.parameters())


def test_both_streams_count():
    network = build_network("nixnet", size="2m").eval()
    with torch.inference_mode():
        usual = network(pixels())
        for stream in (network.body.image, network.body.noise):
            hook = stream.register_forward_hook(lambda _, inputs, maps: [0 * m for m in maps])
            assert not torch.allclose(network(pixels()), usual)
            hook.remove()


def test_a_stream_halves_its_maps_and_doubles_their_number():
    maps = Stream(3, WIDTHS, depth=2)(torch.rand(2, 3, 32, 48))
    assert [tuple(m.shape) for m in maps] == [(2, 16, 16, 24), (2, 32, 8, 12), (2, 64, 4, 6)]


@pytest.mark.parametrize(("source", "target"), [(0, 0), (0, 1), (0, 2), (1, 0), (2, 0), (2, 1)])
def test_maps_go_up_by_1x1_and_down_by_3x3_of_stride_2(source, target):
    way = resample(source, target, WIDTHS)
    maps = way(torch.rand(1, WIDTHS[source], 16 // 2**source, 24 // 2**source))
    assert maps.shape == (1, WIDTHS[target], 16 // 2**target, 24 // 2**target)
    makes = [(m.kernel_size, m.stride) for m in way.modules() if isinstance(m, nn.Conv2d)]
    up = [((1, 1), (1, 1))] if source > target else []
    assert makes == up + [((3, 3), (2, 2))] * (target - source)


def test_after_fusion_each_scale_knows_the_others():
    fusion = CrossScaleFusion(WIDTHS).eval()
    maps = [torch.rand(1, width, 16 // 2**k, 16 // 2**k) for k, width in enumerate(WIDTHS)]
    with torch.inference_mode():
        usual = fusion(maps)
        assert [m.shape for m in usual] == [m.shape for m in maps]
        for changed in range(3):
            others = [m + (k == changed) for k, m in enumerate(maps)]
            for before, after in zip(usual, fusion(others), strict=True):
                assert not torch.allclose(before, after)
