import numpy as np
import optuna
import pytest
import tiny_localizer
from tiny_localizer import paintings

from architecture_search import search
from architecture_search.search import (
    best_genotype,
    count_done,
    make_proxy,
    search_genotype,
    train_candidate,
)
from cnnsvm import InpaintLocalizer
from cnnsvm.localization.architectures.iidnet import OPERATIONS, PUBLISHED
from cnnsvm.svm import StudyMismatchError

SETTINGS = {"size": "small", "crop_size": 32, "epochs": 2, "n_crops": 1, "random_state": 0}
SETTINGS |= {"augmentation": "none", "precision": "float32", "validation_fraction": 0.5}


def localizer(**changes):
    return tiny_localizer.localizer(**(SETTINGS | changes))


@pytest.fixture(scope="module")
def pairs():
    return paintings(0, 10)


@pytest.fixture(scope="module")
def proxy(pairs):
    return make_proxy(localizer(), *pairs, groups=np.arange(10) // 2)


@pytest.fixture
def quick(monkeypatch):
    """Score a candidate by its share of identities, without training it."""

    class Trainer:
        def __init__(self, genotype, seed):
            self.score = np.mean([name == "identity" for cell in genotype for name in cell])
            self.history = []

        def run_epoch(self):
            return {"valid_auc": float(self.score) + 0.01 * len(self.history)}

    made = []

    def build(genotype, proxy, judged, seed):
        made.append(tuple(map(tuple, genotype)))
        return Trainer(genotype, seed)

    monkeypatch.setattr(search, "_trainer", build)
    return made


def test_no_source_is_in_two_parts(proxy):
    sources = np.arange(10) // 2
    parts = [set(sources[part]) for part in (proxy.fit, proxy.valid, proxy.test)]
    assert all(parts)
    assert len(set.union(*parts)) == sum(map(len, parts)) == 5


def test_a_candidate_is_trained_on_one_part_and_judged_on_another(proxy):
    scores = train_candidate(PUBLISHED, proxy, seed=0)
    assert 0 <= scores["auc"] <= 1
    assert train_candidate(PUBLISHED, proxy, seed=0) == scores
    other = (("identity",) * 3,) * 10
    assert train_candidate(other, proxy, seed=0) != scores


def test_a_search_trains_real_candidates(proxy, tmp_path):
    study = search_genotype(proxy, 2, tmp_path / "study.log")
    assert len(best_genotype(study)) == 10
    assert all(0 <= trial.value <= 1 for trial in study.trials)
    assert all(len(trial.intermediate_values) == 2 for trial in study.trials)


def test_the_published_genotype_comes_first(proxy, quick):
    search_genotype(proxy, 3)
    assert quick[0] == PUBLISHED
    assert len(set(quick)) == 3
    assert {name for genotype in quick for cell in genotype for name in cell} == set(OPERATIONS)


def test_the_best_is_found(proxy, quick):
    study = search_genotype(proxy, 25)
    shares = [np.mean([n == "identity" for cell in g for n in cell]) for g in quick]
    found = best_genotype(study)
    assert np.mean([n == "identity" for cell in found for n in cell]) == max(shares)
    assert max(shares[10:]) > max(shares[:10])  # it learns


def test_candidates_that_fall_behind_are_stopped(proxy, quick):
    pruner = optuna.pruners.ThresholdPruner(lower=2)
    study = search_genotype(proxy, 2, pruner=pruner)
    assert [trial.state.name for trial in study.trials] == ["PRUNED", "PRUNED"]
    assert all(len(trial.intermediate_values) == 1 for trial in study.trials)
    with pytest.raises(ValueError, match="no candidate was trained to the end"):
        best_genotype(study)


@pytest.mark.parametrize("n_before", [0, 3])
def test_a_killed_search_goes_on_as_it_would_have(proxy, quick, tmp_path, monkeypatch, n_before):
    search_genotype(proxy, 6, tmp_path / "whole.log")
    whole = list(quick)
    quick.clear()
    if n_before:
        search_genotype(proxy, n_before, tmp_path / "parts.log")
    usual = search._score

    def killed(trial, proxy):
        usual(trial, proxy)
        raise KeyboardInterrupt

    monkeypatch.setattr(search, "_score", killed)
    with pytest.raises(KeyboardInterrupt):
        search_genotype(proxy, 6, tmp_path / "parts.log")
    monkeypatch.setattr(search, "_score", usual)
    study = search_genotype(proxy, 6, tmp_path / "parts.log")
    assert count_done(study) == 6
    assert quick[:n_before] + quick[n_before + 1 :] == whole


def test_a_search_on_other_data_or_settings_is_not_taken_up(proxy, quick, pairs, tmp_path):
    file = tmp_path / "study.log"
    search_genotype(proxy, 1, file)
    images, masks = pairs
    for made in (
        make_proxy(localizer(learning_rate=0.1), *pairs, groups=np.arange(10) // 2),
        make_proxy(localizer(), images[::-1], masks[::-1], groups=np.arange(10) // 2),
    ):
        with pytest.raises(StudyMismatchError):
            search_genotype(made, 2, file)


def test_what_cannot_be_is_refused(proxy, pairs):
    with pytest.raises(ValueError, match="n_trials must be at least 1, got 0"):
        search_genotype(proxy, 0)
    with pytest.raises(ValueError, match="only 'iidnet' has cells"):
        make_proxy(InpaintLocalizer("nixnet"), *pairs)
    with pytest.raises(ValueError, match=r"5 folds|too few"):
        make_proxy(localizer(), *pairs, groups=np.arange(10) // 5)
