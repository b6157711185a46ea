"""Fitted models as folders of safetensors and JSON: nothing in them can run code."""

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from cnnsvm.io.files import file_hash

SCHEMA_VERSION = 3
CONFIG = "config.json"
ARRAYS = ".safetensors"
_LIBRARIES = ("cnnsvm", "torch", "torchvision", "scikit-learn", "numpy", "optuna", "safetensors")
_NO_HASH = "0" * 64  # stands where the description's own hash will be
#: The detectors that are installed with the package.
SHIPPED = {
    "cnnsvm": Path(__file__).parents[1] / "detection" / "weights",
    "cifake": Path(__file__).parents[1] / "detection" / "weights" / "cifake",
    "generated": Path(__file__).parents[1] / "detection" / "weights" / "generated",
}
_COPY_AGAIN = "Copy the whole folder again from its origin."


class BundleError(ValueError, OSError):
    """A saved model that may not be loaded; the message gives the reason and the remedy."""


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that a result depends on."""
    versions = {"python": platform.python_version()}
    return versions | {name: metadata.version(name) for name in _LIBRARIES}


def holds_model(folder: str | os.PathLike[str]) -> bool:
    """Tell whether a folder describes a saved model, sound or not."""
    return (Path(folder) / CONFIG).is_file()


def check_target(folder: str | os.PathLike[str]) -> Path:
    """Refuse a folder that a bundle may not be written to (`BundleError`)."""
    target = Path(folder).absolute()
    if target.exists() and not holds_model(target):
        raise BundleError(
            f"{target} exists and holds no saved model; it is not overwritten. Choose a new folder."
        )
    return target


def write_bundle(
    folder: str | os.PathLike[str],
    config: dict[str, Any],
    arrays: dict[str, dict[str, np.ndarray]],
    texts: Mapping[str, str] | None = None,
) -> Path:
    """Write a model, all or nothing.

    The folder is made new; a bundle that is there already is replaced, anything else is refused
    (`BundleError`). ``config`` has plain JSON values; schema version, library versions and hashes
    are added. ``arrays`` are those of each safetensors file, by its name without suffix. ``texts``
    are further files, such as "README.md", by name: they are hashed as the others are and not read
    again.
    """
    from safetensors.numpy import save_file

    target = check_target(folder)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, tensors in arrays.items():
        plain = {key: np.ascontiguousarray(value) for key, value in tensors.items()}
        save_file(plain, partial / f"{name}{ARRAYS}")
        (partial / f"{name}{ARRAYS}").chmod(0o644)  # it would be the owner's alone
    for name, text in (texts or {}).items():
        (partial / name).write_bytes(text.encode())
    hashes = {file.name: file_hash(file) for file in sorted(partial.iterdir())}
    head = {"schema_version": SCHEMA_VERSION, "versions": library_versions(), "files": hashes}
    (partial / CONFIG).write_bytes(_sealed(head | config))
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    if target.exists():
        os.replace(target, old)
    os.replace(partial, target)
    shutil.rmtree(old, ignore_errors=True)
    return target


def read_bundle(
    folder: str | os.PathLike[str],
) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
    """Read a model as (config, arrays), as they were given to `write_bundle`.

    Files that the description does not name are none of its business. A BundleError says that the
    schema is newer than this library's, a file is missing, changed or outside the folder, or
    anything is malformed.
    """
    root = Path(folder)
    config = read_config(root)
    arrays = {}
    for name, digest in config["files"].items():
        file = _file_inside(root, name)
        if file_hash(file) != digest:
            raise BundleError(
                f"{file} has changed since it was saved (its SHA-256 is not the recorded one). "
                f"{_COPY_AGAIN}"
            )
        if file.suffix == ARRAYS:
            arrays[file.stem] = _read_arrays(file)
    return config, arrays


def read_config(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the description of a model alone; the other files may be missing.

    A BundleError is raised if there is none, its schema is newer than this library's, or a byte of
    it has changed.
    """
    file = Path(folder) / CONFIG
    if not file.is_file():
        raise BundleError(f"{folder} holds no saved model: {CONFIG} is missing. Check the path.")
    try:
        raw = file.read_bytes()
        config = json.loads(raw.decode("utf-8"))
        version = int(config["schema_version"])
        named = isinstance(config["files"], dict)
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{file} is not a model's description: {error!r}.") from error
    if version != SCHEMA_VERSION or not named:
        remedy = "Install a newer cnnsvm." if version > SCHEMA_VERSION else "Fit and save it again."
        raise BundleError(
            f"{file} has schema version {version}; this cnnsvm reads {SCHEMA_VERSION}. {remedy}"
        )
    if config.get("sha256") != _hash_of_text(raw, config.get("sha256")):
        raise BundleError(f"{file} has changed since it was saved. {_COPY_AGAIN}")
    return config


def _sealed(config: dict[str, Any]) -> bytes:
    """Write a description that ends in the hash of its own text."""
    text = json.dumps(config | {"sha256": _NO_HASH}, indent=2, allow_nan=False)
    start, _, end = text.rpartition(_NO_HASH)
    return f"{start}{hashlib.sha256(text.encode()).hexdigest()}{end}".encode()


def _hash_of_text(raw: bytes, digest: Any) -> str:
    """Hash a description to the byte, but for its own hash."""
    return hashlib.sha256(raw.replace(str(digest).encode(), _NO_HASH.encode())).hexdigest()


def content_hash(config: Mapping[str, Any], arrays: Mapping[str, Mapping[str, np.ndarray]]) -> str:
    """Return the SHA-256 of a model's description and arrays, in hexadecimal."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for part in sorted(arrays):
        for name, value in sorted(arrays[part].items()):
            digest.update(f"{part}/{name} {value.dtype} {value.shape}".encode())
            digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def _file_inside(root: Path, name: str) -> Path:
    file = root / name
    if Path(name).name != name or file.resolve().parent not in (root.resolve(), _blobs(root)):
        raise BundleError(f"{root / CONFIG} names {name!r}, which leaves the folder; refused.")
    if not file.is_file():
        raise BundleError(f"{file} is missing. {_COPY_AGAIN}")
    return file


def _blobs(root: Path) -> Path | None:
    """Return where the hub's cache keeps the content that a snapshot's links lead to."""
    parts = root.resolve().parts[-3:]
    in_cache = len(parts) == 3 and parts[0].startswith("models--") and parts[1] == "snapshots"
    return root.resolve().parent.parent / "blobs" if in_cache else None


def _read_arrays(file: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(file)
    except SafetensorError as error:
        raise BundleError(f"{file} is not a safetensors file: {error}.") from error
