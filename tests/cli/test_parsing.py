import subprocess

import pytest

from cnnsvm.cli import SUBCOMMANDS, main


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (["predct", "a.png"], "there is no command 'predct'. Did you mean predict?"),
        (["qqq"], "there is no command 'qqq'. Known are audit"),
        (["fit", "--kernle", "rbf", "a", "b"], "fit takes no '--kernle'. Did you mean --kernel?"),
        (["predict", "--hetmaps=x", "a.png"], "takes no '--hetmaps'. Did you mean --heatmaps?"),
        (["cache", "a", "--qqq"], "cache takes no '--qqq'."),
    ],
)
def test_a_wrong_word_is_answered_with_the_right_one(call, said, capsys):
    with pytest.raises(SystemExit) as end:
        main(call)
    assert end.value.code == (3 if call[0] == "predict" else 2)
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_every_command(shell, capsys):
    with pytest.raises(SystemExit) as end:
        main(["--print-completion", shell])
    assert end.value.code == 0
    script = capsys.readouterr().out
    assert all(name in script for name in SUBCOMMANDS)
    assert "--heatmaps-for" in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_completion_without_its_extra_says_which(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        main(["--print-completion", "bash"])
    assert "pip install 'cnnsvm[completion]'" in capsys.readouterr().err
