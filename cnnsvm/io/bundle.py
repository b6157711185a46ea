"""Fitted models as folders of safetensors and JSON: nothing in them can run code."""

import hashlib
import json
import os
import platform
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from cnnsvm.io.files import file_hash, partial_folder, replace_folder, text_hash

SCHEMA_VERSION = 3
MAX_CONFIG = 16_000_000  # bytes
#: Arrays that may have nan: out-of-fold scores of rows that were in no fold.
WITH_NAN = ("cv_decision",)
#: What the card of a saved detector is called in its folder.
CARD = "README.md"
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
SHIPPED_REGION = Path(__file__).parents[1] / "detection" / "weights" / "region"
SHIPPED_LOCALIZER = Path(__file__).parents[1] / "localization" / "weights"
#: Bits of a stored weight that is rounded to a grid: each `GROUP` of a row keeps its lowest value
#: and a step as float16.
BITS = (4, 8)
GROUP = 64
MIN_SIZE = 2**16  # smaller arrays are not worth it
_PARTS = ("|codes", "|step", "|low")
#: Relative error of a row that half precision may bring: what rounding does to normal numbers.
MAX_ROUNDING = 2.0**-11
#: What a description that is not one of this library's may raise.
UNREADABLE = (
    *(LookupError, TypeError, ValueError, ArithmeticError),
    *(RuntimeError, AttributeError, MemoryError),
)
Model = TypeVar("Model")
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
    target = target.resolve() if target.is_symlink() else target  # what a link leads to is replaced
    target.parent.mkdir(parents=True, exist_ok=True)
    with partial_folder(target) as partial:
        partial.chmod(0o755)
        for name, tensors in arrays.items():
            plain = {key: np.ascontiguousarray(value) for key, value in tensors.items()}
            save_file(plain, partial / f"{name}{ARRAYS}")
            (partial / f"{name}{ARRAYS}").chmod(0o644)  # it would be the owner's alone
        for name, text in (texts or {}).items():
            (partial / name).write_bytes(text.encode())
        hashes = {file.name: file_hash(file) for file in sorted(partial.iterdir())}
        head = {"schema_version": SCHEMA_VERSION, "versions": library_versions(), "files": hashes}
        (partial / CONFIG).write_bytes(_sealed(head | config))
        replace_folder(partial, target)
    return target


def read_bundle(
    folder: str | os.PathLike[str],
) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
    """Read a model as (config, arrays), as they were given to `write_bundle`.

    Files that the description does not name are none of its business. If the model is replaced
    while it is read, it is read again. A BundleError says that the schema is newer than this
    library's, a file is missing, changed or outside the folder, or anything is malformed.
    """
    root = Path(folder)
    while True:
        config = read_config(root)
        try:
            return config, _read_files(root, config)
        except (BundleError, FileNotFoundError):
            if read_config(root) == config:
                raise


def rebuild(
    folder: str | os.PathLike[str],
    kind: str,
    make: Callable[[dict[str, Any], dict[str, dict[str, np.ndarray]]], Model],
) -> tuple[Model, str]:
    """Read a model of a kind, and return what ``make`` makes of it, and its `bundle_id`.

    A BundleError is raised for what `read_bundle` raises it for, and if the model is of another
    kind or ``make`` cannot make it.
    """
    config, arrays = read_bundle(folder)
    check_kind(config, kind, folder)
    try:
        return make(config, arrays), bundle_id(config)
    except UNREADABLE as error:
        raise BundleError(
            f"{os.fspath(folder)} holds no {kind} of this cnnsvm: {error!r}."
        ) from error


def check_kind(config: dict[str, Any], kind: str, place: str | os.PathLike[str]) -> None:
    """Refuse the description of a model of another kind (`BundleError`)."""
    if config.get("kind") != kind:
        raise BundleError(
            f"{os.fspath(place)} holds a {config.get('kind')!r} and no {kind}. Name a folder that "
            f"`{kind}.save_pretrained` wrote."
        )


def bundle_id(config: dict[str, Any]) -> str:
    """Identify a model by what `read_bundle` says of it, the hashes of its files included."""
    return text_hash(json.dumps(config, sort_keys=True))[:12]


def _read_files(root: Path, config: dict[str, Any]) -> dict[str, dict[str, np.ndarray]]:
    arrays = {}
    for name, digest in config["files"].items():
        file = _file_inside(root, name)
        content = file.read_bytes()  # once: what is hashed is what is used
        if hashlib.sha256(content).hexdigest() != digest:
            raise BundleError(
                f"{file} has changed since it was saved (its SHA-256 is not the recorded one). "
                f"{_COPY_AGAIN}"
            )
        if file.suffix == ARRAYS:
            arrays[file.stem] = _to_arrays(file, content)
    return arrays


def read_config(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the description of a model alone; the other files may be missing.

    A BundleError is raised if there is none, its schema is newer than this library's, or a byte of
    it has changed.
    """
    file = Path(folder) / CONFIG
    if not file.is_file():
        raise BundleError(f"{folder} holds no saved model: {CONFIG} is missing. Check the path.")
    if (n_bytes := file.stat().st_size) > MAX_CONFIG:
        raise BundleError(f"{file} has {n_bytes:,} bytes, a description at most {MAX_CONFIG:,}.")
    try:
        raw = file.read_bytes()
        config = json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant)
        version, files = config["schema_version"], config["files"]
        if type(version) is not int or not _are_hashes(files):
            raise TypeError("schema_version is no whole number, or files are no names and hashes")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleError(f"{file} is not a model's description: {error!r}.") from error
    if version != SCHEMA_VERSION:
        remedy = "Install a newer cnnsvm." if version > SCHEMA_VERSION else "Fit and save it again."
        raise BundleError(
            f"{file} has schema version {version}; this cnnsvm reads {SCHEMA_VERSION}. {remedy}"
        )
    if config.get("sha256") != _hash_of_text(raw, config.get("sha256")):
        raise BundleError(f"{file} has changed since it was saved. {_COPY_AGAIN}")
    return config


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _are_hashes(files: Any) -> bool:
    """Tell whether files are plain names, each with a SHA-256."""
    return isinstance(files, dict) and all(
        isinstance(digest, str) and len(digest) == 64 and name.isprintable()
        for name, digest in files.items()
    )


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


def _to_arrays(file: Path, content: bytes) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(content)
    except (SafetensorError, ValueError, KeyError, MemoryError) as error:
        raise BundleError(f"{file} is not a safetensors file: {error}.") from error
    for name, array in arrays.items():
        if name not in WITH_NAN and array.dtype.kind == "f" and not np.isfinite(array).all():
            raise BundleError(f"{file}: {name} holds what is no finite number. {_COPY_AGAIN}")
    return arrays


def halve(array: np.ndarray) -> np.ndarray:
    """Round an array to float16, unless a row would lose more than `MAX_ROUNDING` of its length."""
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = array.astype(np.float16)
        lost = (rounded.astype(np.float64) - array).reshape(len(array), -1)
        error = np.linalg.norm(lost, axis=1)
    allowed = MAX_ROUNDING * np.linalg.norm(array.reshape(len(array), -1), axis=1)
    return rounded if np.all(error <= allowed) else array


def round_weights(arrays: dict[str, np.ndarray], bits: int) -> dict[str, np.ndarray]:
    """Round the weights of a network, float32 of two and more axes, to 16 bits; 32 rounds nothing.

    Of 8 or 4 ``bits`` the large matrices get no more (see `quantise`), the others 16.
    """
    if bits not in (32, 16, *BITS):
        raise ValueError(f"bits must be 32, 16, 8 or 4, got {bits!r}.")
    if bits < 16:
        arrays = quantise(arrays, bits)
    if bits < 32:
        large = [k for k, v in arrays.items() if v.ndim > 1 and v.dtype == np.float32]
        arrays = arrays | {key: halve(arrays[key]) for key in large}
    return arrays


def widen(arrays: dict[str, np.ndarray], dtype: type = np.float32) -> dict[str, np.ndarray]:
    """Undo `round_weights`, as far as that can be: into what the code computes with."""
    plain = dequantise(arrays)
    return {k: v.astype(dtype) if v.dtype == np.float16 else v for k, v in plain.items()}


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
