"""Taking part in a search that another process started: its rows, its settings, its trials."""

import logging
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnsvm.io.files import replacing
from cnnsvm.svm.database import is_url, shown
from cnnsvm.svm.machines import KERNELS
from cnnsvm.svm.tuned_svc import TunedSVC

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

logger = logging.getLogger(__name__)

ROWS = "search-rows.npz"


def save_rows(
    file: str | PathLike[str],
    X: "ArrayLike",
    y: "ArrayLike",
    groups: Sequence[Any] | np.ndarray | None = None,
) -> Path:
    """Write what a search is about to a file, for `join_search` on other hosts.

    The arguments are those of `TunedSVC.fit`: ``X`` (n_samples, n_features), ``y`` (n_samples,),
    labels that are numbers or text, and ``groups`` (n_samples,) or None.
    """
    labels = np.asarray(y)
    arrays = {"X": np.asarray(X), "y": labels.astype(str) if labels.dtype == object else labels}
    if groups is not None:
        arrays["groups"] = np.asarray(groups).astype(str)
    with replacing(file) as partial, partial.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)
    return Path(file)


def load_rows(place: str | PathLike[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Read what `save_rows` wrote: X, y and groups.

    ``place`` is the file, or a folder that holds one, such as the ``MODEL.work`` of ``cnnsvm fit``.
    FileNotFoundError says that there is none, ValueError that there are several or that it is no
    such file.
    """
    path = Path(place)
    found = sorted(path.rglob(ROWS)) if path.is_dir() else [path] if path.is_file() else []
    if not found:
        raise FileNotFoundError(
            f"--rows {place}: there is no {ROWS}. `cnnsvm fit --storage` writes it to MODEL.work "
            "when the images are embedded; wait for that, or copy the file to this host."
        )
    if len(found) > 1:
        listed = ", ".join(map(str, found[:3]))
        raise ValueError(f"--rows {place}: there are {len(found)} files ({listed}). Name one.")
    try:
        with np.load(found[0], allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
        return arrays["X"], arrays["y"], arrays.get("groups")
    except (KeyError, ValueError, OSError, EOFError, AttributeError) as error:
        raise ValueError(
            f"--rows {found[0]} does not hold the rows of a search ({error}). Copy it again, or "
            "delete it and let `cnnsvm fit --storage` write it anew."
        ) from error


def leave_rows(
    folder: Path, classifier: TunedSVC, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None
) -> None:
    """Write the rows of a search that begins, and say how other hosts join it."""
    folder.mkdir(parents=True, exist_ok=True)
    file = save_rows(folder / ROWS, X, y, groups)
    logger.info(
        "other hosts join by: cnnsvm tune-worker --storage %s --study %s --rows %s",
        *(shown(str(classifier.storage)), classifier.study, file),
    )


def join_search(storage: str, study: str, rows: str | PathLike[str]) -> list[dict[str, Any]]:
    """Run trials of a search until all of them are finished, here or elsewhere.

    Parameters
    ----------
    storage : str
        URL of the database.
    study : str
        Name of the search, as `TunedSVC` was given it.
    rows : path
        What `save_rows` wrote.

    Returns
    -------
    list of dict
        The result of `cnnsvm.svm.search.search_kernel` for each kernel.

    Raises
    ------
    DatabaseError
        If the database cannot be reached, or goes away and stays away.
    StudyMismatchError
        If the search is about other rows, or was begun by another version.
    ValueError
        If there is no such search, or ``storage`` is a file, which one process at a time may use.
    FileNotFoundError
        If there are no rows.
    """
    if not is_url(storage):
        raise ValueError(
            f"--storage {storage!r} is no URL of a database, which several processes need. Use "
            "postgresql://USER:PASSWORD@HOST/DATABASE."
        )
    from cnnsvm.svm.search import StudyStore  # Optuna takes half a second

    X, y, groups = load_rows(rows)
    known = StudyStore(storage).attributes()
    begun = [
        f"{study} {kernel}" for kernel in KERNELS if "search" in known.get(f"{study} {kernel}", {})
    ]
    if not begun:
        names = sorted({name.rpartition(" ")[0] for name in known}) or ["none"]
        raise ValueError(
            f"--study {study!r} is not in {shown(storage)} (there: {', '.join(names[:10])}). Start "
            "it by `cnnsvm fit --storage --study` or TunedSVC(storage=..., study=...).fit, which "
            "also writes the rows."
        )
    about = known[begun[0]]
    params = dict(about["search"]) | {"kernel": tuple(about["search"]["kernel"])}
    model = TunedSVC(**params, storage=storage, study=study)  # with the seed that is stored
    return model.search(X, y, groups)
