"""`cnnsvm serve`: what is said before it serves."""

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
