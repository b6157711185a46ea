"""Native-resolution crops: how an image of any size becomes the backbone's input.

The traces of inpainting lie in the highest frequencies and a resize removes them, so a large image
is seen through several crops and a small one is wrapped round. `resize_short_side` is for
embeddings of what a whole image shows.
"""

import numpy as np
from PIL import Image


def wrap_to(image: np.ndarray, size: int) -> np.ndarray:
    """Repeat an image periodically until both sides have at least ``size`` pixels.

    Parameters
    ----------
    image : ndarray, shape (H, W, ...)
    size : int
        Smallest side wanted, in pixels.

    Returns
    -------
    ndarray, shape (max(H, size), max(W, size), ...)
        The input itself when it is large enough.
    """
    height, width = image.shape[:2]
    if height >= size and width >= size:
        return image
    missing = [(0, max(0, size - height)), (0, max(0, size - width))]
    return np.pad(image, missing + [(0, 0)] * (image.ndim - 2), mode="wrap")


def crop_positions(height: int, width: int, size: int, n_crops: int) -> list[tuple[int, int]]:
    """Spread crops evenly and deterministically over an image.

    The crops lie in rows, as many as the shape of the image asks for; one crop is centred, four
    crops of a square are its corners, five are three above two.

    Parameters
    ----------
    height, width : int
        Size of the image in pixels, both at least ``size``.
    size, n_crops : int
        Side of a crop in pixels and the number of crops wanted, at least 1.

    Returns
    -------
    list of (top, left)
        At most ``n_crops`` different positions (fewer when the image is hardly larger).
    """
    free_y, free_x = height - size, width - size
    if free_y < 0 or free_x < 0:
        raise ValueError(
            f"a {size}-pixel crop does not fit {width}x{height}; wrap the image first."
        )
    if free_y == 0:
        n_rows = 1
    elif free_x == 0:
        n_rows = n_crops
    else:
        n_rows = min(n_crops, max(1, round((n_crops * height / width) ** 0.5)))
    per_row = [len(part) for part in np.array_split(np.arange(n_crops), n_rows)]
    tops = _spread(free_y, n_rows)
    positions = [
        (top, left) for top, n in zip(tops, per_row, strict=True) for left in _spread(free_x, n)
    ]
    return list(dict.fromkeys(positions))


def fixed_crops(image: np.ndarray, size: int, n_crops: int, mirror: bool = False) -> np.ndarray:
    """Cut the deterministic crops that an image is judged by.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
    size, n_crops : int
    mirror : bool
        Put the mirror image of each crop behind them.

    Returns
    -------
    ndarray of uint8, shape (k, size, size, 3)
        With 1 <= k <= ``n_crops``, or twice that.
    """
    large = wrap_to(image, size)
    positions = crop_positions(large.shape[0], large.shape[1], size, n_crops)
    crops = np.stack([large[top : top + size, left : left + size] for top, left in positions])
    return np.concatenate([crops, crops[:, :, ::-1]]) if mirror else crops


def resize_short_side(image: np.ndarray, side: int) -> np.ndarray:
    """Resize an image so that its shorter side has ``side`` pixels (bicubic, antialiased)."""
    height, width = image.shape[:2]
    scale = side / min(height, width)
    size = (max(side, round(width * scale)), max(side, round(height * scale)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def _spread(free: int, n: int) -> list[int]:
    if n == 1:
        return [free // 2]
    return [round(free * i / (n - 1)) for i in range(n)]
