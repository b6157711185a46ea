import threading
import time

import pytest

from cnnsvm.generation.store import map_in_threads


@pytest.mark.parametrize("n_jobs", [None, -1, 1, 2, 7])
def test_results_come_in_order(n_jobs):
    def slow_at_first(number):
        time.sleep(0.01 if number < 3 else 0)
        return number**2

    assert list(map_in_threads(slow_at_first, range(50), n_jobs)) == [n**2 for n in range(50)]


def test_several_threads_work():
    barrier = threading.Barrier(3, timeout=10)
    assert len(list(map_in_threads(lambda _: barrier.wait(), range(3), 3))) == 3


@pytest.mark.parametrize("n_jobs", [1, 3])
def test_results_before_a_failure_come_first_and_nothing_runs_after(n_jobs):
    done = []

    def work(number):
        if number == 10:
            raise OSError("full")
        time.sleep(0.005)
        done.append(number)
        return number

    seen = []
    with pytest.raises(OSError, match="full"):
        seen.extend(map_in_threads_to(seen, work, n_jobs))
    assert seen == list(range(10))
    after = len(done)
    time.sleep(0.05)
    assert len(done) == after < 60
    assert threading.active_count() < 3 + 10


def map_in_threads_to(seen, work, n_jobs):
    for result in map_in_threads(work, range(1000), n_jobs):
        seen.append(result)
    return []


def test_a_caller_that_stops_stops_the_threads():
    done = []
    results = map_in_threads(lambda number: done.append(number), range(1000), 2)
    next(results)
    results.close()
    after = len(done)
    time.sleep(0.02)
    assert len(done) == after < 1000
