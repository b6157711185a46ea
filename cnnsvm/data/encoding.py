"""How pixels become bytes and files."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cnnsvm.io.files import write_bytes


def encode_image(image: np.ndarray | Image.Image, format: str, **options: Any) -> bytes:
    """Encode pixels that Pillow knows, such as uint8 (H, W) or (H, W, 3), or an image.

    ``format`` and ``options`` are Pillow's, such as ``"JPEG", quality=90``.
    """
    opened = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    buffer = io.BytesIO()
    opened.save(buffer, format, **options)
    return buffer.getvalue()


def write_image(
    path: str | os.PathLike[str], image: np.ndarray | Image.Image, format: str, **options: Any
) -> Path:
    """Write an image file atomically (see `encode_image`) and return its path.

    An OSError says that it cannot be written. Pillow itself, given a path, leaves half of a file on
    a full disk and says nothing.
    """
    return write_bytes(path, encode_image(image, format, **options))
