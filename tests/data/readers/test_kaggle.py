import io
import os
import stat
import sys
import zipfile
from types import SimpleNamespace

import pytest

from cnnsvm.data.readers import DatasetError, MissingDataError, download, kaggle

#: Does what Kaggle's client does: notes how it was called, and writes <name>.zip where -p says.
CLIENT = """#!{python}
import os, pathlib, sys
log = pathlib.Path({log!r})
log.write_text((log.read_text() if log.exists() else "") + " ".join(sys.argv[1:]) + "\\n")
folder = pathlib.Path(sys.argv[sys.argv.index("-p") + 1])
name = sys.argv[sys.argv.index("-d") + 1].split("/")[1]
target = folder / (name + ".zip")
mark = folder / (name + ".zip.kaggle-partial")
{action}
"""
FINISH = "target.write_bytes(bytes.fromhex({content!r})); mark.unlink(missing_ok=True)"
SLUGS = {
    "deepfakeart": "danielmao2019/deepfakeart",
    "cifake": "birdy654/cifake-real-and-ai-generated-synthetic-images",
}


def content():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        # the time is fixed: otherwise two calls would differ now and then
        opened.writestr(zipfile.ZipInfo("archive/a.txt"), "a")
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """No client, no token, and a disk that is large enough."""
    (tmp_path / "home").mkdir()
    (tmp_path / "bin").mkdir()
    for name in [name for name in os.environ if name.startswith(("KAGGLE_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python" / "python3"))
    monkeypatch.setattr(kaggle.shutil, "disk_usage", lambda _: SimpleNamespace(free=2**40))
    return tmp_path / "home"


@pytest.fixture
def client(tmp_path):
    """Install a client that does something; return the log of its calls."""
    python = os.path.realpath(f"/proc/{os.getpid()}/exe")
    log = tmp_path / "calls"

    def install(action=None, folder=tmp_path / "bin"):
        action = FINISH.format(content=content().hex()) if action is None else action
        folder.mkdir(exist_ok=True)
        script = folder / "kaggle"
        script.write_text(CLIENT.format(python=python, log=str(log), action=action))
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        return lambda: log.read_text().splitlines() if log.exists() else []

    return install


@pytest.mark.parametrize("name", SLUGS)
def test_the_client_is_run_once(tmp_path, client, name):
    calls = client()
    folder = tmp_path / "new" / "data"
    path = download(name, folder)
    assert path == folder / f"{SLUGS[name].split('/')[1]}.zip"
    assert path.read_bytes() == content()
    expected = [f"datasets download -d {SLUGS[name]} -p {folder} -q"]
    assert calls() == expected
    assert download(name, str(folder)) == path
    assert calls() == expected


def test_an_unfinished_download_goes_on(tmp_path, client):
    calls = client()
    folder = tmp_path / "data"
    folder.mkdir()
    target = folder / "deepfakeart.zip"
    target.write_bytes(content()[:-30])
    assert download("deepfakeart", folder).read_bytes() == content()
    mark = folder / "deepfakeart.zip.kaggle-partial"
    mark.write_text("{}")  # as the client leaves it when it is interrupted
    download("deepfakeart", folder)
    assert len(calls()) == 2
    assert not mark.exists()


def test_a_client_beside_the_interpreter_is_found(tmp_path, client):
    client(folder=tmp_path / "python")
    assert download("cifake", tmp_path).is_file()


def test_without_the_client_the_remedies_are_named(tmp_path):
    with pytest.raises(MissingDataError) as caught:
        download("deepfakeart", tmp_path / "my data")
    message = str(caught.value)
    assert "pip install kaggle" in message
    command = f"kaggle datasets download -d danielmao2019/deepfakeart -p '{tmp_path}/my data'"
    assert command in message
    assert "~/.kaggle/access_token" in message
    assert not (tmp_path / "my data").exists()


def test_a_failure_says_where_to_get_a_token(tmp_path, client):
    client("sys.exit('Authentication required to call the Kaggle API.')")
    with pytest.raises(DatasetError) as caught:
        download("deepfakeart", tmp_path)
    message = str(caught.value)
    assert "ended with status 1:\n  Authentication required to call" in message
    for part in ("~/.kaggle/access_token", "KAGGLE_API_TOKEN", "kaggle.json"):
        assert part in message


def test_without_a_token_a_client_that_needs_none_may_try(tmp_path, client):
    client()
    assert download("cifake", tmp_path).is_file()


def test_a_failure_has_the_end_of_the_output_and_the_command(tmp_path, client, monkeypatch, capsys):
    monkeypatch.setenv("KAGGLE_API_TOKEN", "secret")
    words = "[print(f'line {i}\\r{i} %') for i in range(99)]; print('403 Client Error: Forbidden');"
    client(words + "sys.exit(3)")
    with pytest.raises(DatasetError) as caught:
        download("cifake", tmp_path)
    message = str(caught.value)
    assert message.startswith(f"kaggle datasets download -d {SLUGS['cifake']} -p {tmp_path}\n")
    assert "ended with status 3" in message
    assert "  98 %\n  403 Client Error: Forbidden\n" in message
    assert "line 90" not in message
    assert "secret" not in message
    assert "403 Client Error" in capsys.readouterr().err


def test_what_the_client_says_is_shown_on_standard_error(tmp_path, client, capsys):
    action = "print('to out', flush=True); print('to err █', file=sys.stderr)\n"
    client(action + FINISH.format(content=content().hex()))
    download("cifake", tmp_path)
    assert capsys.readouterr() == ("", "to out\nto err █\n")


def test_progress_is_asked_for_only_on_a_terminal(tmp_path, client, monkeypatch):
    calls = client()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    download("cifake", tmp_path)
    assert "-q" not in calls()[0].split()


@pytest.mark.parametrize("action", ["pass", "target.write_bytes(b'half')"])
def test_success_without_a_whole_archive_is_none(tmp_path, client, action):
    client(action)  # the client ends with status 0 when it is interrupted
    with pytest.raises(DatasetError, match=r"ended, but .*\.zip is no complete archive"):
        download("cifake", tmp_path)


def test_an_interruption_stops_the_client(tmp_path, client, monkeypatch):
    client("import time; print('started', flush=True); time.sleep(600)")

    def interrupt(text):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.stderr, "write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        download("cifake", tmp_path)  # does not wait ten minutes


def test_a_full_disk_is_noticed_before(tmp_path, client, monkeypatch):
    calls = client()
    monkeypatch.setattr(kaggle.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**8))
    with pytest.raises(DatasetError, match=r"100,000,000 bytes are free, .*zip may need 115,343"):
        download("cifake", tmp_path)
    assert calls() == []
    name = SLUGS["cifake"].split("/")[1]
    (tmp_path / f"{name}.zip").write_bytes(bytes(20_000_000))  # there already
    assert download("cifake", tmp_path).is_file()


def test_an_unknown_name(tmp_path):
    with pytest.raises(DatasetError, match="name must be one of deepfakeart, cifake, got 'mnist'"):
        download("mnist", tmp_path)
