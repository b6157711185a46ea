import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState
from postgres_server import Server, find_binaries, find_user
from sklearn.datasets import make_classification

from cnnsvm.io.callbacks import Callback
from cnnsvm.svm import DatabaseError, StudyMismatchError, TunedSVC, database, shared_search
from cnnsvm.svm.inner_cv import InnerCV
from cnnsvm.svm.search import StudyStore
from cnnsvm.svm.shared_search import search_points
from cnnsvm.svm.space import DEFAULTS, SPACES
from cnnsvm.svm.workers import join_search, load_rows, save_rows

N_TRIALS = 8
#: A worker that takes a moment for each trial, so that there is a middle to be killed in.
SLOW = """
import sys, time
from cnnsvm.svm import database, workers
from cnnsvm.svm.inner_cv import InnerCV
database.PATIENCE = 60.0
scored = InnerCV.fold_aucs
def fold_aucs(self, params):
    time.sleep(0.3)
    return scored(self, params)
InnerCV.fold_aucs = fold_aucs
database.HEARTBEAT = 1
print(workers.join_search(*sys.argv[1:])[0]["score"])
"""


@pytest.fixture(scope="module")
def server():
    binaries, user = find_binaries(), find_user()
    pytest.importorskip("psycopg", reason="psycopg, the driver of PostgreSQL, is not installed")
    if binaries is None or user is None:
        pytest.skip("PostgreSQL is not installed, or nobody but root could run it")
    folder = tempfile.mkdtemp(prefix="postgres-")  # short: sockets have names of 107 bytes
    running = Server(folder, binaries, user)
    yield running
    running.kill()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def data():
    X, y = make_classification(60, 8, n_informative=3, class_sep=0.5, flip_y=0.2, random_state=1)
    return X, np.array(["real", "fake"])[y], np.arange(60) // 2


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory):
    """Return the search of one process, in a database of its own."""
    return make(f"sqlite:///{tmp_path_factory.mktemp('alone')}/s.db").search(*data)


@pytest.fixture
def short_heartbeat(monkeypatch):
    monkeypatch.setattr(database, "HEARTBEAT", 1)


def make(storage, study="search", **params):
    params = {"n_trials": N_TRIALS, "random_state": 0} | params
    return TunedSVC(storage=storage, study=study, **params)


def begin(url, study, data, folder, n_trials=N_TRIALS):
    """Store a search of which no trial is finished, and its rows."""

    def stop(self, params):
        raise MemoryError

    model = make(url, study, n_trials=n_trials)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InnerCV, "fold_aucs", stop)
        with pytest.raises(MemoryError):
            model.search(*data)
    return save_rows(folder / "search-rows.npz", *data)


def start_worker(url, study, rows):
    command = [sys.executable, "-c", SLOW, url, study, str(rows)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def states(url, study):
    """Return the trials of a study by state."""
    trials = optuna.load_study(study_name=f"{study} rbf", storage=StudyStore(url)._storage).trials
    return [trial.state.name for trial in trials]


def wait_for(url, study, n):
    """Wait until n trials are finished."""
    until = time.monotonic() + 60
    while states(url, study).count("COMPLETE") < n:
        assert time.monotonic() < until
        time.sleep(0.1)


def test_two_workers_find_what_one_process_finds(server, data, alone, tmp_path, short_heartbeat):
    rows = begin(server.url, "two", data, tmp_path)
    workers = [start_worker(server.url, "two", rows) for _ in range(2)]
    for worker in workers:
        out, err = worker.communicate(timeout=120)
        assert worker.returncode == 0, err[-2000:]
        assert float(out) == alone[0]["score"]
    assert make(server.url, "two").search(*data) == alone


def test_a_killed_worker_and_a_killed_server_lose_nothing(
    server, data, alone, tmp_path, short_heartbeat
):
    rows = begin(server.url, "killed", data, tmp_path)
    first = start_worker(server.url, "killed", rows)
    wait_for(server.url, "killed", 2)
    first.kill()
    first.communicate()
    second = start_worker(server.url, "killed", rows)
    wait_for(server.url, "killed", 4)
    server.kill()
    time.sleep(1)
    assert second.poll() is None  # it waits
    server.start()
    out, err = second.communicate(timeout=60)
    assert second.returncode == 0, err[-2000:]
    assert "does not answer; it is waited for" in err
    assert float(out) == alone[0]["score"]
    assert make(server.url, "killed").search(*data) == alone


def test_a_server_that_stays_away_is_an_error_and_the_work_stays(
    server, data, alone, monkeypatch, tmp_path, short_heartbeat
):
    monkeypatch.setattr(database.patiently, "__defaults__", (0.5,))
    scored, calls = InnerCV.fold_aucs, []

    def fold_aucs(self, params):
        calls.append(params)
        if len(calls) == 4:
            server.kill()
        return scored(self, params)

    monkeypatch.setattr(InnerCV, "fold_aucs", fold_aucs)
    with pytest.raises(DatabaseError, match=r"does not answer .* Finished trials stay there"):
        make(server.url, "away").search(*data)
    server.start()
    assert make(server.url, "away").search(*data) == alone
    assert len(calls) <= N_TRIALS + 1  # the three finished ones were not run again


def test_points_depend_on_seed_and_kernel_and_stay_in_the_space():
    for kernel, space in SPACES.items():
        points = search_points(kernel, 9, 3)
        assert points[0] == DEFAULTS[kernel]
        assert points[:5] == search_points(kernel, 5, 3)
        assert points != search_points(kernel, 9, 4)
        for point in points:
            assert all(space[k]._contains(space[k].to_internal_repr(v)) for k, v in point.items())


def test_processes_that_begin_at_once_run_each_trial_once_or_with_one_result(
    data, alone, tmp_path, monkeypatch
):
    url = f"sqlite:///{tmp_path}/s.db"
    found, queue = [], shared_search._enqueue
    barrier = threading.Barrier(2)
    arrived = []

    def at_once(*args):
        if len(arrived) < 2:
            arrived.append(None)
            barrier.wait(20)
        return queue(*args)

    make(url, n_trials=1).search(*data)  # the tables are there
    monkeypatch.setattr(shared_search, "_enqueue", at_once)
    threads = [
        threading.Thread(target=lambda: found.append(make(url).search(*data))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [alone, alone]


class Death(BaseException):
    """The end of a process, which says nothing to the database."""


@pytest.mark.parametrize("end", [MemoryError, Death])
def test_a_trial_that_ends_every_process_is_an_error(data, tmp_path, monkeypatch, end):
    url = f"sqlite:///{tmp_path}/s.db"

    def fold_aucs(self, params):
        raise end

    monkeypatch.setattr(InnerCV, "fold_aucs", fold_aucs)
    for _ in range(database.MOST_TRIES):
        with pytest.raises(end):
            make(url, n_trials=1).search(*data)
        with sqlite3.connect(tmp_path / "s.db") as tables:
            tables.execute("update trial_heartbeats set heartbeat = '2000-01-01 00:00:00.000000'")
    with pytest.raises(DatabaseError, match=r"trial 0 of 'search rbf' ended its process 4 t"):
        make(url, n_trials=1).search(*data)


class Loser(Callback):
    """Does what another process does that takes this one for dead, once, when a trial ends."""

    def __init__(self, url):
        self.url = url

    def on_trial_end(self, found, number):
        if self.url:
            study = optuna.load_study(
                study_name="search rbf", storage=StudyStore(self.url)._storage
            )
            (running,) = study.get_trials(states=[TrialState.RUNNING])
            study.tell(running.number, state=TrialState.FAIL)
        self.url = None


def test_a_trial_that_counts_as_lost_when_it_is_scored_is_run_again(data, alone, tmp_path):
    url = f"sqlite:///{tmp_path}/s.db"
    assert make(url, callbacks=[Loser(url)]).search(*data) == alone
    assert states(url, "search") == ["FAIL", *["COMPLETE"] * N_TRIALS]


@pytest.mark.parametrize("changed", [0, 1, 2])
def test_a_worker_with_other_rows_is_refused(data, tmp_path, changed):
    url = f"sqlite:///{tmp_path}/s.db"
    make(url, n_trials=2).search(*data)
    other = [part.copy() for part in data]
    others = np.flatnonzero((other[changed] != other[changed][0]).reshape(60, -1).any(axis=1))
    other[changed][0] = other[changed][others[0]]
    rows = save_rows(tmp_path / "rows.npz", *other)
    named = ("X", "y", "groups")[changed]
    with pytest.raises(StudyMismatchError, match=rf"'search rbf' of other .*\b{named}\b.*Give the"):
        join_search(url, "search", rows)


def test_a_worker_of_another_version_is_refused(data, tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path}/s.db"
    make(url, n_trials=2).search(*data)
    rows = save_rows(tmp_path / "rows.npz", *data)
    monkeypatch.setattr("cnnsvm.__version__", "0.0.1")
    with pytest.raises(StudyMismatchError, match="of other version"):
        join_search(url, "search", rows)


def test_rows_come_back_as_they_were(data, tmp_path):
    save_rows(tmp_path / "search-rows.npz", *data)
    for found, given in zip(load_rows(tmp_path), data, strict=True):
        np.testing.assert_array_equal(found.astype(given.dtype), given)
    assert load_rows(save_rows(tmp_path / "x.npz", *data[:2]))[2] is None


def test_what_a_worker_lacks_is_said(data, tmp_path):
    url = f"sqlite:///{tmp_path}/s.db"
    rows = save_rows(tmp_path / "rows.npz", *data)
    with pytest.raises(ValueError, match=r"--study 'search' is not in .*Start it by"):
        join_search(url, "search", rows)
    with pytest.raises(FileNotFoundError, match=r"there is no search-rows\.npz"):
        join_search(url, "search", tmp_path / "missing")
    with pytest.raises(ValueError, match="no URL of a database"):
        join_search(str(tmp_path / "s.log"), "search", rows)
    (tmp_path / "bad.npz").write_bytes(b"PK no")
    with pytest.raises(ValueError, match="does not hold the rows of a search"):
        join_search(url, "search", tmp_path / "bad.npz")


def test_a_database_that_does_not_answer_is_named_without_its_password():
    pytest.importorskip("psycopg", reason="psycopg, the driver of PostgreSQL, is not installed")
    with pytest.raises(DatabaseError, match=r"user:\*\*\*@127.0.0.1:1/.*does not answer") as caught:
        StudyStore("postgresql://user:hidden@127.0.0.1:1/studies")
    assert "hidden" not in str(caught.value)


def test_addresses_that_are_none_are_refused():
    with pytest.raises(ValueError, match="postgresql://USER"):
        StudyStore("nosuch://host/studies")


def test_tables_of_another_version_are_refused(data, tmp_path):
    url = f"sqlite:///{tmp_path}/s.db"
    make(url, n_trials=1).search(*data)
    with sqlite3.connect(tmp_path / "s.db") as tables:
        tables.execute("update version_info set schema_version = 1")
        tables.execute("update alembic_version set version_num = 'v0.9.0.a'")
    with pytest.raises(DatabaseError, match="tables of another version of Optuna"):
        StudyStore(url)
