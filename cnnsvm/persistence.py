"""Fitted models as folders of safetensors and JSON: nothing in them can run code."""

import hashlib
import json
import os
import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

SCHEMA_VERSION = 1
CONFIG = "config.json"
_LIBRARIES = ("cnnsvm", "torch", "torchvision", "scikit-learn", "numpy", "optuna", "safetensors")


class BundleError(ValueError, OSError):
    """A saved model that may not be loaded; the message gives the reason and the remedy."""


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that a result depends on."""
    versions = {"python": platform.python_version()}
    return versions | {name: metadata.version(name) for name in _LIBRARIES}


def check_target(folder: str | os.PathLike[str]) -> Path:
    """Refuse a folder that a bundle may not be written to (`BundleError`)."""
    target = Path(folder).absolute()
    if target.exists() and not (target / CONFIG).is_file():
        raise BundleError(
            f"{target} exists and holds no saved model; it is not overwritten. Choose a new folder."
        )
    return target


def write_bundle(
    folder: str | os.PathLike[str],
    config: dict[str, Any],
    arrays: dict[str, dict[str, np.ndarray]],
) -> Path:
    """Write a model, all or nothing.

    Parameters
    ----------
    folder : path
        Made new; a bundle that is there already is replaced, anything else is refused.
    config : dict
        Plain JSON values. The schema version, library versions and hashes are added.
    arrays : dict of dict of ndarray
        Name of each safetensors file (without suffix) -> its arrays.

    Raises
    ------
    BundleError
        If the folder exists and is not a bundle.
    """
    from safetensors.numpy import save_file

    target = check_target(folder)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    hashes = {}
    for name, tensors in arrays.items():
        file = partial / f"{name}.safetensors"
        save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, file)
        hashes[file.name] = _sha256(file)
    head = {"schema_version": SCHEMA_VERSION, "versions": library_versions(), "files": hashes}
    whole = head | config
    whole["sha256"] = _config_hash(whole)
    text = json.dumps(whole, indent=2, allow_nan=False)
    (partial / CONFIG).write_text(text, encoding="utf-8")
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    if target.exists():
        os.replace(target, old)
    os.replace(partial, target)
    shutil.rmtree(old, ignore_errors=True)
    return target


def read_bundle(
    folder: str | os.PathLike[str],
) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
    """Read a model that `write_bundle` wrote.

    Returns
    -------
    (config, arrays)
        As they were given to `write_bundle`.

    Raises
    ------
    BundleError
        If the schema is newer than this library's, a file is missing, changed or outside the
        folder, or anything is malformed.
    """
    root = Path(folder)
    config = _read_config(root)
    arrays = {}
    for name, digest in config["files"].items():
        file = _file_inside(root, name)
        if _sha256(file) != digest:
            raise BundleError(
                f"{file} has changed since it was saved (its SHA-256 is not the recorded one). "
                "Copy the whole folder again from its origin."
            )
        arrays[file.stem] = _read_arrays(file)
    return config, arrays


def _read_config(root: Path) -> dict[str, Any]:
    file = root / CONFIG
    if not file.is_file():
        raise BundleError(f"{root} holds no saved model: {CONFIG} is missing. Check the path.")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        version = int(config["schema_version"])
        named = isinstance(config["files"], dict)
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{file} is not a model's description: {error!r}.") from error
    if version > SCHEMA_VERSION or not named:
        raise BundleError(
            f"{file} has schema version {version}; this cnnsvm reads up to {SCHEMA_VERSION}. "
            "Install a newer cnnsvm."
        )
    if config.get("sha256") != _config_hash(config):
        raise BundleError(
            f"{file} has changed since it was saved. Copy the whole folder again from its origin."
        )
    return config


def _config_hash(config: dict[str, Any]) -> str:
    """Hash all of a description but the hash itself, however it is laid out."""
    rest = {key: value for key, value in config.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _file_inside(root: Path, name: str) -> Path:
    file = root / name
    if Path(name).name != name or file.resolve().parent != root.resolve():
        raise BundleError(f"{root / CONFIG} names {name!r}, which leaves the folder; refused.")
    if not file.is_file():
        raise BundleError(f"{file} is missing. Copy the whole folder again from its origin.")
    return file


def _read_arrays(file: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(file)
    except SafetensorError as error:
        raise BundleError(f"{file} is not a safetensors file: {error}.") from error


def _sha256(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
