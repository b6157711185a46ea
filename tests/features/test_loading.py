import dataclasses

import numpy as np

from cnnsvm.features import loading, reading
from cnnsvm.features.augmentation import AUGMENTATIONS
from cnnsvm.features.crops import batches, cut_crops
from cnnsvm.features.loading import DegradedImages, DrawnCrops, paired_draws, view_draws
from cnnsvm.features.reading import Decoded

CODES = np.array([0, 1, 1, 1, 0, 1, 1, 1, 1, 0])
GROUPS = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 3])


def test_classes_are_balanced_within_each_source():
    draws = paired_draws(CODES, GROUPS, seed=0, epoch=0)
    for group in (0, 1):
        drawn = [CODES[d.index] for d in draws if GROUPS[d.index] == group]
        assert drawn.count(0) == drawn.count(1) == 3


def test_every_image_is_drawn_each_epoch():
    assert {d.index for d in paired_draws(CODES, GROUPS, 0, 4)} == set(range(len(CODES)))


def test_a_source_sits_beside_its_fake_under_the_same_plan():
    draws = paired_draws(CODES, GROUPS, 0, 0)
    plans = {}
    for position, draw in enumerate(draws):
        plans.setdefault(draw.plan_seed, []).append((position, draw))
    pairs = [members for members in plans.values() if len(members) > 1]
    assert len(pairs) == 6
    for (first, a), (second, b) in pairs:
        assert second == first + 1
        assert GROUPS[a.index] == GROUPS[b.index]
        assert {CODES[a.index], CODES[b.index]} == {0, 1}


def test_tiles_of_one_photograph_meet_their_own_fakes():
    codes = np.array([0, 1, 1, 0, 1, 1])  # two tiles of one source, each with two fakes
    pairs = {}
    for draw in paired_draws(codes, np.zeros(6, int), 0, 0):
        pairs.setdefault(draw.plan_seed, set()).add(draw.index)
    assert sorted(map(sorted, pairs.values())) == [[0, 1], [0, 2], [3, 4], [3, 5]]


def test_epochs_and_seeds_differ_and_repeat():
    def order(seed, epoch):
        return [(d.index, d.plan_seed) for d in paired_draws(CODES, GROUPS, seed, epoch)]

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


def test_drawn_crops_bring_the_class_of_their_image():
    images = [np.full((40, 40, 3), i, np.uint8) for i in range(len(CODES))]
    draws = paired_draws(CODES, GROUPS, 0, 0)
    dataset = DrawnCrops(Decoded(images), CODES, draws, 32, AUGMENTATIONS["none"])
    for position, draw in enumerate(draws):
        crop, code = dataset[position]
        assert crop.shape == (3, 32, 32)
        assert crop.unique().tolist() == [draw.index]
        assert code == CODES[draw.index]


def test_crops_come_in_order_whatever_the_batch_size():
    images = [np.full((40 + 30 * (i % 2), 40, 3), i, np.uint8) for i in range(7)]
    for batch_size in (1, 3, 64):
        seen, owners = [], []
        for numbers, batch in batches((cut_crops(image, 32, 2) for image in images), batch_size):
            assert len(numbers) == len(batch) <= batch_size
            assert batch.shape[1:] == (3, 32, 32)
            owners += numbers
            seen += [crop.unique().tolist() for crop in batch]
        assert seen == [[i] for i in owners]
        assert owners == sorted(owners)
        assert set(owners) == set(range(7))


def test_decoded_images_are_kept_while_memory_lasts_and_the_last_few_besides(monkeypatch):
    reads = []

    def load(image, max_pixels):
        reads.append(int(image))
        return np.full((10, 10, 3), image, np.uint8)

    monkeypatch.setattr(reading, "load_image", load)
    monkeypatch.setattr(reading, "RECENT", 2)
    decoded = Decoded(list("01234"), memory=650)  # two images of 300 bytes
    for _ in range(2):
        assert [decoded[i][0, 0, 0] for i in range(5)] == [0, 1, 2, 3, 4]
    assert reads == [0, 1, 2, 3, 4, 2, 3, 4]
    assert [decoded[i][0, 0, 0] for i in (0, 1, 3, 4)] == [0, 1, 3, 4]
    assert len(reads) == 8


def test_a_limit_of_pairs_draws_other_ones_each_epoch():
    codes, groups = np.array([0, *[1] * 12]), np.zeros(13, int)
    epochs = [paired_draws(codes, groups, 0, epoch, most=4) for epoch in range(12)]
    for draws in epochs:
        assert [codes[d.index] for d in draws].count(0) == 4
        assert [codes[d.index] for d in draws].count(1) == 4
    assert {d.index for draws in epochs for d in draws} == set(range(13))


def test_views_are_balanced_within_each_source():
    for n_views in (1, 2, 5):
        draws = view_draws(CODES, GROUPS, 0, n_views)
        for group in range(4):
            there = set(CODES[group == GROUPS])
            drawn = [CODES[d.index] for d in draws if GROUPS[d.index] == group]
            assert [drawn.count(code) for code in there] == [n_views] * len(there)
            assert set(drawn) == there


def test_enough_views_show_every_image():
    for seed in range(5):
        assert {d.index for d in view_draws(CODES, GROUPS, seed, 3)} == set(range(len(CODES)))


def test_the_views_of_a_source_and_its_fakes_get_the_same_plan():
    draws = view_draws(CODES, GROUPS, 0, 4)
    plans = {}
    for draw in draws:
        plans.setdefault(draw.plan_seed, []).append(draw)
    assert len(plans) == 4 * 4
    for members in plans.values():
        assert len({GROUPS[d.index] for d in members}) == 1
        assert [CODES[d.index] for d in members] == sorted({CODES[d.index] for d in members})


def test_views_repeat_by_seed_and_differ_without():
    def listed(seed):
        return [(d.index, d.plan_seed) for d in view_draws(CODES, GROUPS, seed, 4)]

    assert listed(0) == listed(0)
    assert listed(0) != listed(1)
    assert listed(0)[0][1] != listed(1)[0][1]


def test_the_first_view_is_the_image_and_the_others_are_degraded():
    images = [np.random.default_rng(i).integers(0, 256, (50, 60, 3), np.uint8) for i in range(10)]
    always = dataclasses.replace(AUGMENTATIONS["full"], noise=1.0, codec=1.0)
    draws = view_draws(CODES, GROUPS, 0, 3)
    views = DegradedImages(Decoded(images), draws, always)
    assert len(views) == len(draws)
    n_plain = 0
    for view, again, draw in zip(views, list(views), draws, strict=True):
        assert view.dtype == np.uint8
        np.testing.assert_array_equal(view, again)
        is_plain = np.array_equal(view, images[draw.index])
        assert is_plain == (draw.plan_seed[-1] == 0)
        n_plain += is_plain
    assert n_plain == 6  # one of each class of each source


def test_the_views_of_one_plan_are_degraded_alike():
    images = [np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)] * len(CODES)
    draws = view_draws(CODES, GROUPS, 0, 3)
    views = DegradedImages(Decoded(images), draws, AUGMENTATIONS["robust"])
    by_plan = {}
    for view, draw in zip(views, draws, strict=True):
        np.testing.assert_array_equal(view, by_plan.setdefault(draw.plan_seed, view))
    assert len({view.tobytes() for view in by_plan.values()}) > 4


def test_groups_are_taken_in_order_whatever_their_numbers():
    groups, codes = np.array([7, 3, 7, -1, 3]), np.array([0, 0, 1, 0, 1])
    draws = loading.view_draws(codes, groups, seed=0, n_views=1)
    assert [(draw.plan_seed[2], draw.index) for draw in draws] == [
        *((-1, 3), (3, 1), (3, 4), (7, 0), (7, 2)),
    ]
