import os
import sys

import pytest

from cnnsvm.cli import download, main
from cnnsvm.data.readers import kaggle

CLIENT = """#!{python}
import pathlib, sys, zipfile
folder = pathlib.Path(sys.argv[sys.argv.index("-p") + 1])
name = sys.argv[sys.argv.index("-d") + 1].split("/")[1]
with zipfile.ZipFile(folder / (name + ".zip"), "w") as opened:
    opened.writestr("a.txt", "a")
"""


@pytest.fixture
def bin_folder(tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python3"))
    return folder


@pytest.fixture
def client(bin_folder):
    script = bin_folder / "kaggle"
    script.write_text(CLIENT.format(python=os.path.realpath(f"/proc/{os.getpid()}/exe")))
    script.chmod(0o755)


def test_every_data_set_can_be_named():
    assert set(download._NEXT) == set(kaggle.DATASETS)


@pytest.mark.parametrize("folder", [None, "elsewhere"])
def test_a_download_says_where_it_is_and_what_comes_next(
    tmp_path, client, monkeypatch, capsys, folder
):
    monkeypatch.chdir(tmp_path)
    assert main(["download", "cifake", *([folder] if folder else [])]) == 0
    (path,) = (tmp_path / (folder or "data")).glob("cifake-*.zip")
    text = capsys.readouterr().out
    assert text == f"Saved in {path}. Next: cnnsvm.data.readers.read_cifake({str(path)!r})\n"


def test_a_missing_client_is_one_message_and_status_2(tmp_path, bin_folder, capsys):
    assert main(["download", "deepfakeart", str(tmp_path / "data")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("cnnsvm download: the command kaggle, Kaggle's own client, is")
    assert f"kaggle datasets download -d danielmao2019/deepfakeart -p {tmp_path}" in captured.err


def test_an_unknown_data_set_lists_the_known(capsys):
    with pytest.raises(SystemExit):
        main(["download", "mnist"])
    assert "choose from 'cifake', 'deepfakeart'" in capsys.readouterr().err.replace(
        "cifake, deepfakeart", "'cifake', 'deepfakeart'"
    )
