import logging
import time

import pytest
from hub_server import COMMIT, hide_hub, hub_server

from cnnsvm.io import hub
from cnnsvm.io.hub import HubError, fetch_snapshot


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    (folder / "part").mkdir(parents=True)
    for name in ("config.json", "a.safetensors", "a.fp16.safetensors", "a.bin", "part/b.txt"):
        (folder / name).write_text(name)
    return folder


@pytest.fixture
def offline(tmp_path, monkeypatch):
    hide_hub(tmp_path / "cache", monkeypatch)


@pytest.fixture
def server(offline, model, monkeypatch):
    with hub_server({"owner/model": model}, monkeypatch) as served:
        yield served


def fetch(name="owner/model", *, rest=("*.safetensors", "part/*"), **options):
    return fetch_snapshot(name, ["config.json"], lambda folder: rest, **options)


def test_only_the_chosen_files_are_fetched_and_the_token_is_sent(server, caplog):
    folder = fetch(ignore=["*.fp16*"], revision=COMMIT, token="secret")
    assert server.fetched() == {"config.json", "a.safetensors", "part/b.txt"}
    assert folder.name == COMMIT
    assert (folder / "part" / "b.txt").read_text() == "part/b.txt"
    assert {token for path, token in server.seen if "owner/model" in path} == {"Bearer secret"}
    assert "secret" not in caplog.text
    assert "no revision" not in caplog.text


def test_choose_sees_the_first_files_and_can_refuse_the_model(server):
    def refuse(folder):
        assert (folder / "config.json").read_text() == "config.json"
        raise ValueError("another kind")

    with pytest.raises(ValueError, match="another kind"):
        fetch_snapshot("owner/model", ["config.json"], refuse)
    assert server.fetched() == {"config.json"}


def test_an_unpinned_revision_is_logged_with_its_commit_and_without_bars(server, caplog, capsys):
    with caplog.at_level(logging.WARNING):
        fetch()
    assert f"revision={COMMIT!r}" in caplog.text
    assert "Fetching" not in capsys.readouterr().err


def test_the_cache_serves_without_a_connection(server, monkeypatch, caplog):
    online = fetch()
    hide_hub(online.parents[2], monkeypatch)
    assert fetch(revision=COMMIT) == online
    assert "taken from its cache" in caplog.text


@pytest.mark.parametrize(
    ("name", "revision", "reason"),
    [
        ("owner/missing", None, "no such model"),
        ("owner/gated", None, "gated"),
        ("owner/model", "nowhere", "no revision 'nowhere'"),
    ],
)
def test_the_error_states_id_reason_and_remedy(server, name, revision, reason):
    with pytest.raises(HubError, match=f"{name!r}.*{reason}.*hf download {name}"):
        fetch(name, revision=revision)


def test_no_connection_and_nothing_in_the_cache(offline):
    with pytest.raises(HubError, match=r"HF_HUB_OFFLINE.*cache"):
        fetch()


def test_a_hub_that_does_not_answer_is_not_waited_for(server, monkeypatch):
    monkeypatch.setattr(hub, "TIMEOUT", 0.2)
    start = time.monotonic()
    with pytest.raises(HubError, match="ReadTimeout"):
        fetch("owner/silent")
    assert time.monotonic() - start < 2
