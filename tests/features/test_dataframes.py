import numpy as np
import pytest
from tiny_detector import cnn, detector, statistics

IMAGES = list(np.random.default_rng(0).integers(0, 256, (6, 40, 48, 3), dtype=np.uint8))
LABELS = [0, 1] * 3


@pytest.mark.parametrize("make", [cnn, statistics, lambda: detector(cnn(), statistics())])
def test_embeddings_come_as_a_dataframe_with_names_of_their_own(make):
    embedder = make().fit(IMAGES, LABELS)
    plain = embedder.transform(IMAGES)
    table = embedder.set_output(transform="pandas").transform(IMAGES)
    assert list(table.columns) == list(embedder.get_feature_names_out())
    assert len(set(table.columns)) == plain.shape[1]
    np.testing.assert_array_equal(table.to_numpy(), plain)


def test_a_notebook_shows_parameters_and_no_arrays():
    fitted = detector(cnn()).fit(IMAGES, LABELS)
    shown = fitted._repr_html_()
    assert "CNNEmbedder" in shown
    assert "n_trials" in shown
    assert len(shown) < 100_000
