import numpy as np
import pandas as pd
import pytest
from audit_images import by_way_of, draw_image, lower_half, repaint, write

from cnnsvm.audit.check import Sample
from cnnsvm.audit.outside import compare_outside, find_pairs, probe_outside
from cnnsvm.data.manifest import make_manifest, make_row

IMAGES = [draw_image(seed, 140, 120) for seed in range(12)]
MASKS = [lower_half(pixels) for pixels in IMAGES]


def paste(fakes, reals=IMAGES):
    return [
        np.where(mask[:, :, None], fake, real)
        for fake, real, mask in zip(fakes, reals, MASKS, strict=True)
    ]


def sample_of(folder, fakes, reals=IMAGES, variant="spliced", **options):
    masks = write(folder / "mask", [np.uint8(mask) * 255 for mask in MASKS])
    real, fake = (
        write(folder / name, images, **options)
        for name, images in (("real", reals), ("fake", fakes))
    )
    rows = [make_row(path, 0, f"s{i}") for i, path in enumerate(real)]
    rows += [
        make_row(path, 1, f"s{i}", variant=variant, mask_path=mask)
        for i, (path, mask) in enumerate(zip(fake, masks, strict=True))
    ]
    table = make_manifest(rows)
    return table.assign(unit=table["source_id"], lossy="quality" in options)


def outside(sample):
    return probe_outside(Sample(sample, folds=[(), ()]))


def noisy(images, strength):
    rng = np.random.default_rng(0)
    return [np.clip(p + rng.normal(0, strength, p.shape), 0, 255).astype(np.uint8) for p in images]


def test_spliced_fakes_that_touch_nothing_outside_pass(tmp_path):
    check = outside(sample_of(tmp_path, paste([repaint(p) for p in IMAGES])))
    assert check.verdict == "pass"
    assert check.details["n_changed"] == 0
    assert "all 12 spliced fakes equal their originals" in check.summary


def test_both_through_one_jpeg_pass(tmp_path):
    fakes = paste([repaint(p) for p in IMAGES])
    check = outside(sample_of(tmp_path, fakes, ending="jpg", quality=90))
    assert check.verdict == "pass"


def test_whatever_tells_the_classes_apart_outside_is_a_leak(tmp_path):
    for name, fakes in (
        ("noise", noisy(IMAGES, 12)),
        ("resize", [by_way_of(p, 96, between=repaint) for p in IMAGES]),
    ):
        check = outside(sample_of(tmp_path / name, fakes))
        assert check.verdict == "leak", name
        assert check.auc > 0.8
        assert "Paste" in check.remedy


def test_a_slight_change_outside_is_told_even_if_no_probe_sees_it(tmp_path):
    fakes = [p.copy() for p in IMAGES]
    for fake in fakes:
        fake[5, 5] ^= 1
    check = outside(sample_of(tmp_path, fakes))
    assert check.verdict == "warning"
    assert "12 of 12 spliced fakes differ" in check.summary


def test_a_regenerated_fake_may_differ_everywhere(tmp_path):
    check = outside(sample_of(tmp_path, noisy(IMAGES, 12), variant="regenerated"))
    assert check.verdict == "warning"
    assert "If they are meant as spliced, this is a leak" in check.remedy


def test_only_fakes_with_a_mask_and_an_original_of_their_size_are_compared(tmp_path):
    sample = sample_of(tmp_path, IMAGES)
    assert len(find_pairs(sample, "spliced")) == 12
    assert len(find_pairs(sample[sample["source_id"] != "s3"], "spliced")) == 11
    assert find_pairs(sample.assign(mask_path=None), "spliced").empty
    wider = sample.assign(width=sample["width"] + sample["label"])
    assert find_pairs(wider, "spliced").empty
    twice = pd.concat([sample, sample[sample["source_id"] == "s3"]])
    assert set(find_pairs(twice, "spliced")["source_id_fake"]) == {f"s{i}" for i in range(12)} - {
        "s3"
    }
    assert outside(sample.assign(mask_path=None)).verdict == "not checked"


def test_a_mask_that_leaves_next_to_nothing_is_left_out(tmp_path):
    sample = sample_of(tmp_path, IMAGES)
    full = write(tmp_path / "full", [np.full((120, 140), 255, np.uint8)])[0]
    pairs = find_pairs(sample.assign(mask_path=full), "spliced")
    assert compare_outside(pairs.iloc[0].to_dict()) is None


def test_too_few_sources_for_folds_are_a_warning(tmp_path):
    sample = sample_of(tmp_path, noisy(IMAGES, 12))
    few = pd.concat([sample[sample["source_id"] == "s0"]])
    assert outside(few).verdict == "warning"


@pytest.mark.parametrize("variant", ["spliced", "regenerated"])
def test_the_original_of_a_pair_is_that_of_its_record(tmp_path, variant):
    pairs = find_pairs(sample_of(tmp_path, IMAGES, variant=variant), variant)
    for pair in pairs.itertuples():
        assert pair.path_real.split("/")[-1] == pair.path_fake.split("/")[-1]
