from dataclasses import replace

import numpy as np
import pytest

from cnnsvm.features.augmentation import (
    AUGMENTATIONS,
    ENCODERS,
    Augmentation,
    Plan,
    apply_plan,
    apply_to_whole,
    draw_plan,
    recompress,
    weaken,
)

IMAGE = np.random.default_rng(0).integers(0, 256, (60, 70, 3), dtype=np.uint8)
STILL = Plan(0.0, 0.0, 0, False, None, None, None, None, 0)


def test_a_source_and_its_fake_get_the_same_crop_and_turn():
    fake = IMAGE.copy()
    fake[:, :35] //= 2
    for seed in range(20):
        plan = draw_plan(AUGMENTATIONS["geometric"], np.random.default_rng(seed))
        real_crop, fake_crop = (apply_plan(image, plan, 32) for image in (IMAGE, fake))
        same, halved = fake_crop == real_crop, fake_crop == real_crop // 2
        assert (same | halved).all()


def test_the_same_seed_draws_the_same_plan_whatever_is_switched_on():
    plans = [
        draw_plan(AUGMENTATIONS[name], np.random.default_rng(5)) for name in ("geometric", "full")
    ]
    assert (plans[0].top, plans[0].left, plans[0].turns) == (
        plans[1].top,
        plans[1].left,
        plans[1].turns,
    )


def test_geometric_keeps_every_pixel_value():
    for seed in range(10):
        plan = draw_plan(AUGMENTATIONS["geometric"], np.random.default_rng(seed))
        crop = apply_plan(IMAGE, plan, 60)
        top, left = round(plan.top * 0), round(plan.left * 10)
        expected = IMAGE[top : top + 60, left : left + 60]
        assert sorted(crop.ravel()) == sorted(expected.ravel())


def test_none_is_a_plain_crop():
    for seed in range(10):
        plan = draw_plan(AUGMENTATIONS["none"], np.random.default_rng(seed))
        top, left = round(plan.top * 28), round(plan.left * 38)
        np.testing.assert_array_equal(
            apply_plan(IMAGE, plan, 32), IMAGE[top : top + 32, left : left + 32]
        )


@pytest.mark.parametrize(
    "change",
    [
        *({"scale": 1.2}, {"scale": 0.8}, {"blur": 0.7}, {"noise": 2.0}),
        *({"codec": ("jpeg", 70)}, {"codec": ("webp", 70)}),
    ],
)
def test_each_degradation_changes_pixels_a_little(change):
    still = apply_plan(IMAGE, STILL, 32)
    changed = apply_plan(IMAGE, Plan(**{**vars(STILL), **change}), 32)
    assert changed.shape == (32, 32, 3)
    assert changed.dtype == np.uint8
    assert (changed != still).any()
    again = apply_plan(IMAGE, Plan(**{**vars(STILL), **change}), 32)
    np.testing.assert_array_equal(changed, again)


def test_probabilities_are_kept():
    augmentation = Augmentation(codec=0.3)
    rng = np.random.default_rng(0)
    share = np.mean([draw_plan(augmentation, rng).codec is not None for _ in range(2000)])
    assert 0.26 < share < 0.34


def test_jpeg_alone_is_never_webp_and_changes_nothing_else():
    rng = np.random.default_rng(0)
    plans = [draw_plan(AUGMENTATIONS["jpeg"], rng) for _ in range(500)]
    codecs = [plan.codec for plan in plans if plan.codec is not None]
    assert 0.75 < len(codecs) / len(plans) < 0.85
    assert {encoder for encoder, _ in codecs} == {"jpeg", "jpeg-444", "jpeg-opencv"}
    assert (min(q for _, q in codecs), max(q for _, q in codecs)) == (60, 100)
    assert {(p.scale, p.blur, p.noise, p.second_codec) for p in plans} == {(None,) * 4}


def test_degradations_become_rarer_and_nothing_else_changes():
    robust = AUGMENTATIONS["robust"]
    half = weaken(robust, 0.5)
    assert (half.resize, half.codec, half.second_codec) == (0.125, 0.325, 0.075)
    assert replace(half, resize=0.25, blur=0.1, noise=0.1, codec=0.65, second_codec=0.15) == robust
    assert weaken(robust, 1.0) == robust
    assert weaken(AUGMENTATIONS["small"], 0.0) == AUGMENTATIONS["small"]


def test_the_image_is_not_changed():
    before = IMAGE.copy()
    plan = Plan(0.5, 0.5, 1, True, 1.1, 0.5, 1.0, ("jpeg", 80), 0)
    apply_plan(IMAGE, plan, 32)
    np.testing.assert_array_equal(IMAGE, before)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_each_encoder_loses_more_at_lower_quality(encoder):
    smooth = np.cumsum(np.cumsum(IMAGE.astype(float) - IMAGE.mean(), axis=0), axis=1)
    pixels = np.interp(smooth, (smooth.min(), smooth.max()), (0, 255)).astype(np.uint8)
    losses = [
        np.abs(recompress(pixels, encoder, quality).astype(int) - pixels).mean()
        for quality in (30, 95)
    ]
    assert losses[0] > 1.5 * losses[1] > 0


def test_whole_images_are_degraded_without_crop_or_turn():
    still = Plan(**{**vars(STILL), "turns": 1, "flip": True})
    np.testing.assert_array_equal(apply_to_whole(IMAGE, still), IMAGE)
    half = Plan(**{**vars(STILL), "scale": 0.5})
    assert apply_to_whole(IMAGE, half).shape == (30, 35, 3)
    off_grid = Plan(**{**vars(STILL), "top": 0.5, "left": 0.9, "codec": ("jpeg", 90)})
    expected = recompress(np.ascontiguousarray(IMAGE[4:, 7:]), "jpeg", 90)
    np.testing.assert_array_equal(apply_to_whole(IMAGE, off_grid), expected)


def test_a_tiny_image_is_not_reduced_to_nothing():
    plan = Plan(**{**vars(STILL), "scale": 0.5, "codec": ("webp", 60), "top": 0.9, "left": 0.9})
    assert apply_to_whole(IMAGE[:1, :3], plan).shape == (16, 16, 3)


def test_a_second_codec_needs_a_first():
    rng = np.random.default_rng(0)
    plans = [draw_plan(Augmentation(codec=0.5, second_codec=0.5), rng) for _ in range(500)]
    seconds = [plan for plan in plans if plan.second_codec is not None]
    assert 80 < len(seconds) < 170
    assert all(plan.codec is not None for plan in seconds)


@pytest.mark.parametrize("codec", [("webp", 80), ("jpeg", 80), ("jpeg-opencv", 80)])
def test_long_images_are_degraded_as_far_as_formats_allow(codec):
    long = np.zeros((16, 33_000, 3), dtype=np.uint8)
    plan = Plan(**{**vars(STILL), "scale": 2.0, "codec": codec, "noise": 1.0})
    assert apply_to_whole(long, plan).shape == long.shape


def test_small_mirrors_moves_and_erases_but_never_turns():
    small = AUGMENTATIONS["small"]
    plans = [draw_plan(small, np.random.default_rng(seed)) for seed in range(200)]
    assert {plan.turns for plan in plans} == {0}
    assert {plan.flip for plan in plans} == {False, True}
    assert {part for plan in plans for part in plan.shift} == {-2, -1, 0, 1, 2}
    assert {plan.erase[0] for plan in plans} == {12}
    assert {(p.scale, p.blur, p.noise, p.codec) for p in plans} == {(None, None, None, None)}


def test_what_others_draw_did_not_change_when_shifts_came():
    """Fits made before are made again: this is the plan that version 0.1 drew."""
    plan = draw_plan(AUGMENTATIONS["robust"], np.random.default_rng(11))
    assert (plan.codec, plan.second_codec) == (("jpeg-opencv", 77), ("jpeg", 85))
    assert (plan.noise_seed, plan.kernel, plan.turns) == (1063544023, 2, 2)
    assert (plan.shift, plan.erase) == ((0, 0), None)


@pytest.mark.parametrize("shift", [(2, 1), (-2, 0), (0, -1), (1, -2)])
def test_a_shift_moves_the_content_and_mirrors_the_edge(shift):
    moved = apply_plan(IMAGE[:40, :40], replace(STILL, shift=shift), 40)
    down, right = shift
    for y in range(4, 36):
        np.testing.assert_array_equal(moved[y, 4:36], IMAGE[y - down, 4 - right : 36 - right])
    if down > 0 and right == 0:
        np.testing.assert_array_equal(moved[down - 1], moved[down + 1])
    assert moved.shape == (40, 40, 3)
    if shift == (-2, 0):
        np.testing.assert_array_equal(moved[38], moved[36])  # the last row is the mirror


@pytest.mark.parametrize("place", [(0.0, 0.0), (1.0, 1.0), (0.5, 0.25)])
def test_an_erased_square_is_grey_and_the_rest_as_it_was(place):
    image = np.where(IMAGE[:32, :32] == 124, 0, IMAGE[:32, :32])
    erased = apply_plan(image, replace(STILL, erase=(12, *place)), 32)
    grey = (erased == 124).all(axis=2)
    top, left = (round(share * 32) - 6 for share in place)
    expected = np.zeros((32, 32), bool)
    expected[max(0, top) : top + 12, max(0, left) : left + 12] = True
    np.testing.assert_array_equal(grey, expected)
    np.testing.assert_array_equal(erased[~grey], image[~grey])


def test_an_undone_resize_gives_the_size_back_and_less_detail():
    plan = replace(STILL, scale=0.5)
    undone = apply_to_whole(IMAGE, replace(plan, undo=True))
    assert undone.shape == IMAGE.shape
    assert apply_to_whole(IMAGE, plan).shape != IMAGE.shape
    assert np.abs(np.diff(undone.astype(int), axis=1)).mean() < (
        0.8 * np.abs(np.diff(IMAGE.astype(int), axis=1)).mean()
    )


def test_only_views_that_are_shared_again_undo_resizes():
    drawn = {
        name: [draw_plan(AUGMENTATIONS[name], np.random.default_rng(k)) for k in range(400)]
        for name in ("robust", "reshared")
    }
    assert not any(plan.undo for plan in drawn["robust"])
    assert 0.3 < np.mean([plan.undo for plan in drawn["reshared"]]) < 0.5
