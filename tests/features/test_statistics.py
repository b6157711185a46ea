import itertools

import numpy as np
import pytest
import torch

from cnnsvm.features.statistics import (
    COOCCURRENCES,
    N_BANDS,
    POWER_FLOOR,
    STATISTICS_BLOCKS,
    STATISTICS_DIM,
    residual_statistics,
)

COUNTED = [name for name in STATISTICS_BLOCKS if name.startswith("cooccurrence/")]


def noise(n=1, height=64, width=64, seed=0, scale=6.0):
    """Colour noise on a slope: residuals on both sides of the truncation, no clipping."""
    rng = np.random.default_rng(seed)
    slope = np.linspace(90, 160, width)[None, None, None] + np.zeros((n, 3, height, 1))
    pixels = np.clip(slope + rng.normal(0, scale, slope.shape), 0, 255)
    return torch.from_numpy(pixels.astype(np.uint8))


def block(crops, name):
    return residual_statistics(crops)[:, STATISTICS_BLOCKS[name]]


def bands(crops, name="spectrum/luma"):
    """Log power above the mean: (N, vertical band, horizontal band)."""
    return block(crops, name)[:, 1:].reshape(-1, N_BANDS, N_BANDS)


def one_colour(red, green, blue, side=32):
    return torch.tensor([red, green, blue], dtype=torch.uint8)[:, None, None].repeat(1, side, side)


def test_blocks_tile_the_row():
    stop = 0
    for part in STATISTICS_BLOCKS.values():
        assert part.start == stop
        stop = part.stop
    assert stop == STATISTICS_DIM
    assert 400 <= STATISTICS_DIM <= 700


@pytest.mark.parametrize("shape", [(16, 16), (16, 40), (33, 31), (47, 128)])
def test_every_size_gives_the_same_columns(shape):
    statistics = residual_statistics(noise(3, *shape))
    assert statistics.shape == (3, STATISTICS_DIM)
    assert statistics.dtype == torch.float32
    assert statistics.isfinite().all()
    assert residual_statistics(noise(3, *shape)[:0]).shape == (0, STATISTICS_DIM)


def naive_runs(planes, kind):
    """Lists of neighbouring residuals, one pixel at a time, by the definitions in the papers."""
    kernels = {
        "first": [[-1, 1]],
        "second": [[0.5, -1, 0.5]],
        "square": [[0.25, -0.5, 0.25], [-0.5, 1, -0.5], [0.25, -0.5, 0.25]],
    }
    filter_name, _, direction = kind.partition("-")
    order = COOCCURRENCES[kind].order
    for plane in [turned for one in planes for turned in (one, one.T)]:
        kernel = np.array(kernels[filter_name])
        rows, columns = (np.array(plane.shape) - kernel.shape + 1).tolist()
        residual = [
            [
                (plane[i : i + len(kernel), j : j + kernel.shape[1]] * kernel).sum()
                for j in range(columns)
            ]
            for i in range(rows)
        ]
        lines = zip(*residual, strict=True) if direction == "across" else residual
        for line in lines:
            yield from (line[k : k + order] for k in range(len(line) - order + 1))


@pytest.mark.parametrize("kind", COOCCURRENCES)
def test_cooccurrence_agrees_with_counting_run_by_run(kind):
    crop = noise(1, 17, 20, scale=2.0)
    red, green, blue = crop[0].numpy().astype(float)
    luma = [(77 * red + 150 * green + 29 * blue) / 256]
    chroma = [
        (128 * blue - 43 * red - 85 * green) / 256,
        (128 * red - 107 * green - 21 * blue) / 256,
    ]
    counts = {}
    for run in naive_runs(chroma if "chroma" in kind else luma, kind):
        cut = [round(float(r) / COOCCURRENCES[kind].step) for r in run]
        levels = tuple(min(2, max(-2, level)) for level in cut)
        negative = tuple(-level for level in levels)
        key = min(levels, levels[::-1], negative, negative[::-1])
        counts[key] = counts.get(key, 0) + 1
    # A run comes before its class in lexicographic order exactly if its class is already numbered.
    runs = itertools.product(range(-2, 3), repeat=COOCCURRENCES[kind].order)
    minus = [(run, tuple(-level for level in run)) for run in runs]
    classes = [r for r, m in minus if r == min(r, r[::-1], m, m[::-1])]
    expected = np.sqrt([counts.get(key, 0) / sum(counts.values()) for key in classes])
    assert (expected > 0).sum() > 10
    np.testing.assert_allclose(block(crop, f"cooccurrence/{kind}")[0], expected, atol=1e-6)


@pytest.mark.parametrize("name", COUNTED)
def test_squares_of_a_cooccurrence_sum_to_one(name):
    crops = torch.cat([noise(2, 32, 32), one_colour(9, 80, 200)[None]])
    np.testing.assert_allclose(block(crops, name).square().sum(1), 1, rtol=1e-5)


def test_mirror_images_and_the_negative_have_the_same_statistics():
    crops = noise(2, 64, 96)
    expected = residual_statistics(crops)
    for changed in (crops.flip(3), crops.flip(2), 255 - crops):
        torch.testing.assert_close(residual_statistics(changed), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", COUNTED)
def test_quarter_turns_have_the_same_cooccurrences(name):
    crops = noise(2, 40, 57)
    turned = crops.rot90(dims=(2, 3)).contiguous()
    torch.testing.assert_close(block(turned, name), block(crops, name), atol=0, rtol=0)
    blurred = ((crops.int() + crops.int().roll(1, 3)) // 2).to(torch.uint8)
    assert (block(blurred, name) - block(crops, name)).abs().max() > 0.01


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("spectrum/luma", [[77, 150, 29]]),
        ("spectrum/chroma", [[-43, -85, 128], [128, -107, -21]]),
    ],
)
def test_white_noise_has_the_spectrum_of_the_filter(name, weights):
    signed = np.fft.fftfreq(32)
    gain = (2 - 2 * np.cos(2 * np.pi * signed)) ** 2 / 4
    # A Hann window spreads the power of a frequency over its neighbours.
    gain = (np.roll(gain, 1) + 4 * gain + np.roll(gain, -1)) / 6
    band = np.minimum(np.abs(signed) * 2 * N_BANDS, N_BANDS - 1).astype(int)
    # rfft2 gives both signs of a vertical and one sign of a horizontal frequency.
    rows = np.bincount(band, gain) / np.bincount(band)
    columns = np.bincount(band[:17], gain[:17]) / np.bincount(band[:17])
    power = (12.0**2 + 1 / 12) * (np.array(weights) ** 2).sum() / 256**2  # 1/12: rounding
    expected = np.log(power * np.outer(rows, columns) + POWER_FLOOR)

    crops = noise(32, 128, 128, scale=12.0)
    measured = bands(crops, name) + block(crops, name)[:, :1, None]
    np.testing.assert_allclose(measured.mean(0), expected, atol=0.15)


def test_nearest_neighbour_upsampling_empties_the_last_band():
    plain = noise(8, 64, 64)
    upsampled = noise(8, 64, 32).repeat_interleave(2, dim=3)
    # Doubling columns multiplies the power by cos(pi f)**2, zero at half a cycle a pixel.
    change = (bands(upsampled) - bands(plain)).mean(dim=(0, 1))
    assert change.argmin() == N_BANDS - 1
    assert change[-1] < change[0] - 3
    down = (bands(upsampled.mT.contiguous()) - bands(plain)).mean(dim=(0, 2))
    torch.testing.assert_close(down, change, atol=0.3, rtol=0)


def test_louder_noise_changes_the_energy_and_hardly_the_shape():
    quiet, loud = noise(8, 64, 64, scale=6.0), noise(8, 64, 64, scale=12.0)
    energy = block(loud, "spectrum/luma")[:, 0] - block(quiet, "spectrum/luma")[:, 0]
    np.testing.assert_allclose(energy.mean(), np.log(4), atol=0.2)
    assert (bands(loud) - bands(quiet)).mean(0)[2:, 2:].abs().max() < 0.3


def test_the_spectrum_sees_every_pixel():
    # A dot weighs between 1/4 and 1, wherever it lies relative to the windows.
    dots = [one_colour(100, 100, 100, side=96) for _ in range(24, 57, 4)]
    for dot, place in zip(dots, range(24, 57, 4), strict=True):
        dot[:, place, place] += 100
    energy = block(torch.stack(dots), "spectrum/luma")[:, 0]
    assert energy.max() - energy.min() < np.log(5)


def test_correlation_agrees_with_numpy():
    crops = noise(2, 24, 30)
    crops[:, 1] = (crops[:, 0].int() // 2 + crops[:, 2].int() // 4).to(torch.uint8)
    planes = crops.numpy().astype(float)
    residual = np.diff(np.diff(planes, n=2, axis=2), n=2, axis=3)
    for row, channels in zip(block(crops, "correlation").numpy(), residual, strict=True):
        matrix = np.corrcoef(channels.reshape(3, -1))
        np.testing.assert_allclose(row, matrix[[0, 1, 0], [1, 2, 2]], atol=1e-3)
        assert row[0] > 0.5


@pytest.mark.parametrize("side", [16, 17, 32, 50])
def test_degenerate_crops_have_finite_statistics(side):
    checkerboard = (torch.arange(side)[:, None] + torch.arange(side)) % 2 * 255
    crops = torch.stack(
        [
            one_colour(0, 0, 0, side),
            one_colour(255, 255, 255, side),
            one_colour(31, 141, 59, side),
            checkerboard.to(torch.uint8).expand(3, -1, -1),
            (checkerboard * torch.tensor([1, 0, 0])[:, None, None]).to(torch.uint8),
        ]
    )
    statistics = residual_statistics(crops)
    assert statistics.isfinite().all()
    # One colour has one residual, zero, whatever the colour.
    torch.testing.assert_close(statistics[1:3], statistics[:1].expand(2, -1), atol=0, rtol=0)
    np.testing.assert_array_equal(statistics[:3, STATISTICS_BLOCKS["correlation"]], 0)
    np.testing.assert_allclose(statistics[3, STATISTICS_BLOCKS["correlation"]], 1, atol=1e-5)
    np.testing.assert_array_equal(statistics[4, STATISTICS_BLOCKS["correlation"]], 0)


def test_a_batch_is_its_crops_one_by_one():
    crops = torch.cat([noise(3, 48, 48, scale=s) for s in (1.0, 4.0, 20.0)])
    before = crops.clone()
    together = residual_statistics(crops)
    alone = torch.cat([residual_statistics(crop[None]) for crop in crops])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(residual_statistics(crops), together, atol=0, rtol=0)
    assert torch.equal(crops, before)


def test_channels_last_memory_and_autocast_change_nothing():
    crops = noise(2, 40, 40)
    expected = residual_statistics(crops)
    strided = crops.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(residual_statistics(strided), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_finds_the_same():
    crops = noise(4, 128, 128)
    on_gpu = residual_statistics(crops.cuda()).cpu()
    torch.testing.assert_close(on_gpu, residual_statistics(crops), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("crops", "message"),
    [
        (torch.zeros(1, 3, 32, 32), r"uint8 .* got torch\.float32; pass the pixels as decoded"),
        (torch.zeros(1, 32, 32, 3, dtype=torch.uint8), r"got \(1, 32, 32, 3\); permute"),
        (torch.zeros(3, 32, 32, dtype=torch.uint8), r"\(N, 3, H, W\), got \(3, 32, 32\)"),
        (torch.zeros(1, 3, 15, 32, dtype=torch.uint8), r"at least 16x16 pixels, got 32x15; cut"),
    ],
)
def test_other_input_is_refused(crops, message):
    with pytest.raises(ValueError, match=message):
        residual_statistics(crops)
