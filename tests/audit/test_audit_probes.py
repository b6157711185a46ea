import numpy as np
import pandas as pd
import pytest
from audit_images import as_jpeg, by_way_of, draw_image, manifest_of, repaint, write
from PIL import Image

from cnnsvm.audit.check import Sample, on_threads, score_probe
from cnnsvm.audit.headers import read_headers
from cnnsvm.audit.probes import (
    HONEST,
    measure_pixels,
    probe_double_compression,
    probe_honest,
    probe_metadata,
    probe_resampling,
)
from cnnsvm.data.splits import grouped_folds
from cnnsvm.features.traces import double_compression, resampling_spectrum

N = 20
IMAGES = [draw_image(seed) for seed in range(N)]


def resampling(reals, fakes):
    spectra = np.stack([resampling_spectrum(image) for image in [*reals, *fakes]])
    return probe_resampling(sample_of(reals, fakes, 3, spectrum=spectra))


def compression(reals, fakes):
    traces = np.array([double_compression(image) for image in [*reals, *fakes]])
    return probe_double_compression(sample_of(reals, fakes, double_compression=traces))


def sample_of(reals, fakes, n_splits=2, **pixels):
    labels = [0] * len(reals) + [1] * len(fakes)
    sources = [f"s{i}" for images in (reals, fakes) for i in range(len(images))]
    rows = pd.DataFrame({"source_id": sources, "label": labels})
    sizes = np.array([image.shape[1::-1] for image in [*reals, *fakes]])
    return Sample(rows, rows, {"size": sizes, **pixels}, grouped_folds(labels, sources, n_splits))


@pytest.fixture(scope="module")
def trips():
    return [by_way_of(pixels, 192) for pixels in IMAGES]


def test_fakes_that_were_resized_alone_are_a_leak_and_the_size_is_named(trips):
    check = resampling(IMAGES, trips)
    assert check.verdict == "leak"
    assert check.auc > 0.8
    assert "by way of 192x192" in check.summary
    assert "same resizes" in check.remedy


def test_both_resized_alike_pass(trips):
    fakes = [by_way_of(pixels, 192, between=repaint) for pixels in IMAGES]
    check = resampling(trips, fakes)
    assert check.verdict in ("pass", "warning")
    assert check.details["both_classes_resized_alike"]
    assert "both show one" in check.summary.lower()


def test_originals_alone_with_lines_are_no_leak(trips):
    """An engine that repaints everything wipes them out."""
    check = resampling(trips, IMAGES)
    assert check.verdict == "pass"
    assert check.auc <= 0.5


@pytest.mark.parametrize("kernel", ["NEAREST", "BILINEAR"])
def test_an_engine_that_enlarges_four_times_is_no_resize(kernel):
    def enlarge(pixels):
        size = (pixels.shape[1], pixels.shape[0])
        small = Image.fromarray(pixels).resize((size[0] // 4, size[1] // 4), Image.Resampling.BOX)
        return np.array(small.resize(size, Image.Resampling[kernel]))

    reals = [pixels[: len(pixels) // 4 * 4, : pixels.shape[1] // 4 * 4] for pixels in IMAGES]
    assert resampling(reals, [enlarge(np.ascontiguousarray(p)) for p in reals]).verdict != "leak"


def test_tiny_images_are_not_checked():
    tiny = [pixels[:32, :32] for pixels in IMAGES]
    assert resampling(tiny, tiny).verdict == "not checked"
    assert compression(tiny, tiny).verdict == "not checked"


def test_only_fakes_that_were_jpegs_are_a_leak():
    compressed = [as_jpeg(pixels, 90) for pixels in IMAGES]
    leak = compression(IMAGES, compressed)
    assert (leak.verdict, leak.auc) == ("leak", 1.0)
    assert compression(compressed, compressed).verdict == "pass"
    assert compression(IMAGES, IMAGES).verdict == "pass"


def test_an_engine_may_wipe_out_what_the_originals_were():
    compressed = [as_jpeg(pixels, 90) for pixels in IMAGES]
    check = compression(compressed, IMAGES)
    assert check.verdict == "warning"
    assert "recompressed" in check.remedy


def metadata(folder, reals, fakes, **fake_options):
    rows = manifest_of(write(folder / "real", reals), write(folder / "fake", fakes, **fake_options))
    headers = read_headers(rows["path"].tolist())
    folds = grouped_folds(rows["label"], rows["source_id"], 2)
    return probe_metadata(Sample(rows, headers, folds=folds))


def test_sizes_that_an_engine_rounds_to_multiples_of_8_are_a_leak(tmp_path):
    rounded = [p[: len(p) // 8 * 8, : p.shape[1] // 8 * 8] for p in IMAGES]
    assert metadata(tmp_path, IMAGES, rounded).verdict == "leak"


def test_equal_headers_pass(tmp_path):
    check = metadata(tmp_path, IMAGES, [pixels[::-1] for pixels in IMAGES])
    assert check.verdict == "pass"
    assert check.auc == 0.5


@pytest.mark.parametrize("name", HONEST)
def test_what_an_engine_changes_too_is_a_warning_at_most(name):
    labels = np.repeat([0.0, 1.0], N)[:, None]
    check = probe_honest(name, sample_of(IMAGES, IMAGES, **{name: labels}))
    assert (check.verdict, check.auc) == ("warning", 1.0)
    assert check.remedy
    assert probe_honest(name, sample_of(IMAGES, IMAGES, **{name: 0 * labels})).verdict == "pass"


def test_images_are_described_in_order(tmp_path):
    paths = write(tmp_path, IMAGES[:4])
    described = list(on_threads(measure_pixels, paths, n_jobs=2))
    assert [tuple(d["size"]) for d in described] == [p.shape[1::-1] for p in IMAGES[:4]]
    np.testing.assert_array_equal(described[3]["spectrum"], resampling_spectrum(IMAGES[3]))


def test_the_sure_bound_is_the_lower():
    sample = sample_of(IMAGES, IMAGES).rows
    scores = np.clip(sample["label"] * 0.2 + np.random.default_rng(0).random(2 * N) * 0.8, 0, 1)
    auc = score_probe(sample, scores.to_numpy())
    assert auc.surely < auc.low < auc.value < auc.high
