"""What is searched: the hyperparameters of each kernel, and what a search returns."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial

Params = dict[str, Any]
Scorer = Callable[[Params], list[float]]

# gamma_factor multiplies 1 / (n_features * variance), scikit-learn's gamma="scale".
_COMMON: dict[str, BaseDistribution] = {
    "C": FloatDistribution(1e-3, 1e3, log=True),
    "class_weight": CategoricalDistribution([None, "balanced"]),
}
_RBF = _COMMON | {"gamma_factor": FloatDistribution(1e-2, 1e1, log=True)}
_POLY = {"degree": IntDistribution(2, 4), "coef0": FloatDistribution(0.0, 2.0)}
SPACES: dict[str, dict[str, BaseDistribution]] = {
    "linear": _COMMON,
    "rbf": _RBF,
    "poly": _RBF | _POLY,
}
DEFAULTS: dict[str, Params] = {
    "linear": {"C": 1.0, "class_weight": None},
    "rbf": {"C": 1.0, "class_weight": None, "gamma_factor": 1.0},
    "poly": {"C": 1.0, "class_weight": None, "gamma_factor": 1.0, "degree": 3, "coef0": 1.0},
}


def search_result(kernel: str, trials: Sequence[FrozenTrial]) -> dict[str, Any]:
    """Return ``kernel``, ``params`` and ``score`` of the best trial, the earliest of equals.

    ``trials`` lists all, as dicts with ``number``, ``score``, ``fold_scores`` and ``params``.
    """
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
    score = float(best.values[0])
    return {"kernel": kernel, "params": dict(best.params), "score": score, "trials": rows}


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Keep Optuna from announcing studies on standard error; its verbosity is restored."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(verbosity, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)
