import numpy as np
import pytest

from cnnsvm.io.bundle import GROUP, MIN_SIZE, dequantise, quantise


@pytest.fixture
def weights():
    rng = np.random.default_rng(0)
    matrix = rng.normal(0, 0.02, (MIN_SIZE // 256, 4 * GROUP)).astype(np.float32)
    return {"matrix": matrix, "bias": rng.normal(size=300).astype(np.float32)}


@pytest.mark.parametrize(("bits", "share"), [(4, 0.15), (8, 0.28)])
def test_matrices_shrink_and_come_back_within_half_a_step(weights, bits, share):
    stored = quantise(weights, bits)
    size = sum(array.nbytes for name, array in stored.items() if name.startswith("matrix|"))
    assert size <= share * weights["matrix"].nbytes
    found = dequantise(stored)["matrix"]
    assert (found.dtype, found.shape) == (np.float32, weights["matrix"].shape)
    groups = weights["matrix"].reshape(-1, GROUP)
    step = np.ptp(groups, axis=1) / (2**bits - 1)
    error = np.abs(found.reshape(-1, GROUP) - groups).max(axis=1)
    rounding = 2.0**-10 * np.abs(groups).max(axis=1)  # of step and lowest value, in half precision
    assert np.all(error <= step / 2 + 2**bits * 2.0**-11 * step + rounding)


def test_more_bits_are_closer(weights):
    errors = [
        np.abs(dequantise(quantise(weights, bits))["matrix"] - weights["matrix"]).mean()
        for bits in (4, 8)
    ]
    assert errors[1] < errors[0] / 10


def test_rounding_again_hardly_changes_what_was_rounded(weights):
    once = dequantise(quantise(weights, 4))
    twice = dequantise(quantise(once, 4))
    step = np.ptp(once["matrix"].reshape(-1, GROUP), axis=1).max() / 15
    assert np.abs(twice["matrix"] - once["matrix"]).max() < 0.02 * step


@pytest.mark.parametrize(
    "array",
    [
        np.ones(MIN_SIZE, np.float32),
        np.ones((MIN_SIZE, GROUP), np.float64),
        np.ones((MIN_SIZE, GROUP + 1), np.float32),
        np.ones((2, GROUP), np.float32),
        np.ones((MIN_SIZE // 4, 2, 2), np.float32),
    ],
    ids=["vector", "float64", "no whole groups", "small", "kernel"],
)
def test_other_arrays_stay_as_they_are(array):
    assert quantise({"array": array}, 4)["array"] is array


def test_constant_rows_are_exact():
    matrix = np.full((MIN_SIZE // GROUP, GROUP), 0.25, np.float32)
    np.testing.assert_array_equal(dequantise(quantise({"m": matrix}, 4))["m"], matrix)


@pytest.mark.parametrize("bits", [0, 3, 16])
def test_other_bits_are_refused(bits):
    with pytest.raises(ValueError, match=f"bits={bits}"):
        quantise({}, bits)
