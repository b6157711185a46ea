import io
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tiny_detector import cnn, detector

from cnnsvm.cli import on_ray
from cnnsvm.scale import scoring

N_IMAGES = 24


def content(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (48, 40, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder of images, a broken one, a text, and one whose name is no UTF-8."""
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(N_IMAGES):
        (folder / f"{seed:02}.png").write_bytes(content(seed))
    (folder / "broken.png").write_bytes(content(0)[:200])
    (folder / "notes.txt").write_text("text")
    return folder


@pytest.fixture(scope="session")
def shard(tmp_path_factory):
    """A tar file in the layout of WebDataset."""
    file = tmp_path_factory.mktemp("shards") / "0.tar"
    with tarfile.open(file, "w") as tar:
        for seed in range(3):
            for name, data in ((f"s{seed}.png", content(100 + seed)), (f"s{seed}.cls", b"1")):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return file


@pytest.fixture(scope="session")
def listing(tmp_path_factory, photos):
    """A table of paths: two of the images again, and one that is not there."""
    file = tmp_path_factory.mktemp("lists") / "list.parquet"
    paths = [str(photos / "03.png"), str(photos / "04.png"), "gone.png"]
    pq.write_table(pa.table({"path": paths, "more": [1, 2, 3]}), file)
    return file


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    images = list(np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), dtype=np.uint8))
    fitted = detector(cnn(finetune="none"), max_error=0.4).fit(images, [0, 1] * 6)
    return str(fitted.save_pretrained(tmp_path_factory.mktemp("fitted") / "model"))


@pytest.fixture
def here(monkeypatch):
    """Judge in this process, by the actor that Ray would run; returns the blocks it judged."""
    judged = []

    def run(ray, blocks, scorer, *_):
        actor = scoring.Scorer(*scorer)
        for block in blocks:
            (done,) = actor(scoring.encode_block(block)).to_pylist()
            if done["error"]:
                raise ValueError(done["error"])
            judged.append(block.name)
            yield done["partition"]

    monkeypatch.setattr(scoring, "_run", run)
    monkeypatch.setattr(scoring, "start_ray", lambda address: None)
    monkeypatch.setattr(scoring, "workers", lambda *_: 1)
    monkeypatch.setattr(on_ray, "supervised", lambda action, args: action())
    return judged
