import numpy as np
import pytest
from PIL import Image
from spliced_records import SIDE, write_records

from cnnsvm.evaluation.localization_records import with_truth
from localization_study.controls import CONTROLS, EVERY_PIXEL, MEAN_MASK, judge_controls


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return with_truth(write_records(tmp_path_factory.mktemp("records")))[0]


@pytest.fixture(scope="module")
def parts(table):
    is_seen = table["source_id"].astype(int) < 4
    return table[is_seen], table[~is_seen]


def judged(parts, kind, policy="half"):
    rows = judge_controls(*parts, [kind], policy, n_resamples=20)
    assert rows["control"].tolist() == list(CONTROLS)
    return rows.set_index("control")


def test_calling_every_pixel_is_right_as_often_as_they_are_repainted(parts):
    row = judged(parts, "a spliced").loc[EVERY_PIXEL]
    assert row["per_image_iou"] == pytest.approx(0.5)
    assert row["per_image_f1"] == pytest.approx(2 / 3)
    assert row["n_images"] == 2


def test_masks_that_lie_in_one_place_are_known_without_an_image(parts):
    row = judged(parts, "a spliced").loc[MEAN_MASK]
    assert row["per_image_iou"] > 0.95
    assert row["pooled_auc"] > 0.99


def test_the_mean_mask_is_that_of_the_training_part(parts, tmp_path):
    seen, unseen = parts
    upside = np.zeros((SIDE, SIDE), np.uint8)
    upside[:, SIDE // 2 :] = 255
    Image.fromarray(upside).save(tmp_path / "mask.png")
    moved = unseen.assign(mask_path=str(tmp_path / "mask.png"))
    row = judged((seen, moved), "a spliced").loc[MEAN_MASK]
    assert row["per_image_iou"] < 0.05


def test_of_images_that_are_repainted_whole_both_are_right(parts):
    assert judged(parts, "b regenerated (whole)")["per_image_iou"].tolist() == [1.0, 1.0]
