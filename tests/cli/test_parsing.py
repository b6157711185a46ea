import subprocess

import pytest

from cnnsvm.cli import SUBCOMMANDS, main
from cnnsvm.cli.parsing import in_flags


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


def test_a_file_with_the_name_of_a_flag_is_told_apart(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-dash.png").touch()
    with pytest.raises(SystemExit):
        main(["predict", "-dash.png"])
    assert "Put ./ before it: ./-dash.png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--jobs", "--jobs must be an int in the range [1, inf)"),
        ("--inner-folds", "--inner-folds must be an int in the range [2, inf)"),
        ("--max-error", "--max-error must be a float"),
        ("--folds", "--folds must be at least 2, got 0"),
    ],
)
def test_an_error_names_the_flag_that_was_typed(flag, said, capsys):
    assert main(["cv", flag, "0"]) == 2
    assert said in capsys.readouterr().err


def test_an_error_about_something_else_stays_as_it_is():
    flags = {"jobs": "--jobs", "threshold": "--threshold"}
    for message in ("bundle_size must be 1.", "must be", "a threshold must be", "The jobs must go"):
        assert in_flags(message, flags) == message


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
