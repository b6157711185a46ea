"""How `cnnsvm predict` says what it found: formats, resuming, statuses, what it reads."""

import csv
import io
import json
import sys

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from tiny_detector import cnn, detector

from cnnsvm import InpaintDetector
from cnnsvm.cli import main
from cnnsvm.report.judging import SAID, Judge


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(5):
        pixels = np.random.default_rng(seed).integers(0, 256, (70, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{seed}.png")
    (folder / "bad.png").write_bytes(b"nothing")
    (folder / "notes.txt").write_text("text")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    images = list(np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), dtype=np.uint8))
    fitted = detector(cnn(finetune="none"), max_error=0.4).fit(images, [0, 1] * 6)
    return fitted.save_pretrained(tmp_path_factory.mktemp("fitted") / "model")


@pytest.fixture
def call(photos, model):
    return ["predict", str(photos), "--model", str(model)]


def rows_of(text, format):
    if format == "csv":
        return list(csv.DictReader(io.StringIO(text, newline="")))
    return json.loads(text) if format == "json" else [json.loads(x) for x in text.splitlines()]


@pytest.mark.parametrize("format", ["csv", "json", "jsonl"])
def test_formats_say_the_same(call, photos, model, capsys, format):
    main([*call, "--format", format])
    rows = rows_of(capsys.readouterr().out, format)
    assert [row["path"] for row in rows] == [
        *(str(photos / f"{seed}.png") for seed in range(5)),
        *(str(photos / name) for name in ("bad.png", "notes.txt")),
    ]
    expected = InpaintDetector.from_pretrained(model).predict_proba([r["path"] for r in rows[:5]])
    found = [[float(row[f"probability_{name}"]) for name in ("real", "fake")] for row in rows[:5]]
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert len({row["sha256"] for row in rows[:5]}) == 5
    assert len({row["model"] for row in rows[:5]}) == 1
    assert "not an image" in rows[5]["error"]
    assert rows[6]["error"] == "skipped: not an image"


def test_text_is_a_sentence_an_image(call, capsys):
    main([*call, "--format", "text"])
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert len(lines) == 7
    assert all(line.count(".png: ") == 1 for line in lines[:6])
    assert lines[5].split(": ")[1] == "not judged"
    assert lines[6].endswith("notes.txt: skipped: not an image")


def test_status_says_what_was_found(photos, model, tmp_path, capsys):
    fitted = InpaintDetector.from_pretrained(model)
    expected = {}
    for seed in range(5):
        path = photos / f"{seed}.png"
        expected[path] = fitted.verdict([path])[0] == 1
        assert main(["predict", str(path), "--model", str(model)]) == int(expected[path])
    assert main(["predict", str(photos / "bad.png"), str(path), "--model", str(model)]) == 2
    assert main(["predict", str(path), "--model", str(tmp_path)]) == 3
    assert main(["predict"]) == 3
    assert main(["predict", str(path), "--jobs", "0"]) == 3
    with pytest.raises(SystemExit) as end:
        main(["predict", "--format", "xml", str(path)])
    assert end.value.code == 3
    with pytest.raises(SystemExit) as end:
        main(["audit"])
    assert end.value.code == 2


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl"])
def test_a_call_resumes_where_it_was_killed(call, tmp_path, caplog, monkeypatch, suffix):
    out = tmp_path / f"rows.{suffix}"
    main([*call, "--out", str(out)])
    whole = out.read_bytes()
    lines = whole.split(b"\n")
    n_head = 1 if suffix in ("csv", "json") else 0
    torn = b"\n".join([*lines[: n_head + 2], lines[n_head + 2][:-20]])
    out.write_bytes(torn)
    judged = []
    rows = Judge.rows
    monkeypatch.setattr(Judge, "rows", lambda self, x: judged.append(len(x)) or rows(self, x))
    main([*call, "--out", str(out)])
    assert sum(judged) == 3
    found, expected = (
        {row["path"]: row for row in rows_of(content.decode(), suffix)}
        for content in (out.read_bytes(), whole)
    )
    assert {path: row["verdict"] for path, row in found.items() if "sha256" in row} == {
        path: row["verdict"] for path, row in expected.items() if "sha256" in row
    }
    assert found.keys() == expected.keys()
    judged.clear()
    caplog.set_level("INFO")
    main([*call, "--out", str(out)])
    assert judged == []
    assert "5 judged (5 of them before)" in caplog.text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("manifest.csv", b"path,label\na.png,1\n"),
        ("table.csv", b"name,x\na,1\n"),
        ("photo.png", b"\x89PNG\r\n\x1a\n"),
        ("facts.json", b'{"a": 1}\n'),
        ("list.json", b"[\n 1\n]\n"),
        ("rows.jsonl", b'{"id": 1}\n'),
    ],
)
def test_a_file_that_holds_something_else_is_kept(call, tmp_path, capsys, name, content):
    out = tmp_path / name
    out.write_bytes(content)
    assert main([*call, "--out", str(out)]) == 3
    assert f"{out} holds" in capsys.readouterr().err
    assert out.read_bytes() == content


def test_where_nothing_can_be_written_is_said_before_anything_is_judged(
    call, photos, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(Judge, "__init__", None)
    image = str(photos / "0.png")
    for flags in (
        ["--out", str(tmp_path)],
        ["--out", f"{image}/rows.csv"],
        ["--heatmaps", image],
    ):
        assert main([*call, *flags]) == 3
        assert flags[1].removesuffix("/rows.csv") in capsys.readouterr().err


def test_changed_files_and_other_models_are_judged_again(photos, model, tmp_path, monkeypatch):
    path, out = tmp_path / "a.png", tmp_path / "rows.csv"
    judged = []
    rows = Judge.rows
    monkeypatch.setattr(Judge, "rows", lambda self, x: judged.append(len(x)) or rows(self, x))
    call = ["predict", str(path), "--out", str(out), "--model"]
    path.write_bytes((photos / "0.png").read_bytes())
    main([*call, str(model)])
    main([*call, str(model)])
    assert len(judged) == 1
    path.write_bytes((photos / "1.png").read_bytes())
    main([*call, str(model)])
    assert len(judged) == 2
    main([*call, "cifake"])
    assert len(judged) == 3


def test_a_file_of_another_format_is_not_overwritten(call, tmp_path, capsys):
    out = tmp_path / "rows.csv"
    out.write_text("path,verdict\n")
    assert main([*call, "--out", str(out), "--format", "jsonl"]) == 3
    assert out.read_text() == "path,verdict\n"
    assert "jsonl" in capsys.readouterr().err


def test_paths_come_from_a_list(photos, model, tmp_path, capsys, monkeypatch):
    listed = f"{photos / '1.png'}\n\n{photos / '0.png'}\n"
    (tmp_path / "list").write_text(listed)
    for source in (str(tmp_path / "list"), "-"):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(listed.encode())))
            main(["predict", "--files-from", source, "--model", str(model), "--format", "jsonl"])
        rows = rows_of(capsys.readouterr().out, "jsonl")
        assert [row["path"] for row in rows] == [str(photos / f"{n}.png") for n in (1, 0)]


def test_an_image_that_is_named_again_has_one_row(photos, model, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(photos.parent)
    (tmp_path / "list").write_text(f"{photos / '0.png'}\n")
    first, notes = photos / "3.png", photos / "notes.txt"
    call = ["predict", str(first), str(notes), photos.name, f"{photos.name}/./4.png"]
    call += ["--files-from", str(tmp_path / "list"), "--model", str(model), "--out"]
    out = tmp_path / "rows.jsonl"
    for _ in range(2):  # resumed, it says the same
        main([*call, str(out)])
        paths = [row["path"] for row in rows_of(out.read_text(), "jsonl")]
        assert sorted(paths) == sorted(
            [str(first), str(notes), *(f"{photos.name}/{name}.png" for name in (0, 1, 2, 4, "bad"))]
        )
    (row,) = (row for row in rows_of(out.read_text(), "jsonl") if row["path"] == str(notes))
    assert not row["error"].startswith("skipped")  # who names a file wants it judged


def test_a_list_that_is_not_there_is_said(capsys):
    assert main(["predict", "--files-from", "no/list"]) == 3
    assert "--files-from no/list: No such file" in capsys.readouterr().err


@pytest.mark.parametrize("no_color", ["", "1"])
def test_a_terminal_has_colours_unless_they_are_not_wanted(call, capsys, monkeypatch, no_color):
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    main([*call, "--format", "text"])
    said = capsys.readouterr().out
    assert ("\x1b[" in said) == (not no_color and ("unsure" in said or "repainted" in said))


def test_quiet_is_quiet(call, capsys, caplog):
    caplog.set_level("INFO")
    main([*call, "--quiet"])
    assert capsys.readouterr().err + caplog.text == ""


def test_batches_do_not_change_what_is_said(photos, model, capsys):
    said = []
    for batch in ("1", "3", "8"):
        call = ["predict", str(photos), "--model", str(model), "--batch-size", batch]
        main([*call, "--format", "jsonl", "--jobs", batch])
        said.append(rows_of(capsys.readouterr().out, "jsonl"))
    for rows in said[1:]:
        for row, expected in zip(rows, said[0], strict=True):
            assert row.keys() == expected.keys()
            if "sha256" in row:
                found = row.pop("probability_fake"), row.pop("probability_real")
                assert found == pytest.approx(
                    (expected["probability_fake"], expected["probability_real"]), abs=2e-4
                )
            assert {**expected, **row} == expected


def test_memory_that_ends_in_a_batch_costs_one_row(call, capsys, monkeypatch):
    rows = Judge.rows

    def short(self, images):
        if len(images) > 1 or images[0][0, 0, 0] == first:
            raise MemoryError
        return rows(self, images)

    first = np.random.default_rng(2).integers(0, 256, (70, 64, 3), dtype=np.uint8)[0, 0, 0]
    monkeypatch.setattr(Judge, "rows", short)
    assert main([*call, "--format", "jsonl"]) == 2
    found = rows_of(capsys.readouterr().out, "jsonl")
    assert [("memory" in row.get("error", "")) for row in found[:5]] == [
        *(False, False, True, False, False)
    ]


def test_every_verdict_of_all_evidence_has_words():
    from cnnsvm import CombinedDetector

    assert set(SAID) == set(CombinedDetector.classes_) - {"uncovered"}


def test_metadata_are_a_column_a_count_and_a_status(photos, model, tmp_path, capsys, caplog):
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a fox\nSteps: 20, Sampler: Euler a, Seed: 1")
    fitted, expected = InpaintDetector.from_pretrained(model), {}
    for seed in range(5):
        target = tmp_path / f"{seed}.png"
        Image.open(photos / f"{seed}.png").save(target, pnginfo=info if seed % 2 else None)
        expected[str(target)] = fitted.predict_proba([target])[0]
    out = tmp_path / "rows.jsonl"
    caplog.set_level("INFO")
    call = ["predict", str(tmp_path), "--model", str(model), "--out", str(out)]
    assert main(call) == 1
    rows = rows_of(out.read_text(), "jsonl")
    for row in rows[:5]:
        named = row["metadata"].startswith("its metadata name a generator: PNG text 'parameters'")
        assert named == (int(row["path"][-5]) % 2 == 1)
        assert row["verdict"] in ("no_trace", "fake", "unsure")
        assert row["probability_fake"] == pytest.approx(expected[row["path"]][1], abs=1e-3)
    assert ", 2 whose metadata name a generator; 0 failed" in caplog.text
    kept = [{k: v for k, v in row.items() if k != "metadata"} for row in rows[:1]] + rows[1:5]
    out.write_text("".join(json.dumps(row) + "\n" for row in kept))
    caplog.clear()
    main(call)  # a row of a version that read no metadata is judged again
    assert "(4 of them before)" in caplog.text
    assert rows_of(out.read_text(), "jsonl")[4].keys() == rows[0].keys()
    for seed in (1, 3):
        quiet = [
            "predict",
            str(tmp_path / f"{seed}.png"),
            "--model",
            str(model),
            "--format",
            "text",
        ]
        assert main(quiet) == 1
        assert "its metadata name a generator" in capsys.readouterr().out
