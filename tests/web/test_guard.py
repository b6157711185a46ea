"""What every answer passes: headers, other sites, and what is kept of a request."""

import logging
import tempfile

import numpy as np
from web_client import FORM_HEAD, send, stream

from cnnsvm.data.encoding import encode_image
from cnnsvm.web.app import make_app


def test_nothing_reaches_a_disk_or_the_log(client, png, caplog, monkeypatch):
    def no_file(*_, **__):
        raise AssertionError("a temporary file")

    monkeypatch.setattr(tempfile, "TemporaryFile", no_file)
    caplog.set_level(logging.INFO)
    served = client()
    large = np.random.default_rng(0).integers(0, 256, (700, 700, 3), dtype=np.uint8)
    for data, status in ((encode_image(large, "PNG"), 200), (b"secret", 415), (png()[:-3000], 422)):
        answer = send(served, data, name="secret-name.png", params={"heatmap": "true"})
        assert answer.status_code == status
    assert "POST /v1/predict 415" in caplog.text
    assert "secret" not in caplog.text
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


def test_who_leaves_while_sending_is_no_error(judge, caplog):
    caplog.set_level(logging.INFO)
    app = make_app(lambda: judge)
    app.state.service.judge = judge
    assert stream(app, [FORM_HEAD, b"some"]) == (None, 2)
    assert app.state.service.n_held == 0
    assert "POST /v1/predict 499" in caplog.text
    assert all(record.levelno < logging.ERROR for record in caplog.records)


def test_other_sites_may_not_send(client, png):
    served = client()
    origins = [{"Origin": origin} for origin in ("https://elsewhere.example", "null", "http://[")]
    for headers in (*origins, {"Sec-Fetch-Site": "cross-site"}):
        assert send(served, png(), headers=headers).status_code == 403
    assert send(served, png(), headers={"Origin": "http://testserver"}).status_code == 200


def test_a_name_that_is_not_the_servers_is_refused(client, png):
    served = client()
    for host in ("rebound.example", "localhost.example:8000", "[::1", ""):
        answer = send(served, png(), headers={"Host": host})
        assert answer.status_code == 421, host
        assert "--allow-host" in answer.json()["error"]
    for host in ("localhost:8000", "127.0.0.1", "[::1]:8000", "192.0.2.7:80", "TestServer"):
        assert served.get("/healthz", headers={"Host": host}).status_code == 200, host


def test_head_is_answered_as_get_is_without_a_body(client):
    served = client()
    for path in ("/", "/healthz", "/readyz"):
        answer = served.head(path)
        assert answer.status_code == 200
        assert int(answer.headers["Content-Length"]) > 0
        assert answer.content == b""


def test_every_answer_has_headers_of_safety(client):
    served = client()
    for path in ("/", "/docs", "/v1/model", "/none", "/openapi.json"):
        headers = served.get(path).headers
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"
