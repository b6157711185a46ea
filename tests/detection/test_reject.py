import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut
from tiny_detector import cnn, statistics

from cnnsvm.data.images import ImageError, image_sides
from cnnsvm.detection.reject import (
    choose_false_alarms,
    choose_rejection_threshold,
    choose_thresholds,
    lack_detail,
    of_unknown_size,
    predicted_codes,
)


def scored(seed, n=60, n_classes=2, digits=16, threshold=0.5):
    """Calibrated probabilities, what they predict and what is true."""
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(n_classes, 0.5), n).round(digits)
    codes = np.array([rng.choice(n_classes, p=row / row.sum()) for row in probabilities])
    if n_classes == 2:
        return probabilities, (probabilities[:, 1] > threshold).astype(int), codes
    return probabilities, probabilities.argmax(axis=1), codes


def add_one_rate(probabilities, predicted, codes, cut):
    sure = probabilities[np.arange(len(codes)), predicted] > cut
    n_wrong = np.count_nonzero(predicted[sure] != codes[sure])
    return (n_wrong + 1) / (sure.sum() + 1), int(sure.sum())


@pytest.mark.parametrize("max_error", [0.02, 0.1, 0.25])
@pytest.mark.parametrize(
    "case",
    [{}, {"digits": 1}, {"threshold": 0.2}, {"threshold": 0.9, "digits": 2}, {"n_classes": 3}],
)
def test_the_threshold_keeps_the_error_and_decides_as_much_as_it_can(max_error, case):
    for seed in range(12):
        rows = scored(seed, **case)
        own = rows[0][np.arange(60), rows[1]]
        possible = [add_one_rate(*rows, cut) for cut in [-1.0, *own]]
        most = max((n for rate, n in possible if rate <= max_error), default=0)
        chosen = choose_rejection_threshold(*rows, max_error)
        rate, n_sure = add_one_rate(*rows, chosen)
        assert n_sure == most
        assert 0 <= chosen < 1 if most else chosen == 1
        assert rate <= max_error or n_sure == 0


def test_no_threshold_will_do_for_coin_tosses_or_too_few_rows():
    rng = np.random.default_rng(0)
    probabilities = np.full((200, 2), 0.5)
    predicted, codes = np.ones(200, int), rng.integers(0, 2, 200)
    assert choose_rejection_threshold(probabilities, predicted, codes, 0.05) == 1
    right = np.array([[0.001, 0.999]] * 9)
    ones = np.ones(9, int)
    assert choose_rejection_threshold(right, ones, ones, 0.05) == 1  # 1 in 10 with one more
    assert choose_rejection_threshold(right, ones, ones, 0.1) < 0.999
    none = np.zeros(0, int)
    assert choose_rejection_threshold(np.zeros((0, 2)), none, none, 0.1) == 1


def test_sure_and_right_rows_leave_nothing_undecided():
    probabilities = np.array([[0.4, 0.6]] * 50)
    ones = np.ones(50, int)
    assert choose_rejection_threshold(probabilities, ones, ones, 0.05) < 0.5


def test_neighbouring_numbers_are_told_apart():
    below = np.nextafter(0.6, 0)
    for high, low in ((0.6, below), (1.0, np.nextafter(1.0, 0))):
        own = np.array([high] * 30 + [low] * 30)
        probabilities = np.column_stack([1 - own, own])
        predicted, codes = np.ones(60, int), np.repeat([1, 0], 30)
        chosen = choose_rejection_threshold(probabilities, predicted, codes, 0.05)
        assert (own > chosen).tolist() == [True] * 30 + [False] * 30


def test_the_error_is_kept_on_new_images():
    n_wrong = n_sure = 0
    for seed in range(40):
        probabilities, predicted, codes = scored(seed, n=1000)
        chosen = choose_rejection_threshold(probabilities[:300], predicted[:300], codes[:300], 0.05)
        sure = probabilities[np.arange(1000), predicted] > chosen
        sure[:300] = False
        n_wrong += np.count_nonzero(predicted[sure] != codes[sure])
        n_sure += np.count_nonzero(sure)
    assert n_wrong / n_sure < 0.055
    assert n_sure > 0.3 * 40 * 700


@pytest.mark.parametrize("threshold", [0.05, 0.5, 0.8])
def test_the_threshold_is_a_probability(threshold):
    probabilities = np.array([0.01, 0.06, 0.49, 0.51, 0.79, 0.81])
    decisions = np.log(probabilities / (1 - probabilities))
    assert predicted_codes(decisions, threshold).tolist() == (probabilities > threshold).tolist()


def test_of_several_classes_the_best_is_named_whatever_the_threshold():
    decisions = np.array([[-3.0, -2, -4], [5, 1, 6]])
    for threshold in (0.1, 0.9):
        assert predicted_codes(decisions, threshold).tolist() == [1, 2]


def test_views_of_one_image_are_not_so_many_proofs():
    probabilities = np.tile([[0.1, 0.9]], (10, 1))
    right = np.ones(10, dtype=int)
    alone = choose_rejection_threshold(probabilities, right, right, 0.05)
    four = [np.repeat(values, 4, axis=0) for values in (probabilities, right, right)]
    assert choose_rejection_threshold(*four, 0.05, copies=4) == alone == 1.0
    assert choose_rejection_threshold(*four, 0.05) < 0.9


@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("threshold", [0.3, "balanced_accuracy"])
def test_both_thresholds_are_chosen_on_the_same_scores(threshold, n_classes, copies):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, n_classes, 90)
    scores = rng.normal(size=(90, n_classes)) + 2 * np.eye(n_classes)[codes]
    if n_classes == 2:
        scores = scores[:, 1] - scores[:, 0]
    chosen, rejects_nothing = choose_thresholds(threshold, None, scores, codes)
    assert rejects_nothing == 0
    if threshold == 0.3 or n_classes == 3:
        assert chosen == (0.3 if threshold == 0.3 else 0.5)
    odds = 1 / (1 + np.exp(-scores))
    stated = np.column_stack([1 - odds, odds]) if n_classes == 2 else odds / odds.sum(1)[:, None]
    rejection = choose_rejection_threshold(
        stated, predicted_codes(scores, chosen), codes, 0.2, copies
    )
    found = choose_thresholds(threshold, 0.2, scores, codes, copies)
    np.testing.assert_allclose(found, (chosen, rejection), rtol=1e-12)
    assert 0 <= rejection < 1


def test_the_threshold_of_balanced_accuracy_lies_between_two_scores():
    scores = np.array([-3.0, -1.0, 1.0, 2.0])
    chosen, _ = choose_thresholds("balanced_accuracy", None, scores, np.array([0, 0, 0, 1]))
    assert np.log(chosen / (1 - chosen)) == pytest.approx(1.5)
    nothing = choose_thresholds("balanced_accuracy", 0.1, np.zeros(0), np.zeros(0, int))
    assert nothing == (0.5, 1.0)


def unknown(embedders, images, min_side=20, max_side=0):
    sides = np.array([image_sides(image) for image in images]).reshape(-1, 2)
    return of_unknown_size(embedders, sides, min_side, max_side).tolist()


def test_an_unknown_size_is_smaller_than_a_crop_and_than_all_training(tmp_path):
    embedders = [cnn(n_crops=1)]
    Image.new("L", (19, 200)).save(tmp_path / "narrow.png")
    images = [np.zeros((20, 90, 3), np.uint8), np.zeros((90, 19), np.uint8)]
    images += [Image.new("RGB", (40, 10)), tmp_path / "narrow.png"]
    images += [(tmp_path / "narrow.png").read_bytes()]
    assert unknown(embedders, images) == [False, True, True, True, True]
    assert unknown(embedders, [np.zeros((32, 32, 3), np.uint8)], min_side=500) == [False]
    assert not any(unknown(embedders, images, min_side=0))  # not known
    with pytest.raises(ImageError, match=r"none\.png"):
        unknown(embedders, [tmp_path / "none.png"])


def test_an_image_is_too_large_where_training_saw_all_of_them_whole():
    images = [np.zeros((height, 32, 3), np.uint8) for height in (32, 33)]
    one, several = [cnn(n_crops=1)], [cnn(n_crops=2)]
    assert unknown(one, images) == [False, False]  # not known
    assert unknown(one, images, max_side=32) == [False, True]
    assert unknown(one, images, max_side=33) == [False, False]  # training saw parts of some
    assert unknown(several, images, max_side=32) == [False, False]
    assert unknown([*several, statistics(n_crops=1)], images, max_side=32) == [False, True]
    assert unknown(one, []) == []


def test_only_crops_of_native_resolution_have_a_size():
    images = [np.zeros((10, 10, 3), np.uint8), np.zeros((99, 99, 3), np.uint8)]
    assert unknown(["no CropEmbedder", cnn(resize=40, n_crops=1)], images, 20, 32) == [False] * 2


@pytest.mark.parametrize(("n", "target"), [(19, 0.05), (40, 0.05), (100, 0.1)])
def test_false_alarms_keep_their_promise_on_average(n, target):
    rng = np.random.default_rng(0)
    promised = [choose_false_alarms(rng.random(n), target) for _ in range(4000)]
    shares = np.array([1 - each.threshold for each in promised])  # of uniform scores
    assert promised[0].expected <= target
    assert shares.mean() == pytest.approx(promised[0].expected, abs=0.003)
    within = (shares >= promised[0].low) & (shares <= promised[0].high)
    assert within.mean() == pytest.approx(0.95, abs=0.015)


def test_many_images_of_one_source_are_no_proof():
    scores = np.random.default_rng(1).random(60)
    groups = np.repeat(np.arange(20), 3)
    found = choose_false_alarms(scores, 0.1, groups)
    assert found == choose_false_alarms(scores.reshape(20, 3).max(axis=1), 0.1)
    assert found.n_images == 20


@pytest.mark.parametrize(("n", "target", "word"), [(18, 0.05, "at least 19"), (5, 0.0, "0, 1")])
def test_what_cannot_be_promised_is_refused(n, target, word):
    with pytest.raises(ValueError, match=word):
        choose_false_alarms(np.linspace(0, 1, n), target)


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (64, 64), (1200, 1500)])
def test_an_image_of_one_grey_or_a_gradient_shows_nothing(size):
    ramp = np.add.outer(np.linspace(0, 90, size[0]), np.linspace(0, 150, size[1]))
    flat = np.full((*size, 3), 77, np.uint8)
    smooth = np.repeat(np.rint(ramp).astype(np.uint8)[:, :, None], 3, axis=2)
    assert lack_detail([flat, smooth]).tolist() == [True, True]


def test_noise_lines_and_photographs_show_something():
    noise = np.random.default_rng(0).integers(120, 126, (64, 64, 3), dtype=np.uint8)
    drawn = np.full((400, 400, 3), 255, np.uint8)
    drawn[:, 200:203] = 0
    assert lack_detail([noise, drawn, astronaut()]).tolist() == [False, False, False]
