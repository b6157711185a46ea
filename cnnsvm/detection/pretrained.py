"""Detectors that are fitted already: the one that ships, those in folders, those on the hub."""

import contextlib
import logging
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed

from cnnsvm.data.images import as_image_list
from cnnsvm.data.near_duplicates import MAX_DISTANCE, perceptual_hash
from cnnsvm.detection import bundle
from cnnsvm.detection.model_card import CARD, ModelCard, render_card
from cnnsvm.detection.saved_networks import SHIPPED, USUAL
from cnnsvm.io.bundle import CONFIG, BundleError, holds_model, read_bundle, read_config

logger = logging.getLogger(__name__)

#: What is taken from the hub; nothing in it can run code.
PATTERNS = (CONFIG, "*.safetensors", CARD)
#: Largest file that is put into the package, in bytes; see `find_oversized`.
MAX_FILE_BYTES = 12_000_000

_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
_TIMEOUT = 10  # seconds; without it a network that swallows packets is waited for for minutes
_BLOCK = 1024


class UntoldTrainingError(BundleError):
    """A detector that does not say what it was trained on."""


def load_pretrained(
    kind: type,
    name_or_path: str | os.PathLike[str] | None = None,
    *,
    revision: str | None = None,
    token: str | None = None,
) -> Any:
    """Load a fitted detector.

    Parameters
    ----------
    kind : type
        `InpaintDetector`.
    name_or_path : str, path or None
        None is the detector of inpainting that ships with cnnsvm, "cifake" the one of 32-pixel
        pictures. Otherwise a folder, or, if there is none of that name, an id of the Hugging Face
        hub, ``owner/name``.
    revision : str or None
        Commit, tag or branch on the hub. Without it the newest is taken, and a warning logs which
        commit that is.
    token : str or None
        For a private model; None takes what ``hf auth login`` has stored.

    Returns
    -------
    InpaintDetector
        With ``trained_on_`` (uint64 hashes, see `find_training_images`) if the bundle has them.

    Raises
    ------
    BundleError
        If there is no such detector, it cannot be had, or a byte of it has changed.
    """
    return bundle.load(kind, find_pretrained(name_or_path, revision=revision, token=token))


def save_pretrained(
    detector: Any,
    folder: str | os.PathLike[str],
    *,
    card: ModelCard | None = None,
) -> Path:
    """Write a fitted detector as it is shared: in half precision and with a model card.

    The card is protected by a hash as the weights are: to change it, load the detector and save
    it again.

    Parameters
    ----------
    detector : InpaintDetector
        Fitted. With ``detector.trained_on_ = hash_images(images)`` it says what it has seen.
    folder : path
        Made new; a detector that is there already is replaced, anything else is refused.
    card : ModelCard, optional
        What the model card says; see `render_card`.

    Returns
    -------
    Path
        The folder, ready for the hub: ``hf upload owner/name FOLDER``.
    """
    written = bundle.save(detector, folder, half=True, texts={CARD: render_card(detector, card)})
    for file in find_oversized(written):
        logger.warning(
            "%s has %.1f MB, more than the %.0f MB of a file that ships inside the package. Share "
            "it on the hub, or fit a smaller network or fewer rows.",
            *(file, file.stat().st_size / 1e6, MAX_FILE_BYTES / 1e6),
        )
    return written


def find_pretrained(
    name_or_path: str | os.PathLike[str] | None = None,
    *,
    revision: str | None = None,
    token: str | None = None,
) -> Path:
    """Find the folder of a detector, fetched from the hub if need be.

    Parameters, errors as for `load_pretrained`; the files in the folder are not checked.
    """
    name = USUAL if name_or_path is None else name_or_path
    if name in SHIPPED:
        _refuse_revision("a detector that ships with cnnsvm", revision)
        if not holds_model(SHIPPED[name]):
            raise BundleError(
                f"no pretrained detector {name!r} ships with this cnnsvm: {SHIPPED[name] / CONFIG} "
                "is missing. Name the folder of one, or its id on the Hugging Face hub "
                "(owner/name); `cnnsvm fit` makes one."
            )
        return SHIPPED[name]
    folder = Path(name).expanduser()
    if folder.is_dir() and name_or_path != "":
        _refuse_revision(f"{folder} is a folder, which", revision)
        return folder
    if not isinstance(name_or_path, str) or not _ID.fullmatch(name_or_path):
        what = "a file" if folder.is_file() else "no folder of this machine"
        raise BundleError(
            f"pretrained detector {os.fspath(name)!r} is {what}, and not an id of the "
            f"Hugging Face hub, which is owner/name. Check the path; {' and '.join(SHIPPED)} ship."
        )
    return _fetch(name_or_path, revision, token)


def find_oversized(folder: str | os.PathLike[str], max_bytes: int | None = None) -> list[Path]:
    """List the files of a saved detector that are too large to ship in the package.

    ``max_bytes`` is `MAX_FILE_BYTES` if not given.
    """
    limit = MAX_FILE_BYTES if max_bytes is None else max_bytes
    files = sorted(path for path in Path(folder).iterdir() if path.is_file())
    return [path for path in files if path.stat().st_size > limit]


def hash_images(images: Any, *, n_jobs: int | None = None) -> np.ndarray:
    """Hash what images look like, for the ``trained_on_`` of a detector that was fitted on them.

    Parameters
    ----------
    images : as for `InpaintDetector.fit`, also a manifest
        The originals of the sources at least. A fake can differ from its source by more bits than
        `find_training_images` allows, so pass the fakes too if it is to know them.
    n_jobs : int or None
        Threads that decode images; None takes one a core.

    Returns
    -------
    ndarray of uint64
        One value each (`cnnsvm.data.near_duplicates.perceptual_hash`), sorted and different.
        Images without contrast have none.

    Raises
    ------
    ImageError
        If an image cannot be read.
    """
    hashes, usable = _hash(images, n_jobs)
    return np.unique(hashes[usable])


def find_training_images(
    trained: Any,
    images: Any,
    max_distance: int = MAX_DISTANCE,
    *,
    n_jobs: int | None = None,
) -> list[tuple[int, int]]:
    """Find the images that a detector has been trained on, or near-duplicates of which it has.

    A number on those is not a result. Copies that were resized or recompressed are found; those
    that were mirrored, rotated or cropped by more than a little are not, and neither are images
    without contrast.

    Parameters
    ----------
    trained : InpaintDetector or path
        A loaded detector, or the folder of one.
    images : as for `InpaintDetector.fit`, also a manifest
    max_distance : int, 0-64
        Bits of 64 in which the perceptual hashes may differ.
    n_jobs : int or None
        Threads that decode images; None takes one a core.

    Returns
    -------
    list of (index, distance)
        Position of each such image, and the bits to the nearest training image.

    Raises
    ------
    UntoldTrainingError
        If the bundle does not say what it was trained on; a BundleError if it cannot be read.
    ValueError
        If ``max_distance`` is not between 0 and 64.
    ImageError
        If an image cannot be read.
    """
    if not 0 <= max_distance <= 64:
        raise ValueError(f"max_distance must lie between 0 and 64 bits, got {max_distance!r}.")
    known, is_all = training_hashes(trained)
    if not is_all:
        name = os.fspath(trained) if isinstance(trained, str | os.PathLike) else "this detector"
        raise UntoldTrainingError(
            f"{name} does not say what it was trained on, so what it has seen cannot be told. "
            "Whoever fitted it can set detector.trained_on_ = hash_images(images) and save it."
        )
    return find_near(known, images, max_distance, n_jobs=n_jobs)


def training_hashes(trained: Any) -> tuple[np.ndarray, bool]:
    """Return the hashes of what a detector was trained on, as far as it tells.

    Parameters
    ----------
    trained : InpaintDetector or path
        A loaded detector, or the folder of one.

    Returns
    -------
    hashes : ndarray of uint64
    is_all : bool
        False if it tells nothing, or of the network that it began with only.
    """
    if isinstance(trained, str | os.PathLike):
        arrays = read_bundle(trained)[1].get("trained_on", {})
        own, before, network = arrays.get("hashes"), arrays.get("network"), None
    else:
        network = getattr(trained, "network_", None)
        own, before = getattr(trained, "trained_on_", None), getattr(network, "trained_on", None)
    parts = [np.asarray(part, dtype=np.uint64) for part in (own, before) if part is not None]
    known = np.unique(np.concatenate([np.array([], dtype=np.uint64), *parts]))
    return known, own is not None and getattr(network, "knows_all", True)


def find_near(
    known: np.ndarray, images: Any, max_distance: int = MAX_DISTANCE, *, n_jobs: int | None = None
) -> list[tuple[int, int]]:
    """Find the images that are near-duplicates of those of some hashes.

    Parameters
    ----------
    known : ndarray of uint64
        See `hash_images`.
    images, max_distance, n_jobs
        As for `find_training_images`, and so is what is returned.
    """
    hashes, usable = _hash(images, n_jobs)
    if len(known) == 0 or len(hashes) == 0:
        return []
    distances = _nearest(hashes, known)
    found = np.flatnonzero(usable & (distances <= max_distance))
    return [(int(i), int(distances[i])) for i in found]


def _nearest(hashes: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the bits from each hash to the nearest known one, in blocks of bounded memory."""
    nearest = np.full(len(hashes), 64, dtype=np.uint8)
    for start in range(0, len(known), _BLOCK):
        for rows in range(0, len(hashes), _BLOCK):
            part = hashes[rows : rows + _BLOCK, None] ^ known[None, start : start + _BLOCK]
            closest = np.bitwise_count(part).min(axis=1)
            nearest[rows : rows + _BLOCK] = np.minimum(nearest[rows : rows + _BLOCK], closest)
    return nearest


def _hash(images: Any, n_jobs: int | None) -> tuple[np.ndarray, np.ndarray]:
    found = Parallel(n_jobs=n_jobs or -1, prefer="threads")(
        delayed(perceptual_hash)(image) for image in as_image_list(images)
    )
    hashes = np.array([value for value, _ in found], dtype=np.uint64)
    return hashes, np.array([usable for _, usable in found], dtype=bool)


def _refuse_revision(what: str, revision: str | None) -> None:
    if revision is not None:
        raise BundleError(f"{what} has no revisions, got revision={revision!r}. Leave it out.")


def _fetch(name: str, revision: str | None, token: str | None) -> Path:
    """Get a detector from the hub, or from what the hub's cache holds if it is out of reach."""
    try:
        from huggingface_hub import model_info, snapshot_download
    except ImportError as error:
        raise BundleError(
            f"pretrained detector {name!r} is no folder of this machine, and taking it from the "
            f"hub needs huggingface_hub, which cannot be imported ({error}). Install it: pip "
            "install 'cnnsvm[generate]' or pip install huggingface_hub."
        ) from error
    unreached: Exception | None = None
    try:
        model_info(name, revision=revision, timeout=_TIMEOUT, token=token)
    except Exception as error:  # offline, gone, gated: what the cache holds still serves
        unreached = error
    wanted = {"revision": revision, "token": token, "local_files_only": unreached is not None}
    try:
        with _no_bars_in_files():
            # first alone: the weights of another kind of model may have many gigabytes
            first = snapshot_download(name, allow_patterns=[CONFIG], **wanted)
            bundle.check_kind(read_config(first), name)
            folder = Path(snapshot_download(name, allow_patterns=list(PATTERNS), **wanted))
    except BundleError as error:
        raise BundleError(f"{name!r} on the hub is no detector of this cnnsvm: {error}") from error
    except Exception as error:  # whatever the hub's library raises
        raise BundleError(_explain(name, revision, error, unreached)) from (unreached or error)
    if unreached is not None:
        logger.warning("the hub cannot be reached; %s is taken from its cache", name)
    if revision is None:
        logger.warning(
            "%s: no revision is pinned, and what it names may change. This is commit %s; pass "
            "revision=%r to have the same weights every time.",
            *(name, folder.name, folder.name),
        )
    return folder


@contextlib.contextmanager
def _no_bars_in_files() -> Iterator[None]:
    """Keep the progress bars of the hub's library off if standard error is no terminal."""
    from huggingface_hub import utils

    silenced = not sys.stderr.isatty() and not utils.are_progress_bars_disabled()
    if silenced:
        utils.disable_progress_bars()
    try:
        yield
    finally:
        if silenced:
            utils.enable_progress_bars()


def _explain(name: str, revision: str | None, error: Exception, unreached: Exception | None) -> str:
    from huggingface_hub import errors

    cause = unreached or error
    if isinstance(cause, errors.GatedRepoError):
        reason = "it is gated: accept its terms on its page, and log in with 'hf auth login'"
    elif isinstance(cause, errors.RepositoryNotFoundError):
        reason = "the hub has no such model, or it is private, and no folder has this name"
    elif isinstance(cause, errors.RevisionNotFoundError):
        reason = f"it has no revision {revision!r}"
    else:
        short = " ".join(str(cause).split())[:200]
        reason = f"the hub cannot be reached ({type(cause).__name__}: {short})"
        reason += ", and its cache does not hold all of it" if unreached is not None else ""
    return (
        f"pretrained detector {name!r} cannot be had: {reason}. Check the id, the revision and the "
        f"token, or get it where there is a connection with 'hf download {name} --local-dir "
        "FOLDER' and name that folder."
    )
