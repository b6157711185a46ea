"""A search that processes on many hosts share: its points are fixed by the seed alone.

Which process runs which trial, how many there are and when one dies changes nothing of the result:
trial number k of a search has the same point everywhere, so that the same trials are run, and the
best of them is that of one process.
"""

import logging
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.samplers import QMCSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from cnnsvm.io.callbacks import Callback
from cnnsvm.svm import database
from cnnsvm.svm.database import MOST_TRIES, DatabaseError, patiently
from cnnsvm.svm.space import DEFAULTS, SPACES, Params, Scorer, quiet_optuna, search_result

logger = logging.getLogger(__name__)

NUMBER = "number"  # of a trial in the search; one that was lost and its repetition share it
AHEAD = 8  # trials that wait: each look at a study reads all that are not finished
POLL = 0.2  # seconds
LATE = 5  # heartbeats, after which a process without work runs what another one is at
_ALIVE = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE)


def search_points(kernel: str, n_trials: int, seed: int) -> list[Params]:
    """Return the points of a shared search: :data:`DEFAULTS`, then a scrambled Sobol sequence.

    They depend on ``seed`` and the kernel alone, and those of a longer search begin with those of
    a shorter one. A Sobol sequence fills the space more evenly than random points (J. Bergstra and
    Y. Bengio, "Random search for hyper-parameter optimization", JMLR 13, 2012, compare both);
    unlike a tree-structured Parzen estimator it learns nothing from the scores, which arrive in
    another order with every set of hosts.
    """
    entropy = np.random.SeedSequence([seed, zlib.crc32(kernel.encode())])
    number = int(entropy.generate_state(1)[0])
    with quiet_optuna(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        sampler = QMCSampler(
            scramble=True,
            seed=number,
            independent_sampler=RandomSampler(number),  # for what has no order
            warn_independent_sampling=False,
        )
        drawn = optuna.create_study(sampler=sampler)
    drawn.add_trial(
        optuna.trial.create_trial(params=DEFAULTS[kernel], distributions=SPACES[kernel], value=0.0)
    )
    points = [dict(DEFAULTS[kernel])]
    while len(points) < n_trials:
        asked = drawn.ask(SPACES[kernel])
        points.append(dict(asked.params))
        drawn.tell(asked, 0.0)
    return points[:n_trials]


def search_shared(
    kernel: str,
    scorer: Scorer,
    n_trials: int,
    study: Study,
    seed: int,
    url: str,
    callbacks: Sequence[Callback] = (),
) -> dict[str, Any]:
    """Run trials until all ``n_trials`` are finished, here or elsewhere; return the best.

    The arguments and the result are as for `cnnsvm.svm.search.search_kernel`; ``url`` is the
    database of the study, which is waited for if it goes away. Trials whose process died are run
    again; a DatabaseError is raised if one did :data:`MOST_TRIES` times.
    """
    study.sampler = RandomSampler()  # every point is given
    points = search_points(kernel, n_trials, seed)

    def step() -> bool:
        return _step(study, kernel, points, scorer, url, callbacks)

    with quiet_optuna():
        while not patiently(url, step):
            pass
        trials = _finished(patiently(url, lambda: study.get_trials(deepcopy=False)))
    return search_result(kernel, [trials[number] for number in range(n_trials)])


def _step(
    study: Study,
    kernel: str,
    points: list[Params],
    scorer: Scorer,
    url: str,
    callbacks: Sequence[Callback],
) -> bool:
    """Run a trial, or wait for one that runs elsewhere; return whether all are finished."""
    trials = study.get_trials(deepcopy=False)
    finished = _finished(trials)
    if all(number in finished for number in range(len(points))):
        return True
    states = Counter(trial.state for trial in trials)
    if states[TrialState.WAITING]:
        _run_one(study, lambda trial: _objective(trial, kernel, scorer, url, callbacks))
    elif not _enqueue(study, trials, points):
        time.sleep(POLL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            optuna.storages.fail_stale_trials(study)
    return False


def _run_one(study: Study, objective: Callable[[Trial], float]) -> None:
    """Run a trial that waits; what another process has finished meanwhile is left as it is."""
    ended: list[int] = []

    def noted(trial: Trial) -> float:
        try:
            score = objective(trial)
        except (optuna.TrialPruned, UpdateFinishedTrialError):
            ended.append(trial.number)
            raise
        ended.append(trial.number)
        return score

    try:
        study.optimize(noted, n_trials=1)
    except Exception:  # Optuna fails an assertion of its own if that shows at the very end
        # it counted as lost, such as on a host that slept, and runs or ran elsewhere
        if not ended or not study.get_trials(deepcopy=False)[ended[0]].state.is_finished():
            raise
        logger.warning("trial %d took too long and was given to another process", ended[0])


def _objective(
    trial: Trial, kernel: str, scorer: Scorer, url: str, callbacks: Sequence[Callback]
) -> float:
    number = trial.user_attrs.get(NUMBER)
    if number is None or patiently(url, lambda: _is_taken(trial, number)):
        raise optuna.TrialPruned  # another process took the one that waited, or queued it twice
    params = {name: _suggest(trial, name, space) for name, space in SPACES[kernel].items()}
    scores = scorer(params)
    patiently(url, lambda: trial.set_user_attr("fold_scores", scores))
    score = float(np.mean(scores))
    for callback in callbacks:
        callback.on_trial_end({"kernel": kernel, "score": score, **params}, number)
    return score


def _suggest(trial: Trial, name: str, space: Any) -> Any:
    if isinstance(space, CategoricalDistribution):
        return trial.suggest_categorical(name, space.choices)
    if isinstance(space, IntDistribution):
        return trial.suggest_int(name, space.low, space.high)
    return trial.suggest_float(name, space.low, space.high, log=space.log)


def _enqueue(study: Study, trials: list[FrozenTrial], points: list[Params]) -> bool:
    """Queue the next points that no process runs, waits with or has finished; tell whether any.

    One that has run for long is queued again, as its process may have died before its first sign of
    life. Two processes may queue the same point at once: `_is_taken` leaves the later one out. What
    is run twice all the same has the same result, and is counted once.
    """
    there = {t.user_attrs.get(NUMBER) for t in trials if t.state in _ALIVE and not _is_late(t)}
    tries = Counter(t.user_attrs.get(NUMBER) for t in trials if t.state == TrialState.FAIL)
    missing = [number for number in range(len(points)) if number not in there][:AHEAD]
    for number in missing:
        if tries[number] >= MOST_TRIES:
            raise DatabaseError(
                f"trial {number} of {study.study_name!r} ended its process {tries[number]} times "
                f"({points[number]}). Look into the logs of the workers. If memory ran out, lower "
                "cache_size or use n_landmarks."
            )
        study.enqueue_trial(points[number], user_attrs={NUMBER: number})
    return bool(missing)


def _is_late(trial: FrozenTrial) -> bool:
    if trial.state != TrialState.RUNNING or trial.datetime_start is None:
        return False
    return (datetime.now() - trial.datetime_start).total_seconds() > LATE * database.HEARTBEAT


def _is_taken(trial: Trial, number: int) -> bool:
    """Tell whether an earlier trial of the same point is finished, or runs."""
    return any(
        each.user_attrs.get(NUMBER) == number and each.number < trial.number
        for each in trial.study.get_trials(
            deepcopy=False, states=[TrialState.COMPLETE, TrialState.RUNNING]
        )
        if not _is_late(each)
    )


def _finished(trials: Sequence[FrozenTrial]) -> dict[int, FrozenTrial]:
    """Return the finished trials by their number in the search, of a repeated one the first."""
    found: dict[int, FrozenTrial] = {}
    for trial in trials:
        if trial.state == TrialState.COMPLETE:
            found.setdefault(trial.user_attrs[NUMBER], trial)
    return found
