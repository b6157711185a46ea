"""The Optuna search for one kernel's hyperparameters."""

import logging
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial
from tqdm import tqdm

logger = logging.getLogger(__name__)

Params = dict[str, Any]
Scorer = Callable[[Params], float]

# gamma_factor multiplies 1 / (n_features * variance), scikit-learn's gamma="scale".
_COMMON: dict[str, BaseDistribution] = {
    "C": FloatDistribution(1e-3, 1e3, log=True),
    "class_weight": CategoricalDistribution([None, "balanced"]),
}
SPACES: dict[str, dict[str, BaseDistribution]] = {
    "linear": _COMMON,
    "rbf": _COMMON | {"gamma_factor": FloatDistribution(1e-2, 1e1, log=True)},
    "poly": _COMMON
    | {
        "gamma_factor": FloatDistribution(1e-2, 1e1, log=True),
        "degree": IntDistribution(2, 4),
        "coef0": FloatDistribution(0.0, 2.0),
    },
}
DEFAULTS: dict[str, Params] = {
    "linear": {"C": 1.0, "class_weight": None},
    "rbf": {"C": 1.0, "class_weight": None, "gamma_factor": 1.0},
    "poly": {"C": 1.0, "class_weight": None, "gamma_factor": 1.0, "degree": 3, "coef0": 1.0},
}


@dataclass(frozen=True)
class KernelSearch:
    """What the search found for one kernel: the best trial, and all of them."""

    kernel: str
    params: Params
    score: float
    trials: list[dict[str, Any]] = field(default_factory=list)


def search_kernel(
    kernel: str,
    scorers: Sequence[Scorer],
    n_trials: int,
    study: Study,
    seed: int,
    verbose: bool = False,
) -> KernelSearch:
    """Run the trials that a study still lacks and return the best of the first ``n_trials``.

    The first trial is :data:`DEFAULTS`; the others are drawn by a multivariate tree-structured
    Parzen estimator. Its sampler is seeded anew for every trial from ``seed``, the kernel and
    the number of finished trials, so an interrupted study continues as if it had not been.

    Parameters
    ----------
    kernel : {"linear", "rbf", "poly"}
        Whose :data:`SPACES` to search.
    scorers : sequence of callable
        One a fold: ``scorer(params)`` returns the fold's score, higher is better.
    n_trials : int
        Number of trials, finished ones included.
    study : optuna.Study
        Study to continue.
    seed : int
        Seed.
    verbose : bool
        Whether to show a progress bar, if standard error is a terminal.

    References
    ----------
    J. Bergstra et al., "Algorithms for hyper-parameter optimization", NeurIPS 2011.
    """
    n_finished = min(len(_finished(study)), n_trials)
    if n_finished:
        logger.info("%s: %d of %d trials were stored.", kernel, n_finished, n_trials)
    hidden = None if verbose else True
    with tqdm(total=n_trials, initial=n_finished, desc=kernel, disable=hidden) as progress:
        for number in range(n_finished, n_trials):
            _run_trial(kernel, scorers, study, [seed, zlib.crc32(kernel.encode()), number])
            progress.update()
    return _result(kernel, _finished(study)[:n_trials])


def _finished(study: Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])


def _run_trial(kernel: str, scorers: Sequence[Scorer], study: Study, entropy: list[int]) -> None:
    if not _finished(study):
        _add_default_trial(kernel, scorers, study)
        return
    seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    study.sampler = TPESampler(multivariate=True, constant_liar=False, seed=seed)
    trial = study.ask(SPACES[kernel])
    scores = [scorer(trial.params) for scorer in scorers]
    trial.set_user_attr("fold_scores", scores)
    study.tell(trial, float(np.mean(scores)))


def _add_default_trial(kernel: str, scorers: Sequence[Scorer], study: Study) -> None:
    # Added when done rather than enqueued before: a run killed in between leaves no trace.
    scores = [scorer(DEFAULTS[kernel]) for scorer in scorers]
    study.add_trial(
        create_trial(
            params=DEFAULTS[kernel],
            distributions=SPACES[kernel],
            value=float(np.mean(scores)),
            user_attrs={"fold_scores": scores},
        )
    )


def _result(kernel: str, trials: list[FrozenTrial]) -> KernelSearch:
    """Pick the best trial, the earliest of equals."""
    best = max(trials, key=lambda trial: trial.values[0])
    rows = [
        {
            "number": number,
            "score": trial.values[0],
            "fold_scores": list(trial.user_attrs["fold_scores"]),
            "params": dict(trial.params),
        }
        for number, trial in enumerate(trials)
    ]
    return KernelSearch(kernel, dict(best.params), float(best.values[0]), rows)
