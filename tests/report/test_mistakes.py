import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cnnsvm.data.images import ImageError
from cnnsvm.report.mistakes import mistakes_html, sample_html, thumbnail, worst_mistakes


@pytest.fixture
def wrong():
    """Build ten false alarms, ten misses and two right decisions."""
    table = pd.DataFrame({"label": [0] * 10 + [1] * 10 + [0, 1]})
    table["prediction"] = [1] * 10 + [0] * 10 + [0, 1]
    table["probability"] = [0.5 + 0.04 * i for i in range(10)] + [0.04 * i for i in range(12)]
    table["path"] = [f"{i}.png" for i in range(22)]
    return table.assign(mask_schema=None, variant="spliced", engine="vae:a")


def test_the_surest_mistakes_come_first(wrong):
    worst = worst_mistakes(wrong, shown=3)
    assert list(worst["false_alarms"]["path"]) == ["9.png", "8.png", "7.png"]
    assert list(worst["misses"]["path"]) == ["10.png", "11.png", "12.png"]


@pytest.mark.parametrize(("shape", "size"), [((400, 200), (80, 160)), ((20, 30), (30, 20))])
def test_thumbnails_are_small_and_never_enlarged(shape, size):
    data = thumbnail("x.png", lambda path: np.zeros((*shape, 3), dtype=np.uint8))
    assert Image.open(io.BytesIO(data)).size == size


def test_thumbnails_come_from_the_file(tmp_path):
    path = tmp_path / "red.png"
    Image.new("RGB", (50, 50), (250, 10, 10)).save(path)
    shown = Image.open(io.BytesIO(thumbnail(str(path))))
    np.testing.assert_allclose(shown.getpixel((25, 25)), (250, 10, 10), atol=8)


def test_an_unreadable_image_gets_a_placeholder(wrong, caplog):
    def fail(path):
        raise ImageError(f"{path}: truncated")

    shown = mistakes_html(wrong, fail)
    assert shown.count("could not be read") == 16
    assert "<img" not in shown
    assert "9.png: truncated" in caplog.text


def test_counts_and_kinds_are_told(wrong, loader):
    shown = mistakes_html(wrong, loader)
    assert shown.count("The 8 surest of 10.") == 2
    assert "spliced, vae:a" in shown
    assert "probability 0.860" in shown
    assert shown.count("<img") == 16


def test_no_mistakes_are_good_news(wrong, loader):
    assert mistakes_html(wrong.iloc[20:], loader).count("None.") == 2


def test_a_random_sample_tells_truth_and_verdict(wrong, loader):
    shown = sample_html(wrong, loader)
    assert shown.count("<img") == 12
    drawn = wrong.sample(12, random_state=0)
    words = [
        f"{'fake' if label else 'real'}, called {'fake' if called else 'real'}"
        for label, called in zip(drawn["label"], drawn["prediction"], strict=True)
    ]
    assert [shown.count(text) for text in sorted(set(words))] == [
        words.count(text) for text in sorted(set(words))
    ]
    assert sample_html(wrong.head(3), loader).count("<img") == 3
