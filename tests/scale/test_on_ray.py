"""A cluster of this machine: workers are killed, nothing is lost, nothing is there twice."""

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow.dataset
import pytest
from generation_helpers import draw_image, tree
from PIL import Image

from cnnsvm.generation import build
from cnnsvm.generation.masks import MaskSchema
from cnnsvm.generation.store import GenerationError
from cnnsvm.scale import ClusterError, EngineMissingError, build_dataset, cluster, predict_dataset

ray = pytest.importorskip("ray", reason="needs the extra ray")


@pytest.fixture(scope="module")
def two_cores():
    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=100_000_000,
        include_dashboard=False,
        log_to_driver=False,
    )
    yield ray
    ray.shutdown()


def workers_of_ray():
    """Yield the processes that hold a detector."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if b"Scorer" in name and b"ray::" in name:
            yield int(folder.name)


def kill_one_when(out, n_parts, killed):
    """Kill a worker once so many partitions are there, and list it."""
    for _ in range(9000):  # three minutes: workers start slowly on a busy machine
        if len(list(out.glob("part-*.parquet"))) >= n_parts:
            killed.append(next(workers_of_ray()))
            os.kill(killed[0], signal.SIGKILL)
            return
        time.sleep(0.02)


def test_a_worker_is_killed_and_no_row_is_lost_or_twice(two_cores, photos, model, tmp_path):
    out = tmp_path / "out"
    killed = []
    killer = threading.Thread(target=kill_one_when, args=(out, 2, killed))
    killer.start()
    counts = predict_dataset(
        [photos], out, model=model, partition_size=1, concurrency=1, progress=False
    )
    killer.join()
    assert killed
    paths = pyarrow.dataset.dataset(out).to_table().column("path").to_pylist()
    assert sorted(paths) == sorted(map(str, photos.iterdir()))
    assert counts["failed"] == 1
    assert not list(out.glob("_begun*"))


def test_workers_that_never_fit_are_refused(two_cores, photos, model, tmp_path):
    said = "3 workers of 1 CPU each do not fit into a cluster with 2 CPU"
    with pytest.raises(ValueError, match=said):
        predict_dataset([photos], tmp_path / "out", model=model, concurrency=3)
    with pytest.raises(ValueError, match=r"of 1 CPU and 0\.5 GPU each do not fit"):
        predict_dataset([photos], tmp_path / "out", model=model, num_gpus=0.5)


def deadly_once(place):
    """Return a schema that kills its process once, in its second record."""
    drawn = []

    def draw(scene, rng):
        drawn.append(scene)
        if len(drawn) == 2 and not place.exists():
            place.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return np.indices(scene.shape)[1] >= 18

    return MaskSchema("right-half", draw)


def test_records_of_a_worker_that_was_killed_are_those_of_shards_by_hand(two_cores, tmp_path):
    for seed in range(4):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(draw_image(seed)).save(tmp_path / f"photos/{seed}.png")
    schemas = ["left", deadly_once(tmp_path / "dead")]
    options = {"schemas": schemas, "check_space": False, "progress": False}
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray/.manifest.999999999-1.partial").write_bytes(b"of a process that was killed")
    found = build_dataset(tmp_path / "photos", tmp_path / "ray", 2, **options)
    assert (tmp_path / "dead").exists()
    for shard in ("1/2", "2/2"):
        expected = build(tmp_path / "photos", tmp_path / "hand", shard=shard, **options)
    assert found["sha256"].tolist() == expected["sha256"].tolist()
    made = tree(tmp_path / "ray")
    made.pop(".lock", None)
    assert made == tree(tmp_path / "hand")


def test_an_error_of_a_task_is_the_error_of_the_call(two_cores, tmp_path):
    (tmp_path / "photos").mkdir()
    Image.fromarray(draw_image(0)).save(tmp_path / "photos/a.png")
    with pytest.raises(GenerationError, match="variants"):
        build_dataset(tmp_path / "photos", tmp_path / "out", 2, variants="none", progress=False)
    with pytest.raises(GenerationError, match="at least 2, got 1"):
        build_dataset(tmp_path / "photos", tmp_path / "out", 1)


def test_a_ray_that_is_missing_or_old_is_one_error(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "version", lambda name: "2.9.1")
    with pytest.raises(EngineMissingError, match=r"Ray 2\.60 or newer, and 2\.9\.1 is installed"):
        predict_dataset([photos], tmp_path / "out")

    def missing(name):
        raise cluster.PackageNotFoundError

    monkeypatch.setattr(cluster, "version", missing)
    with pytest.raises(EngineMissingError, match=r"none is installed\. Install it: pip install"):
        predict_dataset([photos], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "no address"])
def test_an_address_where_no_cluster_is_becomes_one_error(address, monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(ClusterError, match=f"no Ray cluster answers at {address} .*--address"):
        cluster.start_ray(address)
