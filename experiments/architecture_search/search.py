"""Architecture search: which operations the cells of IID-Net should have.

Each candidate is trained for a few epochs on small patches, the proxy task, and scored by the
pooled AUC of the pixels of validation images: after so few steps it says more than the IoU at a
fixed threshold. Optuna proposes candidates (Bergstra et al., "Algorithms for hyper-parameter
optimization", NIPS 2011: the tree-structured Parzen estimator) and stops those that fall behind.
Wu & Zhou searched the same space with one network that shared its weights among 1,000 sampled
candidates (IEEE TCSVT 32(3), 2022); here each has its own, so that scores compare.
"""

import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import optuna
from optuna.pruners import BasePruner, MedianPruner
from optuna.samplers import TPESampler
from optuna.study import Study
from optuna.trial import Trial, TrialState
from sklearn.base import clone

import cnnsvm
from cnnsvm.data.splits import encode_groups, grouped_folds
from cnnsvm.features.devices import choose_device
from cnnsvm.features.trainer import TrainingOptions
from cnnsvm.localization.architectures.iidnet import (
    N_CELLS,
    N_CHOICES,
    OPERATIONS,
    PUBLISHED,
    Genotype,
)
from cnnsvm.localization.fitting import survey, training_options, validation_split
from cnnsvm.localization.localizer import InpaintLocalizer
from cnnsvm.localization.masks import check_training_pairs
from cnnsvm.localization.patches import Pairs
from cnnsvm.localization.trainer import LocalizerTrainer
from cnnsvm.svm.search import StudyStore
from cnnsvm.svm.space import quiet_optuna

logger = logging.getLogger(__name__)

STUDY = "iidnet"
_DONE = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass
class Proxy:
    """The task that candidates are compared by.

    Parameters
    ----------
    localizer : InpaintLocalizer
        What the candidates are, but for their cells.
    pairs : Pairs
    fit, valid, test : ndarray of int
        Images that train, that the search scores by, and that it never sees. No source is in
        two of them.
    options : TrainingOptions
        Its epochs are those of a candidate that is not stopped.
    digest : str
        Of the pixels, masks and sources.
    """

    localizer: InpaintLocalizer
    pairs: Pairs
    fit: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    options: TrainingOptions
    digest: str


def make_proxy(
    localizer: InpaintLocalizer, images: Any, masks: Any = None, groups: Any = None
) -> Proxy:
    """Read the images and split them three ways by source.

    Parameters
    ----------
    localizer : InpaintLocalizer
        Unfitted, of the architecture "iidnet": its size, training parameters and seed are the
        candidates'. A fifth of the sources is kept for the comparison at the end, and
        ``validation_fraction`` of the others scores candidates.
    images, masks, groups
        As for `InpaintLocalizer.fit`.

    Raises
    ------
    ValueError
        If a parameter, image or mask cannot be, or there are too few sources for three parts.
    """
    localizer.check_params()
    if localizer.architecture != "iidnet":
        raise ValueError(
            f"only 'iidnet' has cells to be searched for, got {localizer.architecture!r}."
        )
    random_state: Any = localizer.random_state
    seed = int(random_state or 0)
    localizer.build_network(seed)  # an unknown size is an error before images are read
    listed, listed_masks, given = check_training_pairs(images, masks, groups)
    device = choose_device(localizer.device, localizer.gpu_memory_fraction)
    options = training_options(localizer, device, seed)
    pairs = Pairs(listed, listed_masks, localizer.mask_policy)
    sources = encode_groups(given, len(listed))
    shares, digests = survey(pairs, options.n_jobs)
    known, test = grouped_folds(np.ones(len(listed)), sources, 5, seed)[0]
    fraction = localizer.settings.validation_fraction
    fit, valid = validation_split(shares[known] > 0, sources[known], fraction, seed)
    if not len(valid) or not shares[test].any():
        raise ValueError(
            f"{len(np.unique(sources))} sources are too few to train, score and compare on "
            "different ones. Give at least 5 that have repainted images."
        )
    digest = hashlib.sha256(b"".join(digests) + sources.tobytes()).hexdigest()
    return Proxy(localizer, pairs, known[fit], known[valid], test, options, digest)


def search_genotype(
    proxy: Proxy,
    n_trials: int,
    storage: str | os.PathLike[str] | None = None,
    pruner: BasePruner | None = None,
) -> Study:
    """Search for the operations of the cells, the published ones being the first candidate.

    Parameters
    ----------
    proxy : Proxy
    n_trials : int
        Candidates in all, also those that an earlier call tried.
    storage : path or None
        Journal file of the study. Killed and called again, the search goes on: a candidate that
        was being trained is begun anew, and the others are proposed as they would have been.
    pruner : BasePruner or None
        Stops candidates after an epoch; None is the median rule after five candidates.

    Returns
    -------
    Study
        Of Optuna; `best_genotype` reads what it found.

    Raises
    ------
    ValueError
        If ``n_trials`` is below 1.
    StudyMismatchError
        If the file holds a search on other data or settings.
    """
    if n_trials < 1:
        raise ValueError(f"n_trials must be at least 1, got {n_trials!r}.")
    seed = proxy.options.random_state
    settings = asdict(proxy.options) | {"n_jobs": 0, "device": None}
    settings |= proxy.localizer.settings.get_params() | {"size": proxy.localizer.size}
    named = {"data": proxy.digest, "settings": repr(sorted(settings.items()))}
    current = {key: hashlib.sha256(value.encode()).hexdigest() for key, value in named.items()}
    study = StudyStore(storage).open(STUDY, current | {"version": cnnsvm.__version__}, seed)
    study.pruner = pruner or MedianPruner(n_startup_trials=5, n_warmup_steps=1)
    while (n_done := count_done(study)) < n_trials:
        # of the number of candidates alone: an interruption changes nothing
        study.sampler = TPESampler(seed=_seed_of(seed, n_done), multivariate=True)
        with quiet_optuna():
            if not n_done and not study.get_trials(deepcopy=False, states=[TrialState.WAITING]):
                study.enqueue_trial(_as_params(PUBLISHED))
            study.optimize(lambda trial: _score(trial, proxy), n_trials=1)
        last = study.trials[-1]
        logger.info("candidate %d of %d: %s", n_done + 1, n_trials, _said(last))
    return study


def best_genotype(study: Study) -> Genotype:
    """Return the operations of the best candidate that was trained to the end.

    Raises
    ------
    ValueError
        If there is none.
    """
    if not any(trial.state == TrialState.COMPLETE for trial in study.get_trials(deepcopy=False)):
        raise ValueError(
            "no candidate was trained to the end: all diverged or fell behind. Lower the learning "
            "rate, or raise the number of candidates."
        )
    found = study.best_trial.params
    return tuple(
        tuple(found[_name(cell, place)] for place in range(N_CHOICES)) for cell in range(N_CELLS)
    )


def train_candidate(genotype: Sequence[Sequence[str]], proxy: Proxy, seed: int) -> dict[str, float]:
    """Train a candidate for all epochs and judge it on sources that the search never saw.

    Parameters
    ----------
    genotype : sequence of 10 sequences of 3 str
    proxy : Proxy
    seed : int
        Of weights and patches.

    Returns
    -------
    dict of str to float
        ``auc`` and ``iou`` of the last epoch, pooled over the pixels; nan after a divergence.
    """
    trainer = _trainer(genotype, proxy, proxy.test, seed)
    entry: dict[str, Any] = {}
    for _ in range(proxy.options.epochs):
        entry = trainer.run_epoch()
        trainer.history.append(entry)
    return {name: float(entry.get(f"valid_{name}", np.nan)) for name in ("auc", "iou")}


def count_done(study: Study) -> int:
    """Count the candidates that were trained to the end or stopped."""
    return sum(trial.state in _DONE for trial in study.get_trials(deepcopy=False))


def _score(trial: Trial, proxy: Proxy) -> float:
    """Train one candidate, and report its AUC after each epoch."""
    names = list(OPERATIONS)
    genotype = [
        [trial.suggest_categorical(_name(cell, place), names) for place in range(N_CHOICES)]
        for cell in range(N_CELLS)
    ]
    trainer = _trainer(genotype, proxy, proxy.valid, proxy.options.random_state)
    score = 0.0
    for epoch in range(proxy.options.epochs):
        entry = trainer.run_epoch()
        trainer.history.append(entry)  # the next epoch draws other patches
        if "valid_auc" not in entry:
            raise optuna.TrialPruned("diverged")
        score = entry["valid_auc"]
        trial.report(score, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned("fell behind")
    return score


def _trainer(
    genotype: Sequence[Sequence[str]], proxy: Proxy, judged: np.ndarray, seed: int
) -> LocalizerTrainer:
    network = clone(proxy.localizer).set_params(genotype=genotype).build_network(seed)
    options = replace(proxy.options, random_state=seed)
    settings = proxy.localizer.settings
    return LocalizerTrainer(network, proxy.pairs, proxy.fit, judged, options, settings)


def _seed_of(seed: int, n_done: int) -> int:
    return int(np.random.SeedSequence([seed, n_done]).generate_state(1)[0])


def _name(cell: int, place: int) -> str:
    return f"cell_{cell}_{place}"


def _as_params(genotype: Genotype) -> dict[str, str]:
    return {
        _name(cell, place): operation
        for cell, operations in enumerate(genotype)
        for place, operation in enumerate(operations)
    }


def _said(trial: Any) -> str:
    if trial.state == TrialState.COMPLETE:
        return f"AUC {trial.value:.3f}"
    return f"stopped after {len(trial.intermediate_values)} epoch(s)"
