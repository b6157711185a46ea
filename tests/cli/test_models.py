import pytest

from cnnsvm.cli import main


def test_what_ships_is_listed_with_what_it_is(capsys):
    assert main(["models"]) == 0
    said = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert set(said) == {"cnnsvm", "cifake", "generated", "region", "localizer"}
    assert "32x32 pixels" in said["cifake"]
    assert all(" MB  " in line for line in said.values())


@pytest.mark.parametrize("name", ["cnnsvm", "region", "localizer"])
def test_a_card_is_printed_without_its_head(name, capsys):
    assert main(["models", name]) == 0
    card = capsys.readouterr().out
    assert card.startswith("# ")
    assert "repainted" in card


def test_an_unknown_one_is_one_message(tmp_path, capsys):
    assert main(["models", str(tmp_path / "gone")]) == 2
    assert "gone" in capsys.readouterr().err
    assert main(["models", str(tmp_path)]) == 2
    assert "has no model card" in capsys.readouterr().err
    assert main(["models", "--revision", "main"]) == 2
    assert "needs the model" in capsys.readouterr().err
