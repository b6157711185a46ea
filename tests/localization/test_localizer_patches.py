import dataclasses

import numpy as np
import pytest
from PIL import Image
from tiny_localizer import paintings

from cnnsvm.features.augmentation import AUGMENTATIONS, Augmentation
from cnnsvm.localization import patches
from cnnsvm.localization.patches import (
    DrawnPatches,
    FixedPatches,
    Pairs,
    choose_place,
    cut_patch,
    draw_patches,
)

GEOMETRY = Augmentation(resize=0.7, resize_range=(0.5, 2.0))


def rng(seed):
    return np.random.default_rng(seed)


def blob(height=90, width=120):
    mask = np.zeros((height, width), dtype=bool)
    mask[20:50, 30:90] = True
    mask[40:70, 60:100] = True
    return mask


def painted_white(mask):
    return np.where(mask[..., None], np.uint8(255), np.uint8(0)).repeat(3, axis=2)


@pytest.mark.parametrize("shape", [(90, 120), (20, 31), (1, 1), (5, 200)])
@pytest.mark.parametrize("seed", range(8))
def test_image_and_mask_go_through_the_same_geometry(shape, seed):
    mask = rng(seed).random(shape) < 0.4
    patch, target = cut_patch(painted_white(mask), mask, 32, GEOMETRY, 0.5, rng(seed))
    assert patch.shape == (32, 32, 3)
    assert target.shape == (32, 32)
    assert target.dtype == bool
    assert ((patch[..., 0] >= 128) == target).all()


@pytest.mark.parametrize("seed", range(8))
def test_degradations_leave_the_mask_alone(seed, monkeypatch):
    monkeypatch.setattr(patches, "ON_GRID", 0.0)  # else a codec may move the place
    degraded = Augmentation(blur=1, noise=1, codec=1, second_codec=1, noise_sigma=8.0)
    clean = dataclasses.replace(degraded, blur=0, noise=0, codec=0)
    grain = rng(seed).random((90, 120)) < 0.4  # which a blur would change
    targets = [
        cut_patch(painted_white(grain), grain, 32, augmentation, 0.5, rng(seed))[1]
        for augmentation in (degraded, clean)
    ]
    assert (targets[0] == targets[1]).all()
    patch, target = cut_patch(painted_white(blob()), blob(), 32, degraded, 0.5, rng(seed))
    assert len(np.unique(patch)) > 2
    assert ((patch[..., 0] >= 128) == target).mean() > 0.9


def test_turns_and_flips_come_about():
    seen = {
        cut_patch(
            painted_white(blob()[:90, :90]),
            blob()[:90, :90],
            90,
            AUGMENTATIONS["geometric"],
            0,
            rng(seed),
        )[1].tobytes()
        for seed in range(60)
    }
    assert len(seen) == 8


def test_balanced_patches_have_both_kinds_even_where_one_is_rare():
    for mask in (np.zeros((900, 1000), bool), np.ones((900, 1000), bool)):
        mask[3:43, 950:990] ^= True
        shares = []
        for seed in range(30):
            top, left = choose_place(mask, 64, 1.0, rng(seed))
            shares.append(mask[top : top + 64, left : left + 64].mean())
        assert min(shares) >= 0.1
        assert max(shares) <= 0.9
        places = {choose_place(mask, 64, 1.0, rng(seed)) for seed in range(30)}
        assert len(places) > 20  # not always the same corner


def test_without_balance_every_place_is_as_likely():
    mask = np.zeros((100, 100), bool)
    mask[:20, :20] = True
    places = np.array([choose_place(mask, 20, 0.0, rng(seed)) for seed in range(400)])
    assert places.min() == 0
    assert places.max() == 80
    np.testing.assert_allclose(places.mean(axis=0), 40, atol=4)


@pytest.mark.parametrize("value", [False, True])
def test_masks_of_one_kind_have_places_too(value):
    assert choose_place(np.full((40, 64), value), 40, 1.0, rng(0))[0] == 0


def test_every_image_is_drawn_and_every_batch_is_full():
    indices = np.array([2, 3, 5, 7, 11])
    draws = draw_patches(indices, 2, 4, seed=1, epoch=3)
    counts = np.bincount([draw.index for draw in draws], minlength=12)
    assert len(draws) == 12
    assert set(np.flatnonzero(counts)) == set(indices)
    assert counts[indices].min() >= 2
    assert len({draw.seed for draw in draws}) == len(draws)


def test_epochs_and_seeds_differ_and_repeat():
    def order(seed, epoch):
        return draw_patches(np.arange(20), 1, 4, seed, epoch)

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


def test_pairs_are_read_once_while_memory_lasts(tmp_path):
    pixels, mask = paintings(0, 1)
    Image.fromarray(pixels[0]).save(tmp_path / "a.png")
    paths = [tmp_path / "a.png"] * 2
    size = pixels[0].nbytes + mask[0].nbytes
    pairs = Pairs(paths, [mask[0], mask[0]], "half", memory=size)
    first = pairs[0]
    second = pairs[1]
    (tmp_path / "a.png").unlink()
    assert pairs[0] is first
    assert (second[0] == first[0]).all()
    with pytest.raises(OSError, match="no such file"):
        pairs[1]


def test_items_are_tensors_with_channels_first():
    pairs = Pairs(*paintings(0, 3), "half")
    drawn = DrawnPatches(pairs, draw_patches(np.arange(3), 1, 3, 0, 0), 32, GEOMETRY, 0.5)
    patch, target = drawn[0]
    assert (patch.shape, target.shape) == ((3, 32, 32), (32, 32))
    fixed = FixedPatches(pairs, [2, 1], 32, 4)
    patches, targets = fixed[0]
    assert (patches.shape, targets.shape) == ((4, 3, 32, 32), (4, 32, 32))
    assert (patches[0].permute(1, 2, 0).numpy() == pairs[2][0][:32, :32]).all()
    assert (targets[3].numpy() == pairs[2][1][-32:, -32:]).all()


@pytest.mark.parametrize("seed", range(4))
def test_what_is_erased_in_the_image_stays_in_the_mask(seed):
    whole = np.ones((90, 120), dtype=bool)
    moved = Augmentation(turn=False, mirror=True, shift=2, erase=12)
    patch, target = cut_patch(painted_white(whole), whole, 32, moved, 0.0, rng(seed))
    assert (patch[..., 0] == 124).any()
    assert target.all()


@pytest.mark.parametrize(("codec", "expected"), [(1.0, 0.5), (0.0, 0.0)])
def test_half_of_the_recompressed_patches_lie_on_the_grid_of_the_image(codec, expected):
    dots = np.zeros((96, 88), dtype=bool)
    dots[::8, ::8] = True
    saved_again = Augmentation(turn=False, codec=codec)
    on_grid = [
        cut_patch(painted_white(dots), dots, 32, saved_again, 0.0, rng(seed))[1][0, 0]
        for seed in range(400)
    ]
    by_chance = 1 / 64
    assert np.mean(on_grid) == pytest.approx(expected + (1 - expected) * by_chance, abs=0.08)
