import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.base import clone
from tiny_detector import cnn, detector, tuning

from cnnsvm import InpaintDetector
from cnnsvm.data.manifest import make_manifest, make_row
from cnnsvm.evaluation.mistakes import SIDE, explain_mistakes, read_heatmaps, worst_mistakes
from cnnsvm.evaluation.protocol import cross_validate_detector, outer_folds

TUNED = detector(cnn(finetune=tuning(epochs=1)))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Noise of eight sources, two images each: nothing is learnt, so that there are mistakes."""
    folder, rng, rows = tmp_path_factory.mktemp("noise"), np.random.default_rng(0), []
    for i in range(16):
        path = folder / f"{i:02d}.png"
        Image.fromarray(rng.integers(0, 256, (48, 40 + i, 3), dtype=np.uint8)).save(path)
        rows.append(make_row(path, i % 2, f"s{i // 2}"))
    return make_manifest(rows)


def test_the_network_of_a_fold_explains_its_surest_mistakes(manifest, tmp_path, monkeypatch):
    found = cross_validate_detector(TUNED, manifest, n_splits=2, folder=tmp_path, n_explained=1)
    assert found.heatmaps
    for train, test in outer_folds(manifest, 2, 0):
        judged = found.predictions.iloc[test]
        surest = [rows.head(1) for rows in worst_mistakes(judged).values()]
        expected = pd.concat(surest)["path"].tolist()
        assert set(found.heatmaps) & set(judged["path"]) == set(expected)
        model = clone(TUNED).fit(manifest.iloc[train])
        for path in expected:
            by_hand = model.explain(path)
            np.testing.assert_allclose(found.heatmaps[path], by_hand, atol=0.003)
    monkeypatch.setattr(InpaintDetector, "fit", None)
    again = cross_validate_detector(TUNED, manifest, n_splits=2, folder=tmp_path, n_explained=1)
    assert again.heatmaps.keys() == found.heatmaps.keys()
    for path, heat in found.heatmaps.items():
        np.testing.assert_array_equal(again.heatmaps[path], heat)


def test_what_no_fold_fine_tuned_explains_nothing(manifest):
    found = cross_validate_detector(detector(), manifest, n_splits=2, n_explained=1)
    assert found.heatmaps == {}


@pytest.fixture(scope="module")
def fitted():
    images = np.random.default_rng(0).integers(0, 256, (8, 40, 40, 3), dtype=np.uint8)
    return cnn(finetune=tuning(epochs=1)).fit(list(images), [0, 1] * 4)


def test_a_source_is_explained_once_and_large_maps_are_reduced(fitted, tmp_path):
    path = tmp_path / "wide.png"
    Image.fromarray(np.zeros((40, 4 * SIDE, 3), dtype=np.uint8)).save(path)
    rows = pd.DataFrame({"path": [str(path), "not/there.png"], "source_id": "s", "label": 0})
    rows = rows.assign(prediction=1, probability=[0.9, 0.6])
    (heat,) = read_heatmaps(explain_mistakes([fitted], rows, 5)).values()
    assert heat.shape == (10, SIDE)
    assert 0 <= heat.min() <= heat.max() <= 1


def test_a_large_image_takes_few_windows(fitted, tmp_path, monkeypatch):
    path, seen = tmp_path / "large.png", []
    Image.fromarray(np.zeros((480, 640, 3), dtype=np.uint8)).save(path)
    monkeypatch.setattr(
        type(fitted), "score_crops", lambda self, x: seen.append(len(x)) or np.zeros(len(x))
    )
    rows = pd.DataFrame({"path": [str(path)], "source_id": "s", "label": 0, "prediction": 1})
    explain_mistakes([fitted], rows.assign(probability=0.9), 1)
    assert sum(seen) == 15 * 20  # crops of 32 pixels side by side: all of the image, none twice
