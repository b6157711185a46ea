"""What runs and caches left and a disk has spoilt: computed again, with a warning, and no more."""

import csv
import logging

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tiny_localizer import localizer, painting

from cnnsvm.cli import main
from cnnsvm.cli.rows import Rows
from cnnsvm.detection.embedding_table import EmbeddingTable
from cnnsvm.evaluation.runs import RunDirectory
from cnnsvm.features.cache import store_training, stored_training

TABLE = pd.DataFrame({"score": np.linspace(0, 1, 400), "source": ["a", "b"] * 200})
SPOILS = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "zeroed": lambda data: bytes(len(data)),
    "a zeroed stretch": lambda data: data[:40] + bytes(60) + data[100:],
    "bytes of no text": lambda data: b"\xff" * 9 + data,
}


def spoil(file, how):
    file.write_bytes(SPOILS[how](file.read_bytes()))


@pytest.mark.parametrize("how", SPOILS)
@pytest.mark.parametrize("name", ["a.json", "b.parquet"])
def test_a_part_of_a_run_is_computed_again(how, name, tmp_path, caplog):
    value = TABLE.to_dict("list") if name == "a.json" else TABLE
    calls = []

    def take():
        return RunDirectory(tmp_path, "me").part(name, lambda: calls.append(1) or value)

    take()
    spoil(tmp_path / name, how)
    for _ in range(2):
        pd.testing.assert_frame_equal(pd.DataFrame(take()), TABLE)
    assert len(calls) == 2
    assert "is damaged and is computed again" in caplog.text


def test_a_note_of_a_run_that_is_spoilt_is_not_taken_for_its_own(tmp_path):
    run = RunDirectory(tmp_path, "me")
    run.part("a.json", dict)
    (tmp_path / "run.json").write_bytes(b"\xff\xfe")
    (tmp_path / "seconds.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="Choose another output folder"):
        RunDirectory(tmp_path, "me")


@pytest.mark.parametrize("file", ["network.safetensors", "history.json"])
@pytest.mark.parametrize("how", SPOILS)
def test_a_stored_network_is_trained_again(file, how, tmp_path):
    torch.manual_seed(0)
    network = torch.nn.Conv2d(3, 8, 3)
    store_training(tmp_path, network, [{"epoch": 0, "loss": 0.5}])
    arrays, history = stored_training(tmp_path)
    assert history == [{"epoch": 0, "loss": 0.5}]
    np.testing.assert_array_equal(arrays["weight"], network.weight.detach())
    spoil(tmp_path / file, how)
    assert stored_training(tmp_path) is None


def test_a_single_weight_that_has_changed_is_noticed(tmp_path):
    store_training(tmp_path, torch.nn.Linear(4, 4), [])
    data = bytearray((tmp_path / "network.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "network.safetensors").write_bytes(data)
    assert stored_training(tmp_path) is None


@pytest.mark.parametrize("how", ["empty", "cut", "zeroed"])
def test_a_training_starts_over_from_a_spoilt_checkpoint(how, tmp_path, caplog):
    images, masks = zip(*(painting(seed, 48, 48) for seed in range(4)), strict=True)
    tiny = localizer(size="small", epochs=1, cache_dir=tmp_path, crop_size=32)
    expected = tiny.fit(list(images), list(masks)).predict_proba([images[0]])[0]
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    for left in folder.iterdir():
        left.unlink()
    torch.save({"network": expected}, folder / "checkpoint.pt")
    spoil(folder / "checkpoint.pt", how)
    again = tiny.fit(list(images), list(masks)).predict_proba([images[0]])[0]
    np.testing.assert_array_equal(again, expected)
    assert "training starts over" in caplog.text


@pytest.mark.parametrize("how", ["empty", "cut", "zeroed", "a zeroed stretch"])
def test_a_spoilt_part_of_embeddings_costs_no_other(how, tmp_path):
    names = [f"f{k}" for k in range(8)]
    rng = np.random.default_rng(0)
    table = EmbeddingTable(tmp_path / "x.parquet", names, "model")
    for part in "abc":
        paths = [f"{part}{k}" for k in range(20)]
        table.add(paths, paths, rng.normal(size=(20, 8)).astype(np.float32))
    spoil(table.parts / "00000001.parquet", how)
    table = EmbeddingTable(tmp_path / "x.parquet", names, "model")
    assert {path[0] for path, _ in table.known()} == {"a", "c"}
    table.add(["b0"], ["b0"], np.zeros((1, 8), np.float32))
    assert table.join() == 41


def damaged(text, how):
    lines = text.splitlines(keepends=True)
    if how == "a quote without an end":
        return "".join([*lines[:2], '"' + lines[2] + "x" * 200_000])
    return "".join([*lines[:2], lines[2][:9] + "\0" * 40 + "\n", *lines[3:]])


@pytest.mark.parametrize("how", ["a quote without an end", "zeros in a row"])
def test_rows_that_hold_are_kept(how, tmp_path):
    fields = ["path", "verdict", "error"]
    rows = Rows(fields, "csv", tmp_path / "x.csv", str)
    rows.start([])
    for k in range(4):
        rows.add({"path": f"{k}.png", "verdict": "no_trace"})
    rows.close()
    text = (tmp_path / "x.csv").read_text()
    (tmp_path / "x.csv").write_text(damaged(text, how))
    known = Rows(fields, "csv", tmp_path / "x.csv", str).known
    assert list(known) == (["0.png"] if "quote" in how else ["0.png", "2.png", "3.png"])


@pytest.mark.parametrize("how", ["a quote without an end", "zeros in a row", "no head"])
def test_maps_of_a_spoilt_table_are_made_again(how, tmp_path, caplog):
    caplog.set_level(logging.ERROR)
    (tmp_path / "photos").mkdir()
    for k in range(4):
        Image.fromarray(painting(k, 40, 40)[0]).save(tmp_path / "photos" / f"{k}.png")
    call = ["localize", str(tmp_path / "photos"), str(tmp_path / "out"), "--device", "cpu"]
    assert main(call) == 0
    table = tmp_path / "out" / "localize.csv"
    before = table.read_text()
    table.write_text(before.partition("\n")[2] if how == "no head" else damaged(before, how))
    assert main(call) == 0
    assert table.read_text() == before
    with open(table, newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 4
