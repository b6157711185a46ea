import itertools

import numpy as np
import pytest
import torch
from tiny_localizer import Brightness, Tiny, painting
from torch import nn

from cnnsvm.features.backends import folded
from cnnsvm.localization import patches
from cnnsvm.localization.architectures import AnySize, build_network
from cnnsvm.localization.patches import Tiling, predict_map, tile_starts

CPU = torch.device("cpu")


def tiling(tile=32, overlap=8, most_pixels=4 * 32**2):
    return Tiling(tile, overlap, most_pixels, CPU, torch.float32)


def draw_image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def whole(network, pixels):
    inputs = torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy())
    with torch.inference_mode():
        return torch.sigmoid(network(inputs))[0, 0].numpy()


class Watched(nn.Module):
    """Remember the shapes that come in."""

    def __init__(self, network):
        super().__init__()
        self.network, self.shapes = network, []

    def forward(self, pixels):
        self.shapes.append(tuple(pixels.shape))
        return self.network(pixels)


class Constant(nn.Module):
    def forward(self, pixels):
        return torch.full_like(pixels[:, :1], 0.0, dtype=torch.float32) + 1.23


@pytest.mark.parametrize("side", [1, 31, 32, 33, 57, 200, 1001])
@pytest.mark.parametrize(("tile", "overlap"), [(32, 8), (32, 0), (32, 31)])
def test_tiles_cover_a_side_and_overlap(side, tile, overlap):
    starts = tile_starts(side, tile, overlap)
    assert starts[0] == 0
    assert starts[-1] == max(0, side - tile)
    assert all(b - a <= tile - overlap for a, b in itertools.pairwise(starts))
    assert starts == sorted(set(starts))


@pytest.mark.parametrize("shape", [(1, 1), (7, 90), (33, 32), (100, 131)])
def test_a_constant_network_gives_a_constant_map(shape):
    found = predict_map(Constant(), draw_image(*shape), tiling())
    assert found.shape == shape
    assert found.dtype == np.float32
    assert (found == torch.sigmoid(torch.tensor(1.23)).item()).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (32, 32), (33, 65), (90, 131)])
@pytest.mark.parametrize("options", [{}, {"overlap": 0}, {"overlap": 31}, {"tile": 16}])
def test_a_network_that_sees_single_pixels_is_not_changed_by_tiles(shape, options):
    pixels = draw_image(*shape)
    assert (
        predict_map(Brightness(), pixels, tiling(**options)) == whole(Brightness(), pixels)
    ).all()


def test_an_image_smaller_than_a_tile_goes_in_whole():
    network, pixels = Watched(Tiny()), draw_image(31, 20)
    assert (predict_map(network, pixels, tiling()) == whole(Tiny(), pixels)).all()
    assert network.shapes == [(1, 3, 31, 20)]


def test_seams_do_not_show():
    pixels = painting(0, 120, 150)[0]
    network = Tiny(seed=1)
    with torch.no_grad():
        network.body[-1].weight *= 20  # answers that are far apart
    untiled = whole(network, pixels)
    assert untiled.std() > 0.15
    blended = predict_map(network, pixels, tiling(overlap=16))
    butted = predict_map(network, pixels, tiling(overlap=0))
    assert np.abs(butted - untiled).max() > 0.5  # what a tile sees at its edge is wrong
    assert np.abs(blended - untiled).max() < 0.1
    assert np.abs(blended - untiled).mean() < np.abs(butted - untiled).mean() / 4


@pytest.mark.parametrize("most_pixels", [1, 3 * 32**2, 10**9])
def test_the_batch_does_not_matter(most_pixels):
    pixels = painting(1, 100, 90)[0]
    found = predict_map(Tiny(), pixels, tiling(most_pixels=most_pixels))
    np.testing.assert_allclose(found, predict_map(Tiny(), pixels, tiling()), atol=1e-6)


@pytest.mark.parametrize("shape", [(20_000, 64), (64, 20_000), (700, 800)])
def test_no_more_goes_in_at_once_than_asked_for(shape):
    network, pixels = Watched(Brightness()), draw_image(*shape)
    found = predict_map(network, pixels, tiling(tile=128, overlap=16, most_pixels=60_000))
    assert (found == whole(Brightness(), pixels)).all()
    assert max(n * h * w for n, _, h, w in network.shapes) <= 60_000
    assert len(network.shapes) > 10


def test_probabilities_stay_in_range():
    class Sure(nn.Module):
        def forward(self, pixels):
            return torch.where(pixels[:, :1] > 127, 1e4, -1e4)

    found = predict_map(Sure(), draw_image(80, 90), tiling())
    assert found.min() == 0
    assert found.max() == 1


@pytest.mark.parametrize(
    ("name", "options"), [("nixnet", {"size": "2m"}), ("iidnet", {"size": "small"})]
)
def test_folded_batch_norms_change_no_score(name, options):
    network = build_network(name, **options)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):  # as after a training
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 2)
    network.eval()
    faster = AnySize(folded(network.body))
    assert faster.body is not network.body
    for shape in ((70, 90), (64, 64), (5, 3)):
        pixels = draw_image(*shape)
        np.testing.assert_allclose(whole(faster, pixels), whole(network, pixels), atol=1e-5)


def test_tiles_are_counted_where_there_are_many(monkeypatch):
    seen = []

    def show(items, total, what, progress):
        seen.append((total, what, progress))
        return items

    monkeypatch.setattr(patches, "show_progress", show)
    for side in (32, 1000):
        predict_map(Constant(), draw_image(side, 32), tiling())
    assert seen == [(1, "tiles", False), (42, "tiles", True)]
