import threading

import pytest

from cnnsvm.io.files import (
    check_file,
    check_writable,
    clear_partials,
    read_json,
    replacing,
    write_json,
    write_text,
)


def test_a_failed_write_keeps_the_old_file_and_no_temporary_one(tmp_path, monkeypatch):
    path = tmp_path / "new folder" / "report.json"
    write_text(path, "old")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_in_the_block_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "a") as partial:
        partial.write_text(str(1 / 0))
    assert list(tmp_path.iterdir()) == []


def test_two_threads_do_not_share_a_temporary_file(tmp_path):
    with replacing(tmp_path / "a") as own:
        other = []
        thread = threading.Thread(target=lambda: other.append(enter(tmp_path / "a")))
        thread.start()
        thread.join()
        assert other[0] != own
        own.write_text("")


def enter(path):
    with replacing(path) as partial:
        partial.write_text("")
    return partial


def test_json_survives_and_damage_reads_as_empty(tmp_path):
    path = write_json(tmp_path / "a.json", {"b": [1, 2]})
    assert read_json(path) == {"b": [1, 2]}
    path.write_text("{")
    assert read_json(path) == {}
    path.write_text("[]")
    assert read_json(path) == {}
    assert read_json(tmp_path / "missing") == {}


def test_partials_are_cleared_and_nothing_else(tmp_path):
    (tmp_path / ".x.png.12.partial").write_text("")
    (tmp_path / "x.png").write_text("")
    clear_partials(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]


def test_a_place_is_writable_if_the_folder_is_or_the_nearest_one_above_it(tmp_path, monkeypatch):
    new = tmp_path / "new" / "folder"
    check_writable(new)
    check_file(new / "rows.csv")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match=r"/file is no folder. Choose"):
            check_writable(place)
    with pytest.raises(ValueError, match="is a folder"):
        check_file(tmp_path)
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(ValueError, match=f"{tmp_path} cannot be written to"):
        check_file(new / "rows.csv")
