import os

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tiny_detector import cnn, detector

from cnnsvm import InpaintDetector
from cnnsvm.cli import embed, main
from cnnsvm.detection.embedding_table import EmbeddingTable


def save(path, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Save two detectors of different networks."""
    folder = tmp_path_factory.mktemp("models")
    images = [
        np.random.default_rng(i).integers(0, 256, (40, 48, 3), dtype=np.uint8) for i in range(8)
    ]
    for name, seed in (("one", 0), ("other", 1)):
        fitted = detector(cnn(), random_state=seed).fit(images, [0, 1] * 4)
        fitted.save_pretrained(folder / name)
    return {name: str(folder / name) for name in ("one", "other")}


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(5):
        save(folder / f"{i}.png", i)
    return folder


def embedded(images, model, out):
    return main(["embed", str(images), "--model", model, "--out", str(out), "--device", "cpu"])


def test_a_row_is_what_transform_gives(images, models, tmp_path):
    out = tmp_path / "new" / "x.parquet"
    assert embedded(images, models["one"], out) == 0
    table = pd.read_parquet(out)
    loaded = InpaintDetector.from_pretrained(models["one"], device="cpu")
    names = list(loaded.get_feature_names_out())
    assert list(table.columns) == ["path", "sha256", *names]
    np.testing.assert_array_equal(table[names], loaded.transform(table["path"].tolist()))
    assert set(table.dtypes[names]) == {np.dtype("float32")}
    assert pq.read_schema(out).metadata[b"cnnsvm_model"].decode() == loaded.model_id_
    assert [path.name for path in out.parent.iterdir()] == ["x.parquet"]


def test_a_name_that_is_not_utf8_costs_no_other_image(images, models, tmp_path, caplog):
    (images / "0.png").rename(images / os.fsdecode(b"bad\xff.png"))
    assert embedded(images, models["one"], tmp_path / "x.parquet") == 1
    assert "not UTF-8" in caplog.text
    assert len(pd.read_parquet(tmp_path / "x.parquet")) == 4


def test_only_new_and_changed_images_are_embedded_again(images, models, tmp_path, monkeypatch):
    out = tmp_path / "x.parquet"
    embedded(images, models["one"], out)
    before = pd.read_parquet(out).set_index("path")
    seen = []
    transform = InpaintDetector.transform
    monkeypatch.setattr(
        InpaintDetector, "transform", lambda self, X: seen.append(len(X)) or transform(self, X)
    )
    assert embedded(images, models["one"], out) == 0
    assert seen == []
    changed = str(save(images / "3.png", 33))
    save(images / "5.png", 5)
    assert embedded(images, models["one"], out) == 0
    after = pd.read_parquet(out).set_index("path")
    assert sum(seen) == 2
    assert len(after) == 6
    same = before.index.drop(changed)
    pd.testing.assert_frame_equal(after.loc[same], before.loc[same])
    assert after.loc[changed, "sha256"] != before.loc[changed, "sha256"]


def test_an_interrupted_call_resumes(images, models, tmp_path, monkeypatch):
    out = tmp_path / "x.parquet"
    monkeypatch.setattr(embed, "PART", 2)
    add, calls = EmbeddingTable.add, []

    def interrupted(self, *rows):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(rows)
        add(self, *rows)

    with monkeypatch.context() as patch:
        patch.setattr(EmbeddingTable, "add", interrupted)
        assert embedded(images, models["one"], out) == 130
    assert not out.exists()
    monkeypatch.setattr(EmbeddingTable, "add", lambda self, *r: calls.append(r) or add(self, *r))
    assert embedded(images, models["one"], out) == 0
    assert [len(paths) for paths, *_ in calls] == [2, 2, 1]
    assert len(pd.read_parquet(out)) == 5


def test_vectors_of_two_models_are_not_mixed(images, models, tmp_path, capsys):
    out = tmp_path / "x.parquet"
    embedded(images, models["one"], out)
    before = out.read_bytes()
    assert embedded(images, models["other"], out) == 2
    assert "do not compare" in capsys.readouterr().err
    assert out.read_bytes() == before


def test_what_cannot_be_read_is_said_and_left_out(images, models, tmp_path, caplog):
    (images / "bad.png").write_bytes((images / "0.png").read_bytes()[:99])
    assert embedded(images, models["one"], tmp_path / "x.parquet") == 1
    assert "bad.png" in caplog.text
    assert len(pd.read_parquet(tmp_path / "x.parquet")) == 5
    assert embedded(tmp_path / "gone.png", models["one"], tmp_path / "y.parquet") == 1


def test_no_parquet_file_and_no_image_are_wrong_usage(images, models, tmp_path, capsys):
    out = tmp_path / "x.parquet"
    out.write_bytes(b"text")
    assert embedded(images, models["one"], out) == 2
    assert "no Parquet file" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert embedded(tmp_path / "empty", models["one"], tmp_path / "y.parquet") == 2
    assert embedded(images, "no/model", tmp_path) == 2
    assert f"{tmp_path} is a folder" in capsys.readouterr().err
