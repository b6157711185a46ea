import pytest

from cnnsvm.cli import main
from cnnsvm.detection.combined import CombinedDetector
from cnnsvm.io.bundle import SHIPPED


def lines(capsys):
    return dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())


def test_facts_and_a_self_test_that_passes(capsys):
    assert main(["info"]) == 0
    said = lines(capsys)
    assert said["device"].startswith(("cpu", "cuda"))
    assert {"python", "torch", "processor"} <= set(said)
    assert "JPEG" in said["reads"]
    assert said["self-test"].startswith("passed in")


def test_a_self_test_that_fails_is_a_status(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(SHIPPED, "generated", tmp_path)
    assert main(["info"]) == 1
    assert "failed: BundleError: no pretrained detector 'generated'" in lines(capsys)["self-test"]


def test_nothing_is_loaded_if_that_is_asked(monkeypatch, capsys):
    monkeypatch.setattr(CombinedDetector, "from_pretrained", pytest.fail)
    assert main(["info", "--no-test"]) == 0
    assert "self-test" not in lines(capsys)


def test_what_each_model_that_ships_learnt_from(capsys):
    assert main(["info", "--no-test"]) == 0
    said = [line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines()]
    for name in ("cnnsvm", "generated", "region", "cifake", "localizer"):
        assert any(line.startswith(f"{name} learnt from engines ") for line in said), name
    assert any("opencv-telea" in line and "JPEG 30-100" in line for line in said)


def test_a_device_that_is_not_there_is_one_message(capsys):
    assert main(["info", "--device", "cuda:9"]) == 2
    assert "cuda:9" in capsys.readouterr().err
