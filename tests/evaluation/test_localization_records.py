import numpy as np
import pandas as pd
import pytest
from PIL import Image
from spliced_records import SIDE, save, write_records

from cnnsvm.data.images import ImageError
from cnnsvm.evaluation.localization_records import (
    kinds_of,
    load_truth,
    masks_of,
    with_truth,
    without_bad_pairs,
)


@pytest.fixture
def manifest(tmp_path):
    return write_records(tmp_path, n_sources=3)


def test_a_regenerated_image_has_two_readings(manifest):
    table, warnings = with_truth(manifest)
    kinds = ["a spliced", "b spliced", "b regenerated (mask)", "b regenerated (whole)"]
    assert kinds_of(table) == kinds
    assert table["kind"].value_counts().to_dict() == dict.fromkeys([*kinds, "original"], 3)
    assert warnings == []
    row = table[table["reading"] == "whole"].iloc[0]
    assert load_truth(row).all()
    row = table[table["kind"] == "b regenerated (mask)"].iloc[0]
    assert load_truth(row).mean() == 0.5
    row = table[table["kind"] == "original"].iloc[0]
    assert load_truth(row).shape == (SIDE, SIDE)
    assert not load_truth(row).any()


def test_a_reading_can_be_left_out(manifest):
    assert set(with_truth(manifest, ["whole"])[0]["reading"]) == {"mask", "whole", "untouched"}
    assert "regenerated" not in set(with_truth(manifest, [])[0]["variant"])
    with pytest.raises(ValueError, match="readings must be of mask, whole, got 'half'"):
        with_truth(manifest, ["half"])


def test_what_has_no_mask_is_read_as_whole_or_left_out(manifest):
    bare = manifest.assign(mask_path=None)
    table, warnings = with_truth(bare)
    assert kinds_of(table) == ["b regenerated (whole)"]
    assert warnings == ["6 spliced image(s) have no mask file; they were left out."]
    with pytest.raises(ValueError, match="no repainted image with a truth is left"):
        with_truth(bare, ["mask"])


def test_regenerated_images_that_are_the_spliced_ones_are_left_out(manifest):
    spliced = manifest.loc[manifest["engine"] == "b", "sha256"].iloc[0]
    manifest.loc[manifest["variant"] == "regenerated", "sha256"] = spliced
    table, warnings = with_truth(manifest)
    left = table[table["variant"] == "regenerated"]
    assert set(left["source_id"]) == {"1", "2"}  # the same content under another source is kept
    assert "1 regenerated image(s) are file for file" in warnings[0]


def test_an_original_of_two_joined_data_sets_counts_once(manifest):
    again = manifest[manifest["variant"] == "original"].copy()
    table, _ = with_truth(pd.concat([manifest, again], ignore_index=True))
    assert (table["kind"] == "original").sum() == 3


def test_what_a_localiser_is_given(manifest):
    table, _ = with_truth(manifest)
    for mask, reading in zip(masks_of(table), table["reading"], strict=True):
        if reading == "untouched":
            assert mask is None
        elif reading == "whole":
            assert mask.shape == (SIDE, SIDE)
            assert mask.strides == (0, 0)  # takes no memory
            assert mask.all()
        else:
            assert mask.endswith("mask.png")


def test_the_weights_of_a_blurred_edge_stand_for_its_mask(manifest, tmp_path):
    table, _ = with_truth(manifest)
    soft = np.linspace(0, 255, SIDE * SIDE).reshape(SIDE, SIDE).astype(np.uint8)
    save(tmp_path / "1" / "blend.png", soft)
    table, _ = with_truth(manifest)
    rows = table[(table["source_id"] == "1") & (table["kind"] == "a spliced")]
    shares = [load_truth(rows.iloc[0], policy).mean() for policy in ("any", "half", "full")]
    assert shares[0] > 0.9
    assert shares[1] == pytest.approx(0.5, abs=0.01)
    assert shares[2] < 0.01


def test_bad_pairs_stop_or_are_listed(manifest, tmp_path):
    table, _ = with_truth(manifest)
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(tmp_path / "1" / "mask.png")
    (tmp_path / "2" / "original.png").write_bytes(b"nothing")
    with pytest.raises(ImageError, match=r"4 of 15 images cannot be used(.|\n)*--skip-bad"):
        without_bad_pairs(table)
    checked = without_bad_pairs(table, skip_bad=True)
    assert len(checked.manifest) == 11
    assert len(checked.skipped) == 4
    assert "3x3 pixels" in checked.skipped[0]["reason"] + checked.skipped[1]["reason"]
    assert list(checked.manifest.index) == list(range(11))
