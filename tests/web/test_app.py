"""The HTTP API: answers, refusals, limits, and what it keeps to itself."""

import base64
import hashlib
import logging
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from cnnsvm.cli import main
from cnnsvm.data.encoding import encode_image
from cnnsvm.data.images import load_image
from cnnsvm.report.judging import SAID
from cnnsvm.web.answers import NEVER_AUTHENTIC
from cnnsvm.web.app import PAGES, make_app
from cnnsvm.web.limits import Limits

PREDICT = "/v1/predict"


def wait_for(condition, seconds=5):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.005)


@pytest.fixture
def client(judge, saved):
    """Return clients of applications with limits of one's own."""
    opened = []

    def make(token=None, load=lambda: judge, **limits):
        app = make_app(load, limits=Limits(**limits), name=str(saved), token=token)
        opened.append(TestClient(app).__enter__())
        if load() is judge:
            wait_for(lambda: app.state.service.judge is not None)
        return opened[-1]

    yield make
    for each in opened:
        each.__exit__(None, None, None)


def send(client, *contents, name="image.png", **more):
    return client.post(PREDICT, files=[("files", (name, data)) for data in contents], **more)


def test_an_answer_is_that_of_the_detector(client, judge, png):
    contents = [png(seed) for seed in range(3)]
    answer = send(client(), *contents).json()
    assert (answer["model"], answer["note"]) == (judge.model, NEVER_AUTHENTIC)
    for said, data in zip(answer["files"], contents, strict=True):
        (row,) = judge.rows([load_image(data)])
        assert said["verdict"] == row["verdict"]
        assert said["sentence"] == judge.sentence(row)
        assert said["probabilities"] == {
            name: row[f"probability_{name}"] for name in ("real", "fake")
        }
        assert said["sha256"] == hashlib.sha256(data).hexdigest()
        assert (said["width"], said["height"], said["name"]) == (70, 64, "image.png")
        assert said["metadata"] == []
        assert "overlay" not in said


@pytest.mark.parametrize("how", [{"params": {"heatmap": "true"}}, {"data": {"heatmap": "true"}}])
def test_an_overlay_is_an_image_of_the_same_size(client, png, how):
    (said,) = send(client(), png(), **how).json()["files"]
    kind, data = said["overlay"].split(",")
    assert kind == "data:image/jpeg;base64"
    assert load_image(base64.b64decode(data)).shape == (64, 70, 3)


def test_an_image_is_upright(client):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encode_image(np.zeros((40, 80, 3), np.uint8), "JPEG", exif=exif)
    (said,) = send(client(), turned, params={"heatmap": "true"}).json()["files"]
    assert (said["width"], said["height"]) == (40, 80)
    overlay = base64.b64decode(said["overlay"].split(",")[1])
    assert load_image(overlay).shape == (80, 40, 3)


def bad_files(png):
    return {
        "text": (b"no image at all, but text", 415),
        "page": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415),
        "empty": (b"", 422),
        "head": (png()[:20], 422),
        "half": (png()[:-3000], 422),
        "bomb": (encode_image(np.zeros((1001, 1000), np.uint8), "PNG"), 413),
    }


@pytest.mark.parametrize("kind", ["text", "page", "empty", "head", "half", "bomb"])
def test_a_single_bad_file_has_a_status_and_a_sentence(client, png, kind):
    data, status = bad_files(png)[kind]
    answer = send(client(max_pixels=1_000_000), data)
    assert answer.status_code == status
    assert len(answer.json()["error"].split()) > 5


def test_a_bad_file_among_others_is_an_entry(client, png):
    bad = [data for data, _ in bad_files(png).values()]
    answer = send(client(max_pixels=1_000_000), png(), *bad, png(1))
    assert answer.status_code == 200
    files = answer.json()["files"]
    assert ["error" in said for said in files] == [False, *[True] * len(bad), False]
    assert all("verdict" not in said for said in files[1:-1])


def test_what_is_no_form_of_images_is_refused(client, png):
    served = client(max_files=2)
    assert served.post(PREDICT, content=png()).status_code == 415
    broken = {"Content-Type": "multipart/form-data; boundary=x"}
    assert served.post(PREDICT, content=b"nonsense", headers=broken).status_code == 400
    assert served.post(PREDICT, files={"other": ("a.png", png())}).status_code == 400
    assert served.post(PREDICT, files={"heatmap": (None, "true")}).status_code == 400
    for n in (3, 4, 9):
        assert send(served, *[png()] * n).status_code == 413
    assert served.get(PREDICT).status_code == 405
    assert served.get("/v1/none").json().keys() == {"error"}
    assert send(served, png(), params={"heatmap": "maybe"}).status_code == 400


def test_bytes_are_counted_whatever_length_is_said(client, png):
    served, boundary = client(max_bytes=20_000), "x"
    assert send(served, png()).status_code == 200
    sent = []

    def chunks():
        head = 'Content-Disposition: form-data; name="files"; filename="a.png"'
        yield f"--{boundary}\r\n{head}\r\n\r\n".encode()
        for _ in range(1000):
            sent.append(1000)
            yield bytes(1000)

    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    for said in ({}, {"Content-Length": "100"}):
        answer = served.post(PREDICT, content=chunks(), headers=headers | said)
        assert answer.status_code == 413
        assert "20,000 bytes" in answer.json()["error"]
    assert send(served, bytes(30_000)).status_code == 413


def test_nothing_reaches_a_disk_or_the_log(client, png, caplog, monkeypatch):
    def no_file(*_, **__):
        raise AssertionError("a temporary file")

    monkeypatch.setattr(tempfile, "TemporaryFile", no_file)
    caplog.set_level(logging.DEBUG)
    served = client()
    large = np.random.default_rng(0).integers(0, 256, (700, 700, 3), dtype=np.uint8)
    for data in (encode_image(large, "PNG"), b"secret content", png()[:-3000]):
        send(served, data, name="secret-name.png", params={"heatmap": "true"})
    assert "POST /v1/predict 415" in caplog.text
    assert "secret" not in "".join(r.getMessage() for r in caplog.records if "cnnsvm" in r.name)
    assert "secret" not in served.get("/metrics").text


def test_an_error_of_the_program_is_a_500_that_quotes_nothing(
    client, judge, png, caplog, monkeypatch
):
    words = "-".join(["secret", "words"])

    def fail(images):
        raise RuntimeError(words)

    monkeypatch.setattr(judge, "rows", fail)
    answer = send(client(), png())
    assert answer.status_code == 500
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "RuntimeError in" in caplog.text
    assert words not in caplog.text + answer.text


def test_a_token_is_asked_for(client, png):
    served = client(token="right")
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic right"}):
        for answer in (
            send(served, png(), headers=headers),
            served.get("/v1/model", headers=headers),
            served.get("/metrics", headers=headers),
        ):
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"] == "Bearer"
    right = {"Authorization": "Bearer right"}
    assert send(served, png(), headers=right).status_code == 200
    assert served.get("/v1/model", headers=right).status_code == 200
    for path in ("/", "/docs", "/healthz", "/readyz"):
        assert served.get(path).status_code == 200


def test_other_sites_may_not_send(client, png):
    served = client()
    for headers in ({"Origin": "https://elsewhere.example"}, {"Sec-Fetch-Site": "cross-site"}):
        assert send(served, png(), headers=headers).status_code == 403
    assert send(served, png(), headers={"Origin": "http://testserver"}).status_code == 200


def test_every_answer_has_headers_of_safety(client):
    served = client()
    for path in ("/", "/docs", "/v1/model", "/none", "/openapi.json"):
        headers = served.get(path).headers
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"


def test_it_is_ready_once_the_model_is_loaded(client, judge, png):
    gate = threading.Event()

    def load():
        gate.wait(10)
        return judge

    app = make_app(load)
    with TestClient(app) as served:
        assert served.get("/healthz").status_code == 200
        for answer in (served.get("/readyz"), send(served, png()), served.get("/v1/model")):
            assert answer.status_code == 503
            assert int(answer.headers["Retry-After"]) > 0
        gate.set()
        wait_for(lambda: served.get("/readyz").status_code == 200)


def test_a_model_that_cannot_be_loaded_is_told(tmp_path, capsys, monkeypatch):
    assert main(["serve", "--model", str(tmp_path), "--port", "0"]) == 2
    assert str(tmp_path) in capsys.readouterr().err


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


def test_answers_do_not_mix(client, judge, png):
    served = client(workers=3, queue=30)
    contents = [png(seed) for seed in range(12)]
    expected = [judge.rows([load_image(data)])[0]["probability_fake"] for data in contents]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda data: send(served, data).json(), contents))
    assert [a["files"][0]["probabilities"]["fake"] for a in answers] == expected


def test_metrics_count_requests_and_images(client, png):
    served = client()
    send(served, png(), b"no image")
    send(served, b"no image")
    text = served.get("/metrics").text
    assert 'cnnsvm_requests_total{path="/v1/predict",status="200"} 1.0' in text
    assert 'cnnsvm_requests_total{path="/v1/predict",status="415"} 1.0' in text
    assert 'cnnsvm_images_total{kind="failed"} 1.0' in text
    assert "cnnsvm_ready 1.0" in text
    assert "cnnsvm_requests_held 0.0" in text


def test_the_model_says_what_it_knows(client, judge, saved):
    said = client(max_files=3).get("/v1/model").json()
    assert (said["name"], said["model"], said["max_files"]) == ("model", judge.model, 3)
    assert [each["name"] for each in said["classes"]] == ["real", "fake"]
    (found,) = said["detectors"]
    assert str(saved.parent) not in str(said)
    assert found["rejection_threshold"] == judge.detector.rejection_threshold_
    assert any("other engine" in each or "another engine" in each for each in found["limits"])


def test_all_evidence_names_the_engines_of_its_cards():
    from cnnsvm.web.model import describe_model

    one = SimpleNamespace(model_id_="id", classes_=np.array(["a", "b"]), rejection_threshold_=0.9)
    one.embedder_ = []
    all_of_them = SimpleNamespace(generated=one, trace=one, region=one)
    names = [*SAID, "uncovered"]
    judge = SimpleNamespace(combined=all_of_them, detector=one, names=names, model="id")
    said = describe_model(judge, None, None, Limits())
    assert [each.name for each in said.detectors] == ["generated", "trace", "region"]
    assert {"opencv-telea", "self-blend"} <= set(said.detectors[1].engines)
    assert all(each.says != each.name for each in said.classes)


def test_the_documentation_needs_nothing_from_elsewhere(client):
    served = client()
    page = served.get("/docs").text
    assert "POST /v1/predict" in page
    assert "504" in page
    assert "<script" not in page
    for text in (page, *(path.read_text() for path in PAGES.iterdir())):
        outside = text.replace("http://www.w3.org/2000/svg", "").replace("http://127.0.0.1", "")
        assert "http://" not in outside
        assert "https://" not in outside


def test_the_page_always_says_what_no_verdict_means(client):
    assert NEVER_AUTHENTIC in client().get("/").text


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"queue": -1}, {"timeout": 0.0}])
def test_limits_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
        Limits(**wrong)
    assert Limits(queue=0, timeout=0.5).timeout == 0.5


def test_a_bind_elsewhere_without_a_token_is_warned_of(tmp_path, caplog, monkeypatch):
    monkeypatch.delenv("CNNSVM_TOKEN", raising=False)
    call = ["serve", "--model", str(tmp_path), "--port", "0"]
    assert main([*call, "--host", "0.0.0.0"]) == 2
    assert "there is no token" in caplog.text
    caplog.clear()
    monkeypatch.setenv("CNNSVM_TOKEN", "right")
    main([*call, "--host", "0.0.0.0"])
    assert "token" not in caplog.text
    assert main([*call, "--token-env", "NO_SUCH_TOKEN"]) == 2
