"""`cnnsvm serve`: what is said before it serves."""

import socket

import pytest

from cnnsvm.cli import main


def test_a_model_that_cannot_be_loaded_is_told(tmp_path, capsys, monkeypatch):
    assert main(["serve", "--model", str(tmp_path), "--port", "0"]) == 2
    assert str(tmp_path) in capsys.readouterr().err


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


def test_an_address_that_cannot_be_had_is_told(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", "--model", str(tmp_path), "--port", port]) == 2
    assert f"port {port}. Stop" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [["--port", "65536"], ["--timeout", "nan"], ["--timeout", "0"]])
def test_a_wrong_number_is_told(wrong, capsys):
    assert main(["serve", *wrong]) == 2
    assert wrong[0].strip("-") in capsys.readouterr().err
