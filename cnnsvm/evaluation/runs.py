"""Run directories: long work whose finished parts are read when the work is resumed."""

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from sklearn.base import BaseEstimator

from cnnsvm.features.cache import hash_settings
from cnnsvm.io.bundle import holds_model, library_versions
from cnnsvm.io.files import alone, read_json, replacing, write_json, write_text

logger = logging.getLogger(__name__)

#: Columns of a manifest that results carry on.
CARRIED = ("path", "source_id", "label", "variant", "engine", "mask_schema")
FINGERPRINT, TIMES, CACHE = "run.json", "seconds.json", "cache"


class RunMismatchError(ValueError):
    """A folder that holds the results of another run."""


class RunDirectory:
    """A folder of one run, which is resumed part by part.

    ::

        run = RunDirectory(out, fingerprint_of(settings_of(detector), (n_splits, seed), manifest))
        scores = run.part("fold_0/scores.parquet", lambda: score(detector, images))
        model = run.part("fold_0/model", fit, load=InpaintDetector.from_pretrained, save=...)

    A folder that is None stores nothing, and every part is computed. ``fingerprint`` is that of all
    that the results depend on, see `fingerprint_of`; a RunMismatchError is raised if the folder
    holds results of another one. ``results`` is a glob pattern of the files that count as such:
    without any, the folder of another run is free. Caches and hidden files never count. ``seconds``
    says how long it took to compute each part, in this call or an earlier one.
    """

    def __init__(self, folder: Path | None, fingerprint: str, results: str = "**/*") -> None:
        self.folder = folder
        self.seconds: dict[str, float] = {}
        if folder is None:
            return
        file = folder / FINGERPRINT
        claimed = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else None
        if claimed != fingerprint and any(is_result(path, folder) for path in folder.glob(results)):
            raise RunMismatchError(
                f"{folder} holds results of another detector, other data, settings or versions; "
                "nothing of it is mixed in. Choose another output folder, or delete this one."
            )
        write_text(file, fingerprint)
        self.seconds = read_json(folder / TIMES)

    def part(
        self,
        name: str,
        compute: Callable[[], Any],
        *,
        load: Callable[[Path], Any] | None = None,
        save: Callable[[Any, Path], Any] | None = None,
    ) -> Any:
        """Return a part: read if it is finished and sound, else computed, stored and read.

        ``name`` is its path in the folder, unique in the run. A ``.json`` file holds plain values,
        a ``.parquet`` file a table; others need ``load``, of a path, and ``save``, of a value and a
        path, which must be atomic. ``compute`` may use `cache`, which is removed afterwards.
        """
        if self.folder is None:
            return self._timed(name, compute)
        path = self.folder / name
        if load is None or save is None:
            load, save = FORMATS[path.suffix]
        with alone(path):
            if is_finished(path):
                try:
                    return load(path)
                except (ValueError, LookupError, TypeError, OSError) as error:
                    if getattr(error, "errno", None):  # it may be sound: the disk is not there
                        raise
                    logger.warning("%s is damaged and is computed again: %s", path, error)
            save(self._timed(name, compute), path)
            write_json(self.folder / TIMES, self.seconds)
            shutil.rmtree(path.parent / CACHE, ignore_errors=True)
        return load(path)

    def cache(self, name: str) -> Path | None:
        """Return the folder for the intermediate state of a part; None without a run directory."""
        return None if self.folder is None else (self.folder / name).parent / CACHE

    def subfolder(self, name: str) -> Path | None:
        """Return the folder of a run inside this one; None without a run directory."""
        return None if self.folder is None else self.folder / name

    def _timed(self, name: str, compute: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        value = compute()
        self.seconds[name] = time.perf_counter() - started
        return value


def is_result(path: Path, folder: Path) -> bool:
    """Tell whether a path in a run directory is a result: no cache, hidden or own file."""
    parts = path.relative_to(folder).parts
    is_hidden = CACHE in parts or any(part.startswith(".") for part in parts)
    return path.is_file() and path.name not in (FINGERPRINT, TIMES) and not is_hidden


def is_finished(path: Path) -> bool:
    """Tell whether a part is stored: a file, or the folder of a saved model."""
    return path.is_file() or holds_model(path)


def store(table: pd.DataFrame, file: Path) -> None:
    """Write a Parquet table atomically."""
    with replacing(file) as unfinished:
        table.to_parquet(unfinished, index=False, write_page_checksum=True)


#: Suffix of a part -> how it is read and written.
FORMATS: dict[str, tuple[Callable[[Path], Any], Callable[[Any, Path], Any]]] = {
    ".json": (
        lambda path: json.loads(path.read_text(encoding="utf-8")),
        lambda values, path: write_text(path, json.dumps(values)),
    ),
    ".parquet": (partial(pd.read_parquet, page_checksum_verification=True), store),
}


def fingerprint_of(model: bytes, settings: tuple[Any, ...], manifest: pd.DataFrame) -> str:
    """Hash a model (see `settings_of`), settings, library versions and the images."""
    digest = hashlib.sha256(model + repr((settings, sorted(library_versions().items()))).encode())
    columns = [manifest["sha256"].fillna("").astype(str), *(manifest[name] for name in CARRIED)]
    for row in zip(*columns, strict=True):
        digest.update(repr(tuple(map(str, row))).encode())
    return digest.hexdigest()


def settings_of(estimator: BaseEstimator) -> bytes:
    """Hash the parameters of an unfitted estimator and the content of its file of weights."""
    digest = hashlib.sha256(hash_settings(estimator).encode())
    weights = getattr(estimator, "weights", None)
    if weights not in (None, "imagenet") and Path(weights).is_file():
        digest.update(Path(weights).read_bytes())
    return digest.digest()
