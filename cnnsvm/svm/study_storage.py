"""Where the studies live: in memory, or in a journal file that can be resumed."""

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study
from optuna.trial import TrialState

import cnnsvm
from cnnsvm.data.splits import Fold, encode_groups

logger = logging.getLogger(__name__)

Fingerprint = dict[str, str]


class StudyMismatchError(ValueError):
    """A stored study was made from other data or settings, so it cannot be resumed."""


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Keep Optuna from announcing studies on standard error; its verbosity is restored."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(verbosity, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def fingerprint(
    X: np.ndarray, y: np.ndarray, groups: Any, folds: list[Fold], settings: dict[str, Any]
) -> Fingerprint:
    """Digest all that a trial's score depends on, part by part.

    Parameters
    ----------
    X : ndarray of float64, shape (n_samples, n_features)
        Rows.
    y : ndarray of shape (n_samples,)
        Class labels.
    groups : array-like of shape (n_samples,) or None
        Groups.
    folds : list of (train, test)
        Index arrays.
    settings : dict
        Search settings; their ``repr`` counts.
    """
    tests = np.full(len(X), -1)
    for number, (_, test) in enumerate(folds):
        tests[test] = number
    return {
        "X": _digest(X),
        "y": _digest(np.asarray(y).astype(str)),
        "groups": _digest(encode_groups(groups, len(X))),
        "folds": _digest(tests),
        "settings": hashlib.sha256(repr(sorted(settings.items())).encode()).hexdigest(),
        "version": cnnsvm.__version__,
    }


def _digest(array: np.ndarray) -> str:
    header = f"{array.dtype.str} {array.shape} ".encode()
    return hashlib.sha256(header + np.ascontiguousarray(array).tobytes()).hexdigest()


class StudyStore:
    """The studies of one fit, in memory or in a journal file.

    Parameters
    ----------
    path : str, path-like or None
        Journal file, made with its folder if missing; None means memory. One process at a time.

    Raises
    ------
    IsADirectoryError
        If the path is a folder.
    """

    def __init__(self, path: str | PathLike[str] | None) -> None:
        self.path = path
        self._storage: JournalStorage | None = None
        if path is None:
            return
        file = Path(path)
        if file.is_dir():
            raise IsADirectoryError(
                f"storage={str(path)!r} is a folder, but the studies are one journal file; name "
                f"a file in it, such as {str(file / 'studies.log')!r}."
            )
        file.parent.mkdir(parents=True, exist_ok=True)
        with quiet_optuna():
            self._storage = JournalStorage(JournalFileBackend(str(file)))

    def seed(self) -> int | None:
        """Return the seed of the first stored study, or None."""
        studies = [] if self._storage is None else self._storage.get_all_studies()
        seeds = (study.user_attrs.get("seed") for study in studies)
        return next((seed for seed in seeds if seed is not None), None)

    def open(self, name: str, current: Fingerprint, seed: int) -> Study:
        """Open or make a study; a trial that a killed run left behind is marked as failed.

        Parameters
        ----------
        name : str
            Name of the study.
        current : dict of str
            Result of :func:`fingerprint`.
        seed : int
            Seed that a new study records.

        Raises
        ------
        StudyMismatchError
            If the study exists and has another fingerprint.
        """
        with quiet_optuna():
            study = optuna.create_study(
                storage=self._storage, study_name=name, direction="maximize", load_if_exists=True
            )
        stored = study.user_attrs.get("fingerprint")
        if stored is None:
            study.set_user_attr("seed", seed)
            study.set_user_attr("fingerprint", current)
        elif stored != current:
            parts = ", ".join(key for key in current if stored.get(key) != current[key])
            raise StudyMismatchError(
                f"storage={str(self.path)!r} holds a study {name!r} made with other {parts}; its "
                "trials say nothing about this fit. Name another file, or delete this one."
            )
        for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            logger.info("%s: trial %d was interrupted and is run again.", name, trial.number)
            study.tell(trial.number, state=TrialState.FAIL)
        return study
