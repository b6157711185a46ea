"""The HTTP API: answers, refusals, the token, numbers and documentation."""

import base64
import hashlib
import io

import numpy as np
import pytest
from PIL import Image
from web_client import FORM_HEAD, PREDICT, send, stream

from cnnsvm.data.encoding import encode_image
from cnnsvm.data.images import load_image
from cnnsvm.web.answers import NEVER_AUTHENTIC
from cnnsvm.web.app import PAGES, make_app
from cnnsvm.web.limits import Limits


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


def test_metadata_are_said_apart_from_the_pixels(client, judge, png, named):
    plain, said = send(client(), png(), named).json()["files"]
    assert "of_metadata" not in plain
    assert said["of_metadata"].startswith("its metadata name a generator")
    assert [each["says"] for each in said["metadata"]] == ["generated"]
    for name in ("verdict", "of_pixels", "probabilities"):
        assert said[name] == plain[name]
    assert said["of_metadata"] in said["sentence"]


@pytest.mark.parametrize("how", [{"params": {"heatmap": "true"}}, {"data": {"heatmap": "true"}}])
def test_an_overlay_is_an_image_of_the_same_size(client, png, how):
    (said,) = send(client(), png(), **how).json()["files"]
    kind, data = said["overlay"].split(",")
    assert kind == "data:image/jpeg;base64"
    assert load_image(base64.b64decode(data)).shape == (64, 70, 3)
    assert "from 0, blue, to 1, yellow" in said["overlay_says"]


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


def test_only_the_first_frame_is_judged_and_it_says_so(client, png):
    frames = [Image.open(io.BytesIO(png(seed))).convert("P") for seed in (0, 1)]
    data = io.BytesIO()
    frames[0].save(data, "GIF", save_all=True, append_images=frames[1:])
    with pytest.warns(UserWarning, match="several frames"):
        (said,) = send(client(), data.getvalue()).json()["files"]
    assert said["sentence"].endswith("only the first was looked at")
    (said,) = send(client(), png()).json()["files"]
    assert "frames" not in said["sentence"]


def test_a_length_of_thousands_of_digits_is_too_much(client, png):
    headers = {"Content-Type": "multipart/form-data; boundary=x", "Content-Length": "9" * 5000}
    assert client().post(PREDICT, content=png(), headers=headers).status_code == 413


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


@pytest.mark.parametrize("said", [None, "100"])
def test_bytes_are_counted_whatever_length_is_said(judge, said):
    app = make_app(lambda: judge, limits=Limits(max_bytes=20_000))
    app.state.service.judge = judge
    status, n_read = stream(app, [FORM_HEAD, *[bytes(1000)] * 1000], length=said)
    assert status == 413
    assert n_read < 100


def test_a_length_that_is_too_much_is_refused_at_once(client, png):
    served = client(max_bytes=20_000)
    assert send(served, png()).status_code == 200
    answer = send(served, bytes(30_000))
    assert answer.status_code == 413
    assert "20,000 bytes" in answer.json()["error"]


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
