"""Data sets on disk and in archives, for tests."""

import io
import tarfile
import zipfile

import numpy as np
from PIL import Image

CIFAKE_FOLDERS = ("train/REAL", "train/FAKE", "test/REAL", "test/FAKE")


def draw_image(seed, size=(32, 32)):
    """Large patches of colour with finer ones of grey on them, as in photographs."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(128, 40, (4, 4, 3)).repeat(8, 0).repeat(8, 1)
    middle = rng.normal(0, 20, (8, 8, 1)).repeat(4, 0).repeat(4, 1)
    fine = rng.normal(0, 20, (16, 16, 1)).repeat(2, 0).repeat(2, 1)
    pixels = np.clip(coarse + middle + fine, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels).resize(size)


def jpeg(seed, size=(32, 32), format="JPEG"):
    buffer = io.BytesIO()
    draw_image(seed, size).save(buffer, format)
    return buffer.getvalue()


def cifake_files(folders=CIFAKE_FOLDERS, n=3):
    names = [f"{folder}/{i:04} ({i}).jpg" for folder in folders for i in range(n)]
    return {name: jpeg(k) for k, name in enumerate(names)}


def pack(files, path):
    """Write files as a folder or an archive, whatever the path's suffix says."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as opened:
            for name, data in files.items():
                opened.writestr(name, data)
    elif ".tar" in path.name.lower():
        kind = path.suffix.lower().replace(".tar", "").lstrip(".")
        with tarfile.open(path, f"w:{kind}") as opened:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                opened.addfile(info, io.BytesIO(data))
    else:
        for name, data in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
    return path


def write_images(root, names):
    """Write small images of different content below a folder and return the folder."""
    for k, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (k, 100, sum(name.encode()) % 256)).save(path)
    return root


def read_files(root):
    """Return the content of every file below a folder by its relative name."""
    paths = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}
