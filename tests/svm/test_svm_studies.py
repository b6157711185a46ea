import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from sklearn.datasets import make_classification

from cnnsvm.svm import StudyMismatchError, TunedSVC
from cnnsvm.svm.inner_cv import InnerCV
from cnnsvm.svm.space import DEFAULTS, SPACES


@pytest.fixture(scope="module")
def data():
    X, y = make_classification(60, 8, n_informative=3, class_sep=0.5, flip_y=0.2, random_state=1)
    return X, y, [i // 2 for i in range(60)]


@pytest.fixture
def stop_after(monkeypatch):
    """Interrupt the search at its n-th fold; without n, only count the folds."""
    original = InnerCV.fold_auc

    def arrange(n=float("inf")):
        calls = []

        def fold_auc(self, *args):
            calls.append(args)
            if len(calls) > n:
                raise KeyboardInterrupt
            return original(self, *args)

        monkeypatch.setattr(InnerCV, "fold_auc", fold_auc)
        return calls

    return arrange


def make(storage=None, **params):
    return TunedSVC(**{"n_trials": 16, "cv": 3, "random_state": 0, "storage": storage} | params)


def stored_trials(path, kernel="rbf"):
    storage = JournalStorage(JournalFileBackend(str(path)))
    return optuna.load_study(study_name=f"TunedSVC {kernel}", storage=storage).trials


@pytest.mark.parametrize("n_folds_done", [0, 1, 4, 25])
def test_an_interrupted_search_resumes_as_if_it_had_not_been(
    data, tmp_path, stop_after, n_folds_done
):
    expected = make().fit(*data)
    path = tmp_path / "new" / "studies.log"
    stop_after(n_folds_done)
    with pytest.raises(KeyboardInterrupt):
        make(path).fit(*data)
    stop_after()
    resumed = make(path).fit(*data)
    assert resumed.search_results_ == expected.search_results_
    assert resumed.best_params_ == expected.best_params_


def test_interrupted_trials_are_marked_and_not_counted(data, tmp_path, stop_after):
    path = tmp_path / "studies.log"
    stop_after(7)
    with pytest.raises(KeyboardInterrupt):
        make(path).fit(*data)
    assert [trial.state.name for trial in stored_trials(path)][-1] == "RUNNING"
    stop_after()
    model = make(path).fit(*data)
    states = [trial.state.name for trial in stored_trials(path)]
    assert states.count("FAIL") == 1
    assert "RUNNING" not in states
    assert len(states) == 17
    assert len(model.search_results_[0]["trials"]) == 16


def test_a_finished_study_runs_nothing_and_a_larger_one_the_rest(data, tmp_path, stop_after):
    path = tmp_path / "studies.log"
    make(path, n_trials=3).fit(*data)
    calls = stop_after()
    again = make(path, n_trials=3).fit(*data)
    assert calls == []
    grown = make(path, n_trials=16).fit(*data)
    assert len(calls) == 39
    assert grown.search_results_ == make().fit(*data).search_results_
    shrunk = make(path, n_trials=3).fit(*data)
    assert shrunk.search_results_ == again.search_results_


def test_each_kernel_has_its_study(data, tmp_path, stop_after):
    path = tmp_path / "studies.log"
    make(path, n_trials=2).fit(*data)
    calls = stop_after()
    make(path, n_trials=2, kernel=("rbf", "linear")).fit(*data)
    assert len(calls) == 6
    assert len(stored_trials(path, "linear")) == 2


@pytest.mark.parametrize(
    ("change", "named"), [("X", "X"), ("y", "y"), ("groups", "groups"), ("seed", "settings")]
)
def test_other_data_or_settings_are_refused(data, tmp_path, change, named):
    X, y, groups = (list(part) if change == "groups" else part.copy() for part in data)
    path = tmp_path / "studies.log"
    make(path, n_trials=1).fit(*data)
    model = make(path, n_trials=1)
    if change == "X":
        X[3, 2] += 1e-9
    elif change == "y":
        y[0] = 1 - y[0]
    elif change == "groups":
        groups[0] = 99
    else:
        model.set_params(random_state=1)
    with pytest.raises(StudyMismatchError, match=rf"studies.log.*\b{named}\b"):
        model.fit(X, y, groups)


def test_without_a_seed_the_stored_one_is_used(data, tmp_path):
    path = tmp_path / "studies.log"
    first = make(path, n_trials=3, random_state=None).fit(*data)
    again = make(path, n_trials=3, random_state=None).fit(*data)
    assert first.search_results_ == again.search_results_


def test_a_folder_is_no_storage(data, tmp_path):
    with pytest.raises(IsADirectoryError, match="name a file in it, such as"):
        make(tmp_path).fit(*data)


@pytest.mark.parametrize("kernel", SPACES)
def test_trials_start_with_the_defaults_and_stay_in_the_space(data, kernel):
    (study,) = make(kernel=kernel, n_trials=14).fit(*data).search_results_
    trials = study["trials"]
    assert trials[0]["params"] == DEFAULTS[kernel]
    assert [trial["number"] for trial in trials] == list(range(14))
    for trial in trials:
        for name, value in trial["params"].items():
            space = SPACES[kernel][name]
            assert space._contains(space.to_internal_repr(value))
        assert trial["score"] == pytest.approx(sum(trial["fold_scores"]) / 3)
    assert study["score"] == max(trial["score"] for trial in trials)
