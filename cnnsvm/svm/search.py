"""The Optuna search for a kernel's hyperparameters, and the storage from which it resumes."""

import hashlib
import logging
import zlib
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.samplers import TPESampler
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial
from tqdm import tqdm

import cnnsvm
from cnnsvm.data.splits import Fold, encode_groups
from cnnsvm.io.callbacks import Callback
from cnnsvm.svm.database import StudyMismatchError, is_url, open_database, shown
from cnnsvm.svm.space import DEFAULTS, SPACES, Scorer, quiet_optuna, search_result

logger = logging.getLogger(__name__)

Fingerprint = dict[str, str]


def search_kernel(
    kernel: str,
    scorer: Scorer,
    n_trials: int,
    study: Study,
    seed: int,
    verbose: bool = False,
    callbacks: Sequence[Callback] = (),
) -> dict[str, Any]:
    """Run the trials that a study still lacks and return the best of the first ``n_trials``.

    The first trial is :data:`DEFAULTS`; the others are drawn from :data:`SPACES` by a multivariate
    tree-structured Parzen estimator (J. Bergstra et al., "Algorithms for hyper-parameter
    optimization", NeurIPS 2011). Its sampler is seeded anew for every trial from ``seed``, the
    kernel and the number of finished trials, so an interrupted study continues as if it had not
    been. ``scorer`` returns the score of parameters in each fold, higher is better. With
    ``verbose`` a progress bar is shown, if standard error is a terminal. ``callbacks`` are told of
    each trial that is run.

    Returns ``kernel``, ``params`` and ``score`` of the best trial, the earliest of equals, and
    ``trials``, a list of dicts with ``number``, ``score``, ``fold_scores`` and ``params``.
    """
    n_finished = min(len(_finished(study)), n_trials)
    if n_finished:
        logger.info("%s: %d of %d trials were stored.", kernel, n_finished, n_trials)
    hidden = None if verbose else True
    with tqdm(total=n_trials, initial=n_finished, desc=kernel, disable=hidden) as progress:
        for number in range(n_finished, n_trials):
            _run_trial(kernel, scorer, study, [seed, zlib.crc32(kernel.encode()), number])
            progress.update()
            last = _finished(study)[-1]
            for callback in callbacks:
                found = {"kernel": kernel, "score": last.values[0], **last.params}
                callback.on_trial_end(found, number)
    return search_result(kernel, _finished(study)[:n_trials])


def _finished(study: Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])


def _run_trial(kernel: str, scorer: Scorer, study: Study, entropy: list[int]) -> None:
    if not _finished(study):
        # added when done rather than enqueued before: a run killed in between leaves no trace
        scores = scorer(DEFAULTS[kernel])
        trial = create_trial(
            params=DEFAULTS[kernel],
            distributions=SPACES[kernel],
            value=float(np.mean(scores)),
            user_attrs={"fold_scores": scores},
        )
        study.add_trial(trial)
        return
    seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    study.sampler = TPESampler(multivariate=True, constant_liar=False, seed=seed)
    asked = study.ask(SPACES[kernel])
    scores = scorer(asked.params)
    asked.set_user_attr("fold_scores", scores)
    study.tell(asked, float(np.mean(scores)))


def fingerprint(
    X: np.ndarray, y: np.ndarray, groups: Any, folds: list[Fold], settings: dict[str, Any]
) -> Fingerprint:
    """Digest all that a trial's score depends on, part by part; of settings their ``repr``."""
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
    """The studies of one fit, in memory (None), in a journal file or in a database.

    The file is created with its folder if missing; one process at a time may use it. A folder in
    its place raises IsADirectoryError. A database is named by its URL, and any number of processes
    may use it at once; a DatabaseError says that it cannot be reached.
    """

    def __init__(self, path: str | PathLike[str] | None) -> None:
        self.path = path
        self._storage: BaseStorage | None = None
        self.url = str(path) if is_url(path) else None
        if path is None:
            return
        if self.url is not None:
            with quiet_optuna():
                self._storage = open_database(self.url)
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

    def attributes(self) -> dict[str, dict[str, Any]]:
        """Return what is stored about each study, by its name."""
        if self._storage is None:
            return {}
        studies = self._storage.get_all_studies()
        return {study.study_name: dict(study.user_attrs) for study in studies}

    def seed(self, names: Sequence[str]) -> int | None:
        """Return the seed of the first stored one of some studies, or None."""
        found = self.attributes()
        return next((found[name]["seed"] for name in names if "seed" in found.get(name, {})), None)

    def open(self, name: str, current: Fingerprint, seed: int, **about: Any) -> Study:
        """Open or create a study; a trial that a killed run left in a file is marked as failed.

        A new study records ``seed``, ``current``, the result of :func:`fingerprint`, and what else
        is told about it. A stored one of another fingerprint raises StudyMismatchError.
        """
        with quiet_optuna():
            study = optuna.create_study(
                storage=self._storage, study_name=name, direction="maximize", load_if_exists=True
            )
        stored = study.user_attrs.get("fingerprint")
        if stored is None:
            for key, value in (about | {"seed": seed}).items():
                study.set_user_attr(key, value)
            study.set_user_attr("fingerprint", current)
        elif stored != current:
            parts = ", ".join(key for key in current if stored.get(key) != current[key])
            where = str(self.path) if self.url is None else shown(self.url)
            remedy = (
                "Name another file, or delete this one."
                if self.url is None
                else "Give the rows of that search and the same version, or name another study."
            )
            raise StudyMismatchError(
                f"storage={where!r} holds a study {name!r} of other {parts}, so it cannot be "
                f"resumed. {remedy}"
            )
        if self.url is not None:  # what runs there may run elsewhere
            return study
        for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            logger.info("%s: trial %d was interrupted and is run again.", name, trial.number)
            study.tell(trial.number, state=TrialState.FAIL)
        return study
