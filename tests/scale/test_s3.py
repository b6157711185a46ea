"""A bucket of a server of this machine, which speaks the protocol of S3, in and out."""

import io
import json
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_scoring import predict

from cnnsvm.scale import OutputError
from cnnsvm.scale.output import DEAD, LOCK

s3fs = pytest.importorskip("s3fs", reason="needs s3fs")
server = pytest.importorskip("moto.server", reason="needs moto[server]")


@pytest.fixture(scope="module")
def bucket(photos, shard):
    """A bucket with the images, a tar shard and a list; the environment leads to it."""
    with pytest.MonkeyPatch.context() as patch:
        running = server.ThreadedMotoServer(port=0, verbose=False)
        running.start()
        host, port = running.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        store = s3fs.S3FileSystem()
        store.mkdir("scan")
        for path in photos.iterdir():
            store.pipe_file(f"scan/in/{path.name}", path.read_bytes())
        store.pipe_file("scan/in/0.tar", shard.read_bytes())
        table = io.BytesIO()
        pq.write_table(pa.table({"path": ["in/00.png", "s3://scan/in/gone.png"]}), table)
        store.pipe_file("scan/list.parquet", table.getvalue())
        yield store
        running.stop()


def rows_of(store, out):
    parts = [name for name in store.ls(out) if name.endswith(".parquet")]
    return [row for part in parts for row in pq.read_table(store.open(part)).to_pylist()]


def test_a_bucket_is_judged_into_a_bucket_and_goes_on(bucket, photos, model, here):
    predict(["s3://scan/in", "s3://scan/list.parquet"], "s3://scan/out", model)
    rows = {row["path"]: row for row in rows_of(bucket, "scan/out")}
    assert len(rows) == len(rows_of(bucket, "scan/out")) == 26 + 3 + 1
    assert rows["s3://scan/in/0.tar/s1.png"]["error"] is None
    assert "no such file" in rows["s3://scan/in/gone.png"]["error"]
    assert rows["s3://scan/in/notes.txt"]["error"].startswith("skipped: ")
    predict([photos], "s3://scan/local", model)
    local = {row["path"].rpartition("/")[2]: row for row in rows_of(bucket, "scan/local")}
    own = ("verdict", "probability", "sha256")
    for name in ("00.png", "13.png"):
        found = rows[f"s3://scan/in/{name}"]
        assert [found[each] for each in own] == [local[name][each] for each in own]
    first, *_ = parts = [name for name in bucket.ls("scan/out") if name.endswith(".parquet")]
    bucket.rm_file(first)
    here.clear()
    predict(["s3://scan/in", "s3://scan/list.parquet"], "s3://scan/out", model)
    assert here == [first.rpartition("/")[2]]
    bucket.invalidate_cache()
    assert [name for name in bucket.ls("scan/out") if name.endswith(".parquet")] == parts
    with pytest.raises(OutputError, match="inputs"):
        predict(["s3://scan/list.parquet"], "s3://scan/out", model)


def test_a_job_that_lives_keeps_others_off_a_bucket(bucket, photos, model, here):
    sign = {"host": "other", "process": 7, "time": time.time() - 5}
    bucket.pipe_file(f"scan/busy/{LOCK}", json.dumps(sign).encode())
    with pytest.raises(OutputError, match=r"process 7 of other, seen \d s ago.*try again in"):
        predict([photos], "s3://scan/busy", model)
    sign["time"] -= DEAD
    bucket.pipe_file(f"scan/busy/{LOCK}", json.dumps(sign).encode())
    predict([photos], "s3://scan/busy", model)
    bucket.invalidate_cache()
    assert not bucket.exists(f"scan/busy/{LOCK}")


def test_a_bucket_that_is_not_there_is_named(bucket, model, tmp_path, here):
    predict(["s3://nowhere/a.png"], tmp_path / "out", model)
    (row,) = pq.read_table(next((tmp_path / "out").glob("*.parquet"))).to_pylist()
    assert row["error"].startswith("s3://nowhere/a.png: ")
    with pytest.raises(ValueError, match="nosuch://a cannot be opened"):
        predict(["nosuch://a"], tmp_path / "other", model)
