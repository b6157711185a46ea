import numpy as np
import pytest
from PIL import Image

from cnnsvm.data.images import ImageError
from cnnsvm.detection.reject import (
    UNSURE,
    choose_confidence,
    of_unknown_size,
    offset,
    predicted_codes,
    with_unsure,
)


def scored(seed, n=60, n_classes=2, digits=16, threshold=0.5):
    """Calibrated probabilities, what they predict and what is true."""
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(n_classes, 0.5), n).round(digits)
    codes = np.array([rng.choice(n_classes, p=row / row.sum()) for row in probabilities])
    if n_classes == 2:
        return probabilities, (probabilities[:, 1] > threshold).astype(int), codes
    return probabilities, probabilities.argmax(axis=1), codes


def add_one_rate(probabilities, predicted, codes, confidence):
    sure = probabilities[np.arange(len(codes)), predicted] > confidence
    n_wrong = np.count_nonzero(predicted[sure] != codes[sure])
    return (n_wrong + 1) / (sure.sum() + 1), int(sure.sum())


@pytest.mark.parametrize("max_error", [0.02, 0.1, 0.25])
@pytest.mark.parametrize(
    "case",
    [{}, {"digits": 1}, {"threshold": 0.2}, {"threshold": 0.9, "digits": 2}, {"n_classes": 3}],
)
def test_the_confidence_keeps_the_error_and_decides_as_much_as_it_can(max_error, case):
    for seed in range(12):
        rows = scored(seed, **case)
        own = rows[0][np.arange(60), rows[1]]
        possible = [add_one_rate(*rows, cut) for cut in [-1.0, *own]]
        most = max((n for rate, n in possible if rate <= max_error), default=0)
        chosen = choose_confidence(*rows, max_error)
        rate, n_sure = add_one_rate(*rows, chosen)
        assert n_sure == most
        assert 0 <= chosen < 1 if most else chosen == 1
        assert rate <= max_error or n_sure == 0


def test_no_confidence_will_do_for_coin_tosses_or_too_few_rows():
    rng = np.random.default_rng(0)
    probabilities = np.full((200, 2), 0.5)
    predicted, codes = np.ones(200, int), rng.integers(0, 2, 200)
    assert choose_confidence(probabilities, predicted, codes, 0.05) == 1
    right = np.array([[0.001, 0.999]] * 9)
    ones = np.ones(9, int)
    assert choose_confidence(right, ones, ones, 0.05) == 1  # 1 in 10 with one more
    assert choose_confidence(right, ones, ones, 0.1) < 0.999
    none = np.zeros(0, int)
    assert choose_confidence(np.zeros((0, 2)), none, none, 0.1) == 1


def test_sure_and_right_rows_leave_nothing_undecided():
    probabilities = np.array([[0.4, 0.6]] * 50)
    ones = np.ones(50, int)
    assert choose_confidence(probabilities, ones, ones, 0.05) < 0.5


def test_neighbouring_numbers_are_told_apart():
    below = np.nextafter(0.6, 0)
    for high, low in ((0.6, below), (1.0, np.nextafter(1.0, 0))):
        own = np.array([high] * 30 + [low] * 30)
        probabilities = np.column_stack([1 - own, own])
        predicted, codes = np.ones(60, int), np.repeat([1, 0], 30)
        chosen = choose_confidence(probabilities, predicted, codes, 0.05)
        assert (own > chosen).tolist() == [True] * 30 + [False] * 30


def test_the_error_is_kept_on_new_images():
    n_wrong = n_sure = 0
    for seed in range(40):
        probabilities, predicted, codes = scored(seed, n=1000)
        chosen = choose_confidence(probabilities[:300], predicted[:300], codes[:300], 0.05)
        sure = probabilities[np.arange(1000), predicted] > chosen
        sure[:300] = False
        n_wrong += np.count_nonzero(predicted[sure] != codes[sure])
        n_sure += np.count_nonzero(sure)
    assert n_wrong / n_sure < 0.055
    assert n_sure > 0.3 * 40 * 700


def test_labels_stand_above_the_confidence_only():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.6, 0.4]])
    codes = np.array([0, 1, 1, 0])
    verdicts = with_unsure(codes, probabilities, np.array([0, 1]), 0.7)
    assert verdicts.tolist() == [0, 1, UNSURE, UNSURE]
    assert verdicts.dtype == object
    assert with_unsure(codes, probabilities, np.array([0, 1]), 0.0).tolist() == [0, 1, 1, 0]
    assert set(with_unsure(codes, probabilities, np.array([0, 1]), 1.0)) == {UNSURE}


def test_short_names_leave_room_for_unsure():
    names = np.array(["a", "b"])
    verdicts = with_unsure(np.array([1, 0]), np.array([[0.1, 0.9], [0.5, 0.5]]), names, 0.6)
    assert verdicts.tolist() == ["b", "unsure"]


@pytest.mark.parametrize("threshold", [0.05, 0.5, 0.8])
def test_the_threshold_is_a_probability(threshold):
    probabilities = np.array([0.01, 0.06, 0.49, 0.51, 0.79, 0.81])
    decisions = np.log(probabilities / (1 - probabilities))
    assert predicted_codes(decisions, threshold).tolist() == (probabilities > threshold).tolist()
    assert offset(threshold) == pytest.approx(np.log(threshold / (1 - threshold)))


def test_of_several_classes_the_best_is_named_whatever_the_threshold():
    decisions = np.array([[-3.0, -2, -4], [5, 1, 6]])
    for threshold in (0.1, 0.9):
        assert predicted_codes(decisions, threshold).tolist() == [1, 2]


def test_views_of_one_image_are_not_so_many_proofs():
    probabilities = np.tile([[0.1, 0.9]], (10, 1))
    right = np.ones(10, dtype=int)
    alone = choose_confidence(probabilities, right, right, 0.05)
    four = [np.repeat(values, 4, axis=0) for values in (probabilities, right, right)]
    assert choose_confidence(*four, 0.05, copies=4) == alone == 1.0
    assert choose_confidence(*four, 0.05) < 0.9


class Small:
    crop_size = 32
    n_crops = 1
    min_side_ = 20
    max_side_ = 0


def test_rows_unlike_all_training_are_unsure_whatever_is_stated():
    probabilities = np.array([[0.1, 0.9], [0.1, 0.9]])
    outside = np.array([False, True])
    said = with_unsure(np.array([1, 1]), probabilities, np.array([0, 1]), 0.5, outside)
    assert said.tolist() == [1, UNSURE]


def test_an_unknown_size_is_smaller_than_a_crop_and_than_all_training(tmp_path):
    detector = Small()
    Image.new("L", (19, 200)).save(tmp_path / "narrow.png")
    images = [np.zeros((20, 90, 3), np.uint8), np.zeros((90, 19), np.uint8)]
    images += [Image.new("RGB", (40, 10)), tmp_path / "narrow.png"]
    images += [(tmp_path / "narrow.png").read_bytes()]
    assert of_unknown_size(detector, images).tolist() == [False, True, True, True, True]
    detector.min_side_ = 500
    assert of_unknown_size(detector, [np.zeros((32, 32, 3), np.uint8)]).tolist() == [False]
    detector.min_side_ = 0  # not known
    assert not of_unknown_size(detector, images).any()
    with pytest.raises(ImageError, match=r"none\.png: no such file"):
        of_unknown_size(Small(), [tmp_path / "none.png"])


def test_a_picture_is_too_large_where_training_saw_all_of_them_whole():
    detector, images = Small(), [np.zeros((height, 32, 3), np.uint8) for height in (32, 33)]
    assert of_unknown_size(detector, images).tolist() == [False, False]  # not known
    detector.max_side_ = 32
    assert of_unknown_size(detector, images).tolist() == [False, True]
    detector.max_side_ = 33  # training had pictures of which a crop shows a part
    assert not of_unknown_size(detector, images).any()
    detector.max_side_, detector.n_crops = 32, 2
    assert not of_unknown_size(detector, images).any()
    assert of_unknown_size(detector, []).tolist() == []
