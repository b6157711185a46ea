import json

import numpy as np
import pandas as pd
import pytest
from audit_images import by_way_of, check_of, draw_image, manifest_of, repaint, write

from cnnsvm.audit.audit import CHECKS, PROBES, audit, draw_sample
from cnnsvm.audit.check import Verdict
from cnnsvm.data.manifest import ManifestError

N = 20
SIDE = 192


def run(manifest, **options):
    return audit(manifest, n_splits=2, n_jobs=1, progress=False, **options)


@pytest.fixture(scope="module")
def images():
    return [draw_image(seed) for seed in range(N)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("audit")


@pytest.fixture(scope="module")
def fakes(images, folder):
    """What the seed project did: a resize to a square, the engine there, a resize back."""
    return write(folder / "fake", [by_way_of(p, SIDE, between=repaint) for p in images])


@pytest.fixture(scope="module")
def seed_result(images, folder, fakes):
    return run(manifest_of(write(folder / "untouched", images), fakes))


def test_the_history_of_the_seed_project_is_a_leak(seed_result):
    assert seed_result["verdict"] == "leak"
    check = check_of(seed_result, "resampling")
    assert check["verdict"] == "leak"
    assert check["auc"] > 0.8
    assert f"{SIDE}x{SIDE}" in check["summary"]


def test_only_the_resize_leaks_there(seed_result):
    leaks = [check["name"] for check in seed_result["checks"] if check["verdict"] == "leak"]
    assert leaks == ["resampling"]


def test_its_matched_twin_does_not_leak(images, folder, fakes):
    reals = write(folder / "matched", [by_way_of(p, SIDE) for p in images])
    result = run(manifest_of(reals, fakes))
    assert result["verdict"] == "warning"
    assert check_of(result, "metadata")["auc"] == 0.5
    assert check_of(result, "post-processing")["verdict"] == "pass"


def test_png_against_jpeg_is_a_leak(images, folder, fakes):
    reals = write(folder / "jpeg", images[:8], ending="jpg", quality=90)
    result = run(manifest_of(reals, fakes[:8]))
    assert check_of(result, "post-processing")["verdict"] == "leak"
    assert check_of(result, "metadata")["auc"] == 1.0


def test_a_result_is_json_and_complete(seed_result):
    assert json.loads(json.dumps(seed_result, allow_nan=False)) == seed_result
    assert tuple(check["name"] for check in seed_result["checks"]) == CHECKS
    assert seed_result["n_images"] == seed_result["n_probed_images"] == 2 * N
    verdicts = [check["verdict"] for check in seed_result["checks"]]
    assert seed_result["verdict"] == max(verdicts, key=list(Verdict).index)
    for check in seed_result["checks"]:
        assert check["summary"]
        assert check["remedy"] or check["verdict"] in ("pass", "not checked")


def test_too_few_sources_are_told_and_not_probed(folder, fakes):
    manifest = manifest_of(fakes[:1], fakes[1:4])
    result = run(manifest)
    for name in PROBES:
        assert check_of(result, name)["verdict"] == "not checked"
        assert "1 source(s) with real images" in check_of(result, name)["summary"]


def test_originals_alone_are_checked_for_copies(fakes):
    manifest = manifest_of([*fakes[:3], fakes[0]], [])
    result = run(manifest)
    json.dumps(result, allow_nan=False)
    assert check_of(result, "duplicates")["verdict"] == "leak"
    assert check_of(result, "post-processing")["verdict"] == "not checked"
    assert check_of(result, "balance")["remedy"] == "Add the other class."


def test_a_manifest_is_not_changed_and_needs_few_columns(folder, fakes):
    manifest = manifest_of(fakes[:2], fakes[2:4])[["path", "label", "source_id"]]
    before = manifest.copy()
    assert run(manifest)["n_sources"] == 2
    pd.testing.assert_frame_equal(manifest, before)


def test_what_cannot_be_audited_is_refused(fakes):
    manifest = manifest_of(fakes[:2], fakes[2:4])
    with pytest.raises(ManifestError, match="needs rows"):
        run(manifest.iloc[:0])
    with pytest.raises(ManifestError, match="source_id"):
        run(manifest.drop(columns="source_id"))
    with pytest.raises(ManifestError, match="got 2"):
        run(manifest.assign(label=2))
    with pytest.raises(ValueError, match="n_splits must be at least 2, got 1"):
        audit(manifest, n_splits=1)
    with pytest.raises(ValueError, match="max_images must be at least 2, got 1"):
        run(manifest, max_images=1)


def table(n_sources, n_real=1, n_fake=5):
    rows = [
        {"source_id": f"s{i}", "unit": f"s{i}", "label": label}
        for i in range(n_sources)
        for label in [0] * n_real + [1] * n_fake
    ]
    return pd.DataFrame(rows)


def test_a_sample_has_as_many_of_each_class_of_a_record():
    sample = draw_sample(table(10, 2, 5), 1000)
    assert (sample.groupby(["source_id", "label"]).size() == 2).all()
    assert sample.index.is_monotonic_increasing


def test_a_sample_takes_whole_sources_up_to_its_limit():
    sample = draw_sample(table(100), 40)
    assert len(sample) == 40
    assert sample["source_id"].nunique() == 20
    assert set(sample["source_id"]) != {f"s{i}" for i in range(20)}
    again, other = draw_sample(table(100), 40), draw_sample(table(100), 40, random_state=1)
    assert sample.index.equals(again.index)
    assert not sample.index.equals(other.index)


def test_a_sample_keeps_sources_of_one_class():
    alone = pd.concat([table(6, 3, 0), table(6, 0, 4).replace(r"^s", "f", regex=True)])
    assert len(draw_sample(alone.reset_index(drop=True), 1000)) == 6 * 7


def test_a_single_source_larger_than_the_limit_is_cut():
    assert len(draw_sample(table(1, 50, 50), 20)) == 20


def test_records_of_one_source_are_matched_each():
    two = table(2, 1, 4).assign(source_id="one photograph")
    sample = draw_sample(two, 1000)
    assert np.array_equal(sample.groupby(["unit", "label"]).size(), [1, 1, 1, 1])
