import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from cnnsvm.data.manifest import make_manifest, make_row
from cnnsvm.data.splits import grouped_folds
from cnnsvm.evaluation import negative_controls
from cnnsvm.evaluation.negative_controls import (
    BLIND,
    colour_histogram,
    file_size,
    metadata_features,
    run_controls,
    run_probe,
    verdict,
)

RNG = np.random.default_rng(0)


def save(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return str(path)


def noise(height=32, width=32, high=256):
    return RNG.integers(0, high, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("controls")


def manifest_of(folder, name, make):
    rows = []
    for i in range(60):
        label = i % 2
        path, pixels, options = make(i, label)
        rows.append(
            make_row(save(folder / f"{name}_{path}", pixels, **options), label, f"s{i // 2}")
        )
    return make_manifest(rows)


def controls_of(manifest):
    folds = grouped_folds(
        manifest["label"].to_numpy(), manifest["source_id"].to_numpy(), 3, random_state=0
    )
    return run_controls(manifest, folds)


def test_a_clean_set_passes(folder):
    manifest = manifest_of(folder, "clean", lambda i, _: (f"{i}.png", noise(), {}))
    controls = controls_of(manifest)
    assert {entry["verdict"] for entry in controls.values()} <= {"near chance", "below chance"}
    assert controls["metadata"]["roc_auc"]["value"] == 0.5


def test_a_format_that_differs_by_class_is_caught(folder):
    def make(i, label):
        return f"{i}.{'png' if label else 'jpg'}", noise(), {}

    controls = controls_of(manifest_of(folder, "format", make))
    assert controls["metadata"]["verdict"] == "above chance"
    assert controls["metadata"]["roc_auc"]["value"] == 1.0


def test_a_jpeg_quality_that_differs_by_class_is_caught(folder):
    def make(i, label):
        return f"{i}.jpg", noise(), {"quality": 90 - 20 * label}

    assert (
        controls_of(manifest_of(folder, "quality", make))["metadata"]["verdict"] == "above chance"
    )


def test_a_size_that_differs_by_class_is_caught(folder):
    def make(i, label):
        return f"{i}.png", noise(width=32 + label), {}

    assert controls_of(manifest_of(folder, "size", make))["metadata"]["verdict"] == "above chance"


def test_colours_that_differ_by_class_are_caught(folder):
    def make(i, label):
        return f"{i}.png", noise(high=256 - 60 * label), {}

    controls = controls_of(manifest_of(folder, "colour", make))
    assert controls["colour_histogram"]["verdict"] == "above chance"
    assert controls["metadata"]["verdict"] == "near chance"


def test_a_colour_histogram_counts_strip_by_strip(folder, monkeypatch):
    path = folder / "noise.png"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    rows = pixels.reshape(-1, 3).astype(int)
    joint = np.bincount((rows >> 6) @ [16, 4, 1], minlength=64)
    marginal = [np.bincount(rows[:, c] >> 4, minlength=16) for c in range(3)]
    for at_once in (2**20, 77):
        monkeypatch.setattr(negative_controls, "_AT_ONCE", at_once)
        expected = np.concatenate([joint, *marginal]) / 2000
        np.testing.assert_array_equal(colour_histogram(path), expected)


def test_a_colour_histogram_does_not_see_places(folder):
    pixels = noise()
    turned = save(folder / "turned.png", pixels[::-1, ::-1])
    plain = save(folder / "plain.png", pixels)
    np.testing.assert_array_equal(colour_histogram(turned), colour_histogram(plain))
    np.testing.assert_allclose(colour_histogram(plain).sum(), 4)


def test_file_size_is_in_bits_a_pixel(folder):
    path = folder / "plain.bmp"
    save(path, noise(16, 16))
    assert file_size(str(path)) == pytest.approx(8 * path.stat().st_size / 256)


def test_metadata_reads_headers_of_every_kind(folder):
    lengths = set()
    for name in ("a.png", "a.jpg", "a.webp", "a.bmp"):
        lengths.add(len(metadata_features(save(folder / name, noise()))))
    Image.fromarray(noise()[:, :, 0]).save(folder / "grey.jpg")
    lengths.add(len(metadata_features(str(folder / "grey.jpg"))))
    assert len(lengths) == 1


def test_the_probe_is_judged_on_the_folds_it_is_given():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 6)
    labels = rng.permutation(np.repeat([0, 1], 20))[groups]
    features = rng.normal(size=(40, 3))[groups]  # names the source, says nothing of the class
    grouped = run_probe(features, labels, grouped_folds(labels, groups, 4, random_state=0))
    leaking = run_probe(features, labels, grouped_folds(labels, None, 4, random_state=0))
    assert roc_auc_score(labels, leaking) > 0.99
    assert 0.2 < roc_auc_score(labels, grouped) < 0.8


@pytest.mark.parametrize(
    ("value", "low", "high", "expected"),
    [
        (0.9, 0.8, 1.0, "above chance"),
        (0.55, 0.51, 0.6, "slightly above chance"),
        (0.62, 0.49, 0.7, "near chance"),
        (0.3, 0.2, 0.4, "below chance"),
        (0.5, np.nan, np.nan, "near chance"),
    ],
)
def test_verdicts(value, low, high, expected):
    assert verdict({"value": value, "low": low, "high": high}) == expected


def test_the_blind_controls_are_known():
    assert "metadata" in BLIND
    assert "colour_histogram" not in BLIND


def test_what_no_fold_tests_is_not_judged(folder):
    """Of a single split the training part must not count as right or wrong answers."""
    manifest = manifest_of(
        folder, "split", lambda i, label: (f"{i}.jpg", noise(), {"quality": 90 - 20 * label})
    )
    split = (np.arange(40), np.arange(40, 60))
    controls = run_controls(manifest, [split])
    assert controls["metadata"]["roc_auc"]["value"] == 1.0
    assert controls["metadata"]["balanced_accuracy"]["value"] == 1.0
