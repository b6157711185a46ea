import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cnnsvm.data.images import ImageError
from cnnsvm.localization.masks import POLICIES, MaskError, as_mask_list, load_mask, load_pair

SOFT = np.array([[0, 1, 127, 128, 254, 255]], dtype=np.uint8)
IMAGE = np.full((4, 6, 3), 90, dtype=np.uint8)


@pytest.mark.parametrize(("policy", "n_repainted"), [("any", 5), ("half", 3), ("full", 1)])
def test_policies_part_ways_on_soft_masks(policy, n_repainted):
    mask = load_mask(SOFT, policy)
    assert mask.dtype == bool
    assert mask.tolist() == [[False] * (6 - n_repainted) + [True] * n_repainted]


@pytest.mark.parametrize("policy", POLICIES)
def test_arrays_of_bool_are_taken_as_they_are(policy):
    given = SOFT > 100
    mask = load_mask(given, policy)
    assert (mask == given).all()
    mask[:] = False
    assert given.any()


@pytest.mark.parametrize("policy", POLICIES)
def test_all_kinds_of_input_agree(policy, tmp_path):
    Image.fromarray(SOFT).save(tmp_path / "mask.png")
    rgb = np.repeat(SOFT[..., None], 3, axis=2)
    kinds = [
        Image.fromarray(SOFT),
        Image.fromarray(rgb),
        rgb,
        tmp_path / "mask.png",
        (tmp_path / "mask.png").read_bytes(),
    ]
    for kind in kinds:
        assert (load_mask(kind, policy) == load_mask(SOFT, policy)).all()


def test_an_image_of_one_bit_is_a_mask():
    mask = Image.fromarray(SOFT > 100)
    assert mask.mode == "1"
    assert (load_mask(mask, "full") == (SOFT > 100)).all()


@pytest.mark.parametrize("policy", POLICIES)
def test_an_empty_mask_is_an_untouched_image(policy):
    assert not load_mask(np.zeros((3, 4), np.uint8), policy).any()
    assert not load_mask(np.zeros((3, 4), bool), policy).any()
    assert not load_pair(IMAGE, None, policy)[1].any()


@pytest.mark.parametrize(
    ("policy", "brightest", "fitting"),
    [("full", 254, "'any' or 'half'"), ("half", 127, "'any'"), ("half", 2, "'any'")],
)
def test_grey_masks_of_which_nothing_counts_are_refused(policy, brightest, fitting):
    mask = np.full((3, 4), brightest, np.uint8)
    with pytest.raises(
        MaskError,
        match=f"brightest pixel is {brightest}.*nothing would count.*Use mask_policy {fitting}",
    ):
        load_mask(mask, policy)
    assert load_mask(mask, "any").all()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones((4, 6)), r"<array \(4, 6\) float64>: an array needs dtype bool or uint8"),
        (np.ones((4, 6), np.int64), "int64>: an array needs dtype bool or uint8"),
        (np.ones((4, 6, 3), bool), r"an array needs a shape of \(H, W\)"),
        (np.ones((4, 6, 2), np.uint8), r"must have shape \(H, W\)"),
        ("nowhere.png", r"mask nowhere\.png: no such file"),
        (7, "mask <int>: an image is a path"),
        (np.ones((6, 4), bool), r"is 4x6 pixels and the image 6x4\. Resize the mask"),
        (np.ones((4, 5), bool), "is 5x4 pixels and the image 6x4"),
    ],
)
def test_what_is_no_mask_of_its_image_is_named(mask, message):
    with pytest.raises(MaskError, match=message) as caught:
        load_pair(IMAGE, mask)
    assert isinstance(caught.value, ImageError)  # so what skips bad images skips bad masks
    assert "<array (4, 6, 3) uint8>" in str(caught.value)


def test_an_unknown_policy_is_named():
    with pytest.raises(ValueError, match="mask_policy must be one of any, half, full, got 'most'"):
        load_mask(SOFT, "most")


def turned(array, orientation=6):
    """Save an image that is shown turned."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", exif=exif)
    return buffer.getvalue()


def test_orientation_is_applied_to_image_and_mask():
    mask = np.zeros((4, 6), np.uint8)
    mask[0, :2] = 255
    pixels, repainted = load_pair(turned(IMAGE), turned(mask))
    assert pixels.shape == (6, 4, 3)
    assert repainted.shape == (6, 4)
    assert np.argwhere(repainted).tolist() == [[0, 3], [1, 3]]  # turned to the right
    upright = np.rot90(mask, -1)
    assert (load_pair(turned(IMAGE), upright)[1] == repainted).all()
    with pytest.raises(MaskError, match=r"is 6x4 pixels and the image 4x6.*upright"):
        load_pair(turned(IMAGE), mask)


def test_missing_masks_mean_untouched_images():
    mask = SOFT > 0
    listed = as_mask_list([mask, None, float("nan"), "", pd.NA, "a.png"])
    assert listed[0] is mask
    assert listed[1:] == [None, None, None, None, "a.png"]
    assert as_mask_list(pd.Series(["a.png", None])) == ["a.png", None]
    assert as_mask_list(np.array(["a.png", "b.png"])) == ["a.png", "b.png"]


def test_stacks_and_single_masks_are_listed():
    assert len(as_mask_list(np.zeros((5, 3, 4), bool))) == 5
    assert len(as_mask_list(np.zeros((3, 4), bool))) == 1
    assert as_mask_list("a.png") == ["a.png"]
    with pytest.raises(MaskError, match=r"got \(2, 3, 4, 1\)"):
        as_mask_list(np.zeros((2, 3, 4, 1), bool))
    with pytest.raises(MaskError, match="got int"):
        as_mask_list(3)
