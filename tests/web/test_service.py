"""Loading, the queue, the clock, and many at once."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient
from web_client import FORM_HEAD, send, stream, wait_for

from cnnsvm.data.images import load_image
from cnnsvm.web.app import make_app
from cnnsvm.web.limits import Limits


def test_it_is_ready_once_the_model_is_loaded(client, judge, png):
    gate = threading.Event()

    def load():
        gate.wait(10)
        return judge

    app = make_app(load, hosts=["testserver"])
    with TestClient(app) as served:
        assert served.get("/healthz").status_code == 200
        for answer in (served.get("/readyz"), send(served, png()), served.get("/v1/model")):
            assert answer.status_code == 503
            assert int(answer.headers["Retry-After"]) > 0
        gate.set()
        wait_for(lambda: served.get("/readyz").status_code == 200)


def test_one_image_is_judged_at_a_time_and_too_many_are_refused(client, png, slow):
    gate, seen = slow
    served = client(workers=2, queue=1)
    held = served.app.state.service
    with ThreadPoolExecutor(3) as pool:
        sent = [pool.submit(send, served, png(seed)) for seed in range(3)]
        wait_for(lambda: held.n_held == 3)
        refused = send(served, png())
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) > 0
        assert served.get("/healthz").status_code == 200  # the loop is free
        gate.set()
        assert [each.result().status_code for each in sent] == [200] * 3
    assert seen["most"] == 1
    assert held.n_held == 0
    assert send(served, png()).status_code == 200


def test_what_takes_too_long_is_a_504_and_holds_its_place_until_it_ends(client, png, slow):
    gate, _ = slow
    served = client(workers=1, queue=0, timeout=0.1)
    assert send(served, png()).status_code == 504
    assert send(served, png()).status_code == 503
    gate.set()
    wait_for(lambda: served.app.state.service.n_held == 0)
    assert send(served, png()).status_code == 200


def test_an_upload_that_takes_too_long_is_a_408_and_frees_its_place(judge):
    app = make_app(lambda: judge, limits=Limits(workers=1, queue=0, timeout=0.05))
    app.state.service.judge = judge
    assert stream(app, [FORM_HEAD, b"", b"", b""], seconds=0.04)[0] == 408
    assert app.state.service.n_held == 0


def test_answers_do_not_mix(client, judge, png):
    served = client(workers=3, queue=30)
    contents = [png(seed) for seed in range(12)]
    expected = [judge.rows([load_image(data)])[0]["probability_fake"] for data in contents]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda data: send(served, data).json(), contents))
    assert [a["files"][0]["probabilities"]["fake"] for a in answers] == expected


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"queue": -1}, {"timeout": 0.0}])
def test_limits_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
        Limits(**wrong)
    assert Limits(queue=0, timeout=0.5).timeout == 0.5
