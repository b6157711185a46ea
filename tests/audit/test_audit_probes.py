import numpy as np
import pandas as pd
import pytest
from audit_pictures import as_jpeg, by_way_of, manifest_of, picture, repaint, write
from PIL import Image
from sklearn.ensemble import RandomForestClassifier

from cnnsvm.audit.check import score_probe, worst_verdict
from cnnsvm.audit.headers import read_headers
from cnnsvm.audit.probes import (
    describe_pixels,
    probe_honest,
    probe_jpeg_past,
    probe_metadata,
    probe_resampling,
)
from cnnsvm.audit.traces import jpeg_past, resampling_spectrum
from cnnsvm.data.splits import grouped_folds

N = 20
PICTURES = [picture(seed) for seed in range(N)]


@pytest.fixture(scope="module", autouse=True)
def _few_trees():
    """Most of an audit's time goes into forests, on which nothing here depends."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "cnnsvm.evaluation.negative_controls.RandomForestClassifier",
            lambda n_trees, **options: RandomForestClassifier(20, **options),
        )
        yield


def resampling(reals, fakes):
    sample, described = paired(reals, fakes)
    described["spectrum"] = np.stack([resampling_spectrum(image) for image in [*reals, *fakes]])
    folds = grouped_folds(sample["label"], sample["source_id"], 3)
    return probe_resampling(sample, described, folds)


def past(reals, fakes):
    sample, described = paired(reals, fakes)
    described["jpeg_past"] = np.array([jpeg_past(image) for image in [*reals, *fakes]])
    return probe_jpeg_past(sample, described)


def paired(reals, fakes):
    labels = [0] * len(reals) + [1] * len(fakes)
    sources = [f"s{i}" for images in (reals, fakes) for i in range(len(images))]
    sizes = np.array([image.shape[1::-1] for image in [*reals, *fakes]])
    return pd.DataFrame({"source_id": sources, "label": labels}), {"size": sizes}


@pytest.fixture(scope="module")
def trips():
    return [by_way_of(pixels, 192) for pixels in PICTURES]


def test_fakes_that_were_resized_alone_are_a_leak_and_the_size_is_named(trips):
    check = resampling(PICTURES, trips)
    assert check.verdict == "leak"
    assert check.auc > 0.8
    assert "by way of 192x192" in check.summary
    assert "same resizes" in check.remedy


def test_both_resized_alike_pass(trips):
    fakes = [by_way_of(pixels, 192, between=repaint) for pixels in PICTURES]
    check = resampling(trips, fakes)
    assert check.verdict in ("pass", "warning")
    assert check.details["both_classes_resized_alike"]
    assert "both show one" in check.summary.lower()


def test_originals_alone_with_lines_are_no_leak(trips):
    """An engine that repaints everything wipes them out."""
    check = resampling(trips, PICTURES)
    assert check.verdict == "pass"
    assert check.auc <= 0.5


@pytest.mark.parametrize("kernel", ["NEAREST", "BILINEAR"])
def test_an_engine_that_enlarges_four_times_is_no_resize(kernel):
    def enlarge(pixels):
        size = (pixels.shape[1], pixels.shape[0])
        small = Image.fromarray(pixels).resize((size[0] // 4, size[1] // 4), Image.Resampling.BOX)
        return np.array(small.resize(size, Image.Resampling[kernel]))

    reals = [pixels[: len(pixels) // 4 * 4, : pixels.shape[1] // 4 * 4] for pixels in PICTURES]
    assert resampling(reals, [enlarge(np.ascontiguousarray(p)) for p in reals]).verdict != "leak"


def test_tiny_images_are_not_checked():
    tiny = [pixels[:32, :32] for pixels in PICTURES]
    assert resampling(tiny, tiny).verdict == "not checked"
    assert past(tiny, tiny).verdict == "not checked"


def test_only_fakes_that_were_jpegs_are_a_leak():
    compressed = [as_jpeg(pixels, 90) for pixels in PICTURES]
    leak = past(PICTURES, compressed)
    assert (leak.verdict, leak.auc) == ("leak", 1.0)
    assert past(compressed, compressed).verdict == "pass"
    assert past(PICTURES, PICTURES).verdict == "pass"


def test_an_engine_may_wipe_out_what_the_originals_were():
    compressed = [as_jpeg(pixels, 90) for pixels in PICTURES]
    check = past(compressed, PICTURES)
    assert check.verdict == "warning"
    assert "recompressed" in check.remedy


def metadata(folder, reals, fakes, **fake_options):
    sample = manifest_of(
        write(folder / "real", reals), write(folder / "fake", fakes, **fake_options)
    )
    headers = read_headers(sample["path"].tolist(), n_jobs=1)
    folds = grouped_folds(sample["label"], sample["source_id"], 2)
    return probe_metadata(sample, headers, folds, 0)


def test_sizes_that_an_engine_rounds_to_multiples_of_8_are_a_leak(tmp_path):
    rounded = [p[: len(p) // 8 * 8, : p.shape[1] // 8 * 8] for p in PICTURES]
    assert metadata(tmp_path, PICTURES, rounded).verdict == "leak"


def test_equal_headers_pass(tmp_path):
    check = metadata(tmp_path, PICTURES, [pixels[::-1] for pixels in PICTURES])
    assert check.verdict == "pass"
    assert check.auc == 0.5


def test_what_an_engine_changes_too_is_a_warning_at_most():
    sample, _ = paired(PICTURES, PICTURES)
    folds = grouped_folds(sample["label"], sample["source_id"], 2)
    told_apart = sample[["label"]].to_numpy(dtype=float)
    for name in ("grid", "colour", "file_size"):
        check = probe_honest(name, told_apart, sample, folds, 0)
        assert (check.verdict, check.auc) == ("warning", 1.0)
        assert check.remedy
    assert probe_honest("grid", 0 * told_apart, sample, folds, 0).verdict == "pass"


def test_images_are_described_in_order(tmp_path):
    paths = write(tmp_path, PICTURES[:4])
    described = list(describe_pixels(paths, n_jobs=2))
    assert [tuple(d["size"]) for d in described] == [p.shape[1::-1] for p in PICTURES[:4]]
    np.testing.assert_array_equal(described[3]["spectrum"], resampling_spectrum(PICTURES[3]))


def test_the_sure_bound_is_the_lower():
    sample, _ = paired(PICTURES, PICTURES)
    scores = np.clip(sample["label"] * 0.2 + np.random.default_rng(0).random(2 * N) * 0.8, 0, 1)
    auc = score_probe(sample, scores.to_numpy())
    assert auc["surely"] < auc["low"] < auc["value"] < auc["high"]


def test_the_worst_verdict_counts():
    assert worst_verdict(["pass", "warning", "not checked"]) == "warning"
    assert worst_verdict(["leak", "warning"]) == "leak"
    assert worst_verdict([]) == "pass"
