import numpy as np
import pytest
import torch
from torch import nn

from cnnsvm.features.backbones import build_backbone, build_statistics
from cnnsvm.features.crops import (
    MAX_WINDOWS,
    covered_share,
    crop_positions,
    cut_crops,
    embed_crops,
    fixed_crops,
    pool_crops,
    score_crops,
    window_positions,
    wrap_to,
)
from cnnsvm.features.statistics import STATISTICS_DIM, residual_statistics

CPU = torch.device("cpu")


class MeanColour(nn.Module):
    classifier = None

    def forward(self, pixels):
        assert not torch.is_grad_enabled()
        assert not self.training
        return pixels.float().mean(dim=(2, 3))


class Ranked(MeanColour):
    """Finds the darkest crops the most fake."""

    classifier = "not None"

    def fake_score(self, embeddings):
        return -embeddings.mean(dim=1)


def embed(images, network=None, n_crops=4, **options):
    settings = {"batch_size": 8, "device": CPU} | options
    crops = (cut_crops(image, 16, n_crops) for image in images)
    return embed_crops(network or MeanColour(), crops, **settings)


def random_images(n):
    rng = np.random.default_rng(0)
    sizes = rng.integers(10, 50, (n, 2))
    return [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in sizes]


def test_rows_follow_the_input():
    images = [np.full((20, 20, 3), value, np.uint8) for value in (9, 200, 31)]
    np.testing.assert_allclose(embed(images), [[9] * 3, [200] * 3, [31] * 3])


def test_order_batches_and_subsets_do_not_matter():
    images = random_images(9)
    whole = embed(images)
    np.testing.assert_allclose(embed(images[::-1])[::-1], whole, rtol=1e-6)
    np.testing.assert_allclose(embed(images, batch_size=3), whole, rtol=1e-6)
    np.testing.assert_allclose(embed(images[4:6]), whole[4:6], rtol=1e-6)


def test_pooling_is_what_it_says():
    crops = np.array([[1.0, 4.0], [3.0, 0.0]], np.float32)
    np.testing.assert_allclose(pool_crops(crops, "mean"), [2, 2])
    np.testing.assert_allclose(pool_crops(crops, "mean_max"), [2, 2, 3, 4])
    np.testing.assert_allclose(pool_crops(crops, "mean_std"), [2, 2, 1, 2])
    with pytest.raises(ValueError, match=r"pooling.*'median'"):
        pool_crops(crops, "median")


class _OnlySecond(MeanColour):
    def forward(self, pixels):
        values = torch.zeros(len(pixels), 3)
        values[1:] = float("nan")
        return values


def test_a_network_that_overflows_is_an_error():
    images = [np.zeros((20, 20, 3), np.uint8)] * 2
    with pytest.raises(ValueError, match=r"NaN.*image 1.*(?s:.*)float32"):
        embed(images, _OnlySecond(), n_crops=1)


def test_the_top_crops_are_those_of_the_highest_scores():
    rng = np.random.default_rng(0)
    for n in (1, 2, 4, 8, 9, 16):
        crops = rng.normal(size=(n, 5)).astype(np.float32)
        scores = rng.permutation(n).astype(np.float32)
        n_top = max(1, round(n / 4))
        top = np.mean([crops[i] for i in range(n) if scores[i] >= n - n_top], axis=0)
        pooled = pool_crops(crops, "mean_top", scores)
        np.testing.assert_allclose(pooled, np.concatenate([crops.mean(axis=0), top]), rtol=1e-5)
        whole = pool_crops(crops, "mean_std_top", scores)
        parts = [crops.mean(axis=0), crops.std(axis=0), top]
        np.testing.assert_allclose(whole, np.concatenate(parts), rtol=1e-5)


def test_top_needs_scores():
    with pytest.raises(ValueError, match=r"pooling='mean_top'.*finetune='full'"):
        pool_crops(np.zeros((4, 2), np.float32), "mean_top")
    with pytest.raises(ValueError, match="pooling='mean_std_top'"):
        embed(random_images(2), pooling="mean_std_top")


@pytest.mark.parametrize("batch_size", [2, 8, 64])
def test_each_image_ranks_its_own_crops(batch_size):
    images = random_images(7)
    pooled = embed(images, Ranked(), n_crops=8, pooling="mean_top", batch_size=batch_size)
    for row, image in zip(pooled, images, strict=True):
        means = fixed_crops(image, 16, 8).mean(axis=(1, 2))
        darkest = means[np.argsort(means.mean(axis=1))[: max(1, round(len(means) / 4))]]
        np.testing.assert_allclose(row[:3], means.mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(row[3:], darkest.mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("batch_size", [2, 64])
def test_statistics_are_embedded_as_they_are_in_any_precision(dtype, batch_size):
    images = random_images(9)
    options = {"pooling": "mean_std", "batch_size": batch_size, "dtype": dtype}
    found = embed(images, build_statistics(learnt=False), **options)
    assert found.shape == (9, 2 * STATISTICS_DIM)
    for row, image in zip(found, images, strict=True):
        crops = torch.from_numpy(fixed_crops(image, 16, 4).transpose(0, 3, 1, 2).copy())
        expected = residual_statistics(crops).numpy()
        np.testing.assert_allclose(row[:STATISTICS_DIM], expected.mean(axis=0), atol=1e-4)
        np.testing.assert_allclose(row[STATISTICS_DIM:], expected.std(axis=0), atol=1e-4)


def test_crops_are_scored_in_their_order_whatever_the_batch():
    network = build_backbone("resnet18", truncate_at="layer1")
    network.classifier = nn.Linear(128, 3)
    crops = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (7, 3, 32, 32), dtype=np.uint8)
    )
    scores = score_crops(network, crops, torch.float32, 7)
    np.testing.assert_allclose(score_crops(network, crops, torch.float32, 2), scores, atol=1e-4)
    with torch.inference_mode():
        probabilities = network.eval().logits(crops).softmax(dim=1).numpy()
    np.testing.assert_allclose(1 / (1 + np.exp(scores)), probabilities[:, 0], atol=1e-5)


def test_wrapping_repeats_pixels_and_invents_none():
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    wrapped = wrap_to(image, 5)
    assert wrapped.shape == (5, 5, 3)
    for i in range(5):
        for j in range(5):
            np.testing.assert_array_equal(wrapped[i, j], image[i % 2, j % 3])


def test_large_images_are_not_copied():
    image = np.zeros((8, 9, 3), np.uint8)
    assert wrap_to(image, 8) is image


@pytest.mark.parametrize(
    ("shape", "n_crops", "expected"),
    [
        ((256, 256), 1, [(64, 64)]),
        ((256, 256), 4, [(0, 0), (0, 128), (128, 0), (128, 128)]),
        ((128, 256), 3, [(0, 0), (0, 64), (0, 128)]),
        ((256, 128), 2, [(0, 0), (128, 0)]),
        ((128, 128), 4, [(0, 0)]),
    ],
)
def test_positions(shape, n_crops, expected):
    assert crop_positions(*shape, 128, n_crops) == expected


@pytest.mark.parametrize("n_crops", range(1, 17))
@pytest.mark.parametrize("shape", [(64, 64), (65, 300), (481, 321), (1000, 80)])
def test_crops_are_native_pixels_inside_the_image(shape, n_crops):
    positions = crop_positions(*shape, 64, n_crops)
    assert 1 <= len(positions) == len(set(positions)) <= n_crops
    for top, left in positions:
        assert 0 <= top <= shape[0] - 64
        assert 0 <= left <= shape[1] - 64


def test_five_crops_of_a_square_reach_all_corners():
    positions = crop_positions(200, 200, 100, 5)
    assert {(0, 0), (0, 100), (100, 0), (100, 100)} <= set(positions)


def test_a_crop_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"does not fit 9x20"):
        crop_positions(20, 9, 10, 1)


def test_fixed_crops_cut_the_image():
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    crops = fixed_crops(image, 32, 6)
    for crop, (top, left) in zip(crops, crop_positions(70, 90, 32, 6), strict=True):
        np.testing.assert_array_equal(crop, image[top : top + 32, left : left + 32])


def test_small_images_are_wrapped_not_enlarged():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    (crop,) = fixed_crops(image, 32, 4)[:1]
    np.testing.assert_array_equal(crop[:20, :30], image)


def test_mirror_images_stand_behind_the_crops():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    plain, both = fixed_crops(image, 16, 3), fixed_crops(image, 16, 3, mirror=True)
    np.testing.assert_array_equal(both[: len(plain)], plain)
    np.testing.assert_array_equal(both[len(plain) :], plain[:, :, ::-1])


@pytest.mark.parametrize("size", [16, 31, 128])
@pytest.mark.parametrize(
    "shape", [(128, 128), (129, 128), (130, 500), (257, 301), (1000, 1500), (128, 9000)]
)
def test_windows_cover_the_image_and_are_not_too_many(shape, size):
    tops, lefts = window_positions(*shape, size, size // 4)
    for side, starts in zip(shape, (tops, lefts), strict=True):
        assert starts[0] == 0
        assert starts[-1] == side - size
        assert len(set(starts)) == len(starts)
        assert all(0 < step <= size for step in np.diff(starts))
    tiles = np.prod([-(-side // size) for side in shape])
    assert len(tops) * len(lefts) <= max(MAX_WINDOWS, tiles)
    if np.prod([-(-4 * side // size) for side in shape]) <= MAX_WINDOWS:
        assert all(step <= size // 4 for starts in (tops, lefts) for step in np.diff(starts))


@pytest.mark.parametrize("shape", [(128, 128), (130, 500), (1000, 1500), (128, 9000), (2400, 3600)])
def test_without_a_number_crops_show_every_pixel(shape):
    positions = crop_positions(*shape, 128, None)
    assert covered_share(*shape, 128, None) == 1
    assert len(positions) == np.prod([-(-side // 128) for side in shape])


def test_a_large_image_goes_through_the_network_in_batches():
    seen = []

    class Counting(MeanColour):
        def forward(self, pixels):
            seen.append(len(pixels))
            return super().forward(pixels)

    image = np.random.default_rng(0).integers(0, 256, (200, 330, 3), dtype=np.uint8)
    crops = fixed_crops(image, 32, None)
    (found,) = embed_crops(Counting(), [crops], batch_size=8, device=CPU)
    assert sum(seen) == 7 * 11
    assert max(seen) == 8
    expected = crops.mean(axis=(0, 1, 2))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_beyond_a_budget_crops_are_spread_and_the_share_is_said(monkeypatch):
    assert covered_share(120, 160, 16, None) == 1
    monkeypatch.setattr("cnnsvm.features.crops.MOST_CROPPED", 120 * 160 // 2)
    places = crop_positions(120, 160, 16, None)
    assert len(places) == 120 * 160 // 2 // 16**2
    assert max(top for top, _ in places) == 120 - 16  # to the last row and column
    assert max(left for _, left in places) == 160 - 16
    assert covered_share(120, 160, 16, None) == pytest.approx(0.5, abs=0.02)
