"""Blocks become partitions: what they hold, and how a job goes on. Ray is in test_on_ray.py."""

import json
import os
import shutil

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from cnnsvm.cli import main
from cnnsvm.data import images as decoding
from cnnsvm.scale import OutputError, contents, predict_dataset
from cnnsvm.scale.attempts import KILLED


def rows_of(out):
    return pyarrow.dataset.dataset(out).to_table().to_pylist()


def predict(places, out, model, **more):
    return predict_dataset(
        places, out, **{"model": model, "partition_size": 10, "progress": False} | more
    )


def test_rows_are_those_of_the_local_scan(photos, model, tmp_path, here):
    counts = predict([photos], tmp_path / "out", model)
    file = tmp_path / "rows.jsonl"
    main(["predict", str(photos), "--model", model, "--out", str(file)])
    local = {row["path"]: row for row in map(json.loads, file.read_text().splitlines())}
    found = {row["path"]: row for row in rows_of(tmp_path / "out")}
    assert found.keys() == local.keys()
    for path, row in local.items():
        assert {name: found[path][name] for name in row} == row
    row = found[str(photos / "00.png")]
    assert row["probability"] == max(row["probability_real"], row["probability_fake"])
    assert row["probability"] == row[f"probability_{row['class']}"]
    assert 0 < row["coverage"] <= 1
    assert counts["failed"] == 1
    assert counts["skipped: not an image"] == 1
    assert counts.total() == len(found)


def test_the_model_alone_decides_about_the_columns(photos, model, tmp_path, here):
    predict([photos / "broken.png"], tmp_path / "bad", model)
    predict([photos / "00.png"], tmp_path / "good", model)
    bad, good = (pyarrow.dataset.dataset(tmp_path / name).schema for name in ("bad", "good"))
    assert bad.equals(good)


def test_shards_lists_and_folders_are_judged_once(photos, shard, listing, model, tmp_path, here):
    predict([photos, shard, listing, photos], tmp_path / "out", model)
    paths = [row["path"] for row in rows_of(tmp_path / "out")]
    expected = [
        *(str(path) for path in photos.iterdir()),
        *(f"{shard}/s{seed}.png" for seed in range(3)),
        str(listing.parent / "gone.png"),
    ]
    assert sorted(paths) == sorted(expected)
    (gone,) = [row for row in rows_of(tmp_path / "out") if row["path"].endswith("gone.png")]
    assert "no such file" in gone["error"]


def test_a_torn_shard_has_its_whole_images_and_a_row_that_says_so(shard, model, tmp_path, here):
    torn = tmp_path / "torn.tar"
    torn.write_bytes(shard.read_bytes()[: shard.read_bytes().index(b"s2.png") + 2000])
    predict([torn, tmp_path / "gone.tar"], tmp_path / "out", model)
    rows = {row["path"]: row["error"] for row in rows_of(tmp_path / "out")}
    assert [rows[f"{torn}/s{seed}.png"] for seed in (0, 1)] == [None, None]
    assert "cannot be read to its end" in rows[str(torn)]
    assert "no such file" in rows[str(tmp_path / "gone.tar")]
    place = shard.read_bytes().index(b"s2.png")
    torn.write_bytes(shard.read_bytes()[:place])
    (tmp_path / "junk.tar").write_bytes(shard.read_bytes().replace(b"s2.png", b"junk!!"))
    predict([torn, tmp_path / "junk.tar"], tmp_path / "more", model)
    rows = {row["path"]: row["error"] for row in rows_of(tmp_path / "more")}
    for damaged in (torn, tmp_path / "junk.tar"):
        assert f"no mark of the end, and no file, at byte {place}" in rows[str(damaged)]


def test_names_may_be_any_bytes(photos, model, tmp_path, here):
    name = os.fsdecode(b"caf\xe9::#%41.png")
    shutil.copy(photos / "00.png", tmp_path / name)
    shutil.copy(photos / "broken.png", tmp_path / f"b{name}")
    predict([tmp_path / name, tmp_path / f"b{name}"], tmp_path / "out", model)
    good, bad = rows_of(tmp_path / "out")
    assert good["path"].endswith(r"caf\xe9::#%41.png")
    assert good["error"] is None
    assert bad["verdict"] is None


def test_what_is_finished_stays_and_the_rest_is_judged(photos, model, tmp_path, here):
    out = tmp_path / "out"
    predict([photos], out, model)
    first, second, *others = parts = sorted(out.glob("part-*.parquet"))
    times = {part: part.stat().st_mtime_ns for part in others}
    second.write_bytes(second.read_bytes()[:100])
    first.unlink()
    (out / ".abc.1-1.partial").write_bytes(b"half")
    here.clear()
    predict([photos], out, model)
    assert here == [first.name, second.name]
    assert sorted(out.glob("part-*.parquet")) == parts
    assert {part: part.stat().st_mtime_ns for part in others} == times
    assert len(rows_of(out)) == len({row["path"] for row in rows_of(out)}) == 26
    assert not list(out.glob("_begun*"))


def test_the_rows_of_another_job_are_refused(photos, shard, model, tmp_path, here):
    out = tmp_path / "out"
    predict([photos], out, model)
    before = {part: part.read_bytes() for part in out.iterdir()}
    with pytest.raises(OutputError, match=r"inputs: '.*', not '.*'.*another --out"):
        predict([shard], out, model)
    with pytest.raises(OutputError, match=r"model: '.*', not '.*'"):
        predict([photos], out, "cifake")
    with pytest.raises(OutputError, match="partition_size: 10, not 5"):
        predict([photos], out, model, partition_size=5)
    assert {part: part.read_bytes() for part in out.iterdir()} == before
    (out / "_job.json").unlink()
    (tmp_path / "none").mkdir()
    (tmp_path / "none/_job.json").write_text('{"model": "another"}')
    predict([photos / "00.png"], tmp_path / "none", model)  # a job that left no row holds nothing
    with pytest.raises(OutputError, match=r"no _job\.json"):
        predict([photos], out, model)


def test_two_jobs_on_one_output_are_refused(photos, model, tmp_path, here):
    (tmp_path / "out").mkdir()
    lock = FileLock(tmp_path / "out/.lock")
    with lock, pytest.raises(OutputError, match="another job on this machine"):
        predict([photos], tmp_path / "out", model)
    assert not list((tmp_path / "out").glob("*.parquet"))


class Death(BaseException):
    """The end of a worker, which no handler sees."""


def test_an_image_that_kills_its_workers_becomes_a_row(photos, model, tmp_path, here, monkeypatch):
    deadly, n_deaths = (photos / "07.png").read_bytes(), 0

    def load(image, **more):
        if image == deadly:
            raise Death
        return decoding.load_image(image, **more)

    monkeypatch.setattr(contents, "load_image", load)
    for _ in range(10):
        try:
            predict([photos], tmp_path / "out", model)
            break
        except Death:
            n_deaths += 1
    failed = {row["path"]: row["error"] for row in rows_of(tmp_path / "out") if row["error"]}
    assert n_deaths == 4
    assert f"{KILLED} workers died" in failed[str(photos / "07.png")]
    assert len(failed) == 3
    assert len(rows_of(tmp_path / "out")) == 26


def test_a_block_that_is_never_finished_ends_the_job(photos, model, tmp_path, here, monkeypatch):
    predict([photos], tmp_path / "out", model)
    (part, *_) = sorted((tmp_path / "out").glob("part-*.parquet"))
    part.unlink()
    (tmp_path / f"out/_begun-{part.name}.json").write_text('{"times": 20}')
    with pytest.raises(ValueError, match="begun 20 times and never finished"):
        predict([photos], tmp_path / "out", model)


def test_a_worker_with_another_model_ends_the_job(photos, model, tmp_path, here, monkeypatch):
    from cnnsvm.scale import scoring

    class Other(scoring.Scorer):
        def __init__(self, options, place, model):
            super().__init__(options, place, "another")

    monkeypatch.setattr(scoring, "Scorer", Other)
    with pytest.raises(ValueError, match=r"a worker has the model .*, the job another"):
        predict([photos], tmp_path / "out", model)


@pytest.mark.parametrize("name", ["batch_size", "n_jobs", "partition_size", "concurrency"])
def test_numbers_are_checked(photos, model, tmp_path, here, name):
    with pytest.raises(ValueError, match=f"{name} \\(--.*\\) must be at least 1, got 0"):
        predict([photos], tmp_path / "out", model, **{name: 0})


def test_the_command_counts_as_the_local_one_does(photos, model, tmp_path, here, caplog):
    caplog.set_level("INFO")
    call = ["predict", str(photos), "--model", model, "--out", str(tmp_path / "out")]
    assert main([*call, "--engine", "ray"]) == 2
    ours = caplog.records[-1].getMessage()
    caplog.clear()
    assert main([*call[:-1], str(tmp_path / "rows.csv")]) == 2
    assert ours in [record.getMessage() for record in caplog.records]
    assert "1 failed, 1 skipped (1 not an image)" in ours


def test_what_embeds_is_named_and_the_same_everywhere(photos, model, tmp_path, here):
    call = ["predict", str(photos / "00.png"), "--model", model, "--precision", "bfloat16"]
    main([*call, "--engine", "ray", "--out", str(tmp_path / "out")])
    main([*call, "--out", str(tmp_path / "rows.jsonl")])
    (row,), local = rows_of(tmp_path / "out"), json.loads((tmp_path / "rows.jsonl").read_text())
    assert "bfloat16" in row["model"]
    assert {name: row[name] for name in local} == local
    with pytest.raises(ValueError, match="backend must be the same in all workers"):
        predict([photos], tmp_path / "auto", model, backend="auto")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "folder of Parquet files. Name it with --out"),
        (["--out", "o", "--heatmaps", "h"], "--heatmaps is not for --engine ray"),
        (["--out", "o", "--untouched", "u"], "--untouched is not for --engine ray"),
        (["--out", "o", "--format", "csv"], "--format is not for --engine ray"),
        (["--out", "o", "--heatmaps-for", "suspicious"], "--heatmaps-for is not for --engine ray"),
        (["--engine", "local", "--workers", "2"], "--workers is not for --engine local"),
    ],
)
def test_options_of_the_local_engine_are_refused(photos, capsys, more, said):
    assert main(["predict", str(photos), "--engine", "ray", *more]) == 3
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("more", [{"num_cpus": 0}, {"num_gpus": -1}, {"num_cpus": float("nan")}])
def test_the_share_of_a_worker_is_checked(photos, model, tmp_path, here, more):
    with pytest.raises(ValueError, match="a worker needs at least 0 CPU and GPU"):
        predict([photos], tmp_path / "out", model, **more)


def test_an_output_that_is_an_input_or_no_folder_is_refused(photos, model, tmp_path, here):
    with pytest.raises(ValueError, match=r"lies in .*, which is judged"):
        predict([photos], photos / "out", model)
    (tmp_path / "file").write_text("text")
    for out in (tmp_path / "file", tmp_path / "file/out"):
        with pytest.raises(OutputError, match=r"cannot be written .*Name a folder"):
            predict([photos], out, model)


def test_a_path_of_a_table_is_text(model, tmp_path, here):
    pq.write_table(pa.table({"path": ["a.png", None]}), tmp_path / "list.parquet")
    with pytest.raises(ValueError, match="None in the column 'path' is no text"):
        predict([tmp_path / "list.parquet"], tmp_path / "out", model)


def test_the_cap_of_pixels_goes_with_the_job(photos, model, tmp_path, here):
    predict([photos / "00.png"], tmp_path / "out", model, max_pixels=100)
    (row,) = rows_of(tmp_path / "out")
    assert "more than the cap of 100" in row["error"]
    with pytest.raises(OutputError, match="max_pixels: 100, not 200000000"):
        predict([photos / "00.png"], tmp_path / "out", model)
