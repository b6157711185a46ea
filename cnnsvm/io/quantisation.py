"""Weights in 4 or 8 bits: each group of a row keeps its lowest value and a step as float16."""

import numpy as np

BITS = (4, 8)
GROUP = 64
#: Smaller arrays are not worth it.
MIN_SIZE = 2**16
_PARTS = ("|codes", "|step", "|low")


def quantise(arrays: dict[str, np.ndarray], bits: int) -> dict[str, np.ndarray]:
    """Round the large weight matrices among named arrays.

    A matrix of float32 (n, d), d a multiple of `GROUP`, becomes three arrays: ``NAME|codes``, uint8
    (n, d * bits / 8), two codes a byte in 4 bits, the earlier one in the lower half; ``NAME|step``
    and ``NAME|low``, float16 (n, d / `GROUP`). A weight is ``low + code * step``, at most half a
    step off. All other arrays are returned as they are.

    A ValueError says that ``bits`` is neither 4 nor 8.
    """
    if bits not in BITS:
        raise ValueError(f"weights are stored in {BITS} bits, got bits={bits!r}.")
    done: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        fits = array.ndim == 2 and array.dtype == np.float32 and array.shape[1] % GROUP == 0
        if not fits or array.size < MIN_SIZE:
            done[name] = array
            continue
        done |= dict(zip((name + part for part in _PARTS), _encode(array, bits), strict=True))
    return done


def dequantise(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Undo `quantise`: the matrices come back as float32, the same on every machine."""
    plain = {name: array for name, array in arrays.items() if not name.endswith(_PARTS)}
    for name in (key.removesuffix("|codes") for key in arrays if key.endswith("|codes")):
        codes, step, low = (arrays[name + part] for part in _PARTS)
        if codes.shape[1] < step.shape[1] * GROUP:
            codes = np.stack([codes & 15, codes >> 4], axis=-1)
        values = codes.reshape(*step.shape, GROUP) * step[..., None].astype(np.float32)
        values += low[..., None].astype(np.float32)
        plain[name] = values.reshape(len(step), -1)
    return plain


def _encode(array: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    groups = array.reshape(len(array), -1, GROUP)
    top = 2**bits - 1
    low = groups.min(axis=2).astype(np.float16)
    step = ((groups.max(axis=2) - low) / top).astype(np.float16)
    safe = np.where(step > 0, step, 1).astype(np.float32)
    codes = np.rint((groups - low[..., None]) / safe[..., None]).clip(0, top).astype(np.uint8)
    codes = codes.reshape(array.shape)
    return (codes[:, ::2] | codes[:, 1::2] << 4 if bits == 4 else codes), step, low
