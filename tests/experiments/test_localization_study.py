import numpy as np
import pandas as pd
import pytest
import torch
from spliced_records import write_records
from tiny_localizer import localizer
from torch import nn

from cnnsvm import InpaintLocalizer
from cnnsvm.data.images import load_image
from cnnsvm.evaluation.localization_judging import compress, judge, judge_kinds
from cnnsvm.evaluation.localization_records import masks_of, with_truth
from cnnsvm.evaluation.runs import RunMismatchError
from localization_study import study as localization_study
from localization_study.cost import (
    count_multiply_adds,
    count_parameters,
    measure_cost,
    stored_cost,
)
from localization_study.plan import Condition, Fit
from localization_study.study import hold_out_sources, measure_localization

FIT = Fit("iid", "a spliced", "half")
CONDITIONS = [Condition("a spliced", "half"), Condition("original", "half")]
CONDITIONS.append(Condition("a spliced", "half", 40))


def design(**changes):
    usual = {"size": "small", "crop_size": 32, "epochs": 1, "n_crops": 1, "augmentation": "none"}
    usual |= {"crops_per_image": 1, "learning_rate": 1e-3}
    return localizer(tile_size=512, tile_overlap=64, **(usual | changes))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return with_truth(write_records(tmp_path_factory.mktemp("records")))[0]


@pytest.fixture(scope="module")
def run(table, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    options = {"n_splits": 3, "n_resamples": 20}
    return measure_localization(
        {"iid": design()}, table, {FIT: CONDITIONS}, folder, **options
    ), folder


def test_every_condition_is_judged_on_held_out_sources(run, table):
    study = run[0]
    assert study.summary["judged_on"].tolist() == ["a spliced", "original", "a spliced"]
    train, test = hold_out_sources(table, 3)
    held_out = set(table["source_id"].iloc[test])
    assert held_out.isdisjoint(table["source_id"].iloc[train])
    assert set(study.images["source_id"]) == held_out
    assert study.fits[0]["n_images"] == 2 * len(set(table["source_id"]) - held_out)


def test_what_needs_no_image_is_judged_beside(run):
    controls = run[0].controls
    assert controls["judged_on"].tolist() == ["a spliced", "a spliced"]
    assert controls["judged_policy"].tolist() == ["half", "half"]
    assert controls["per_image_f1"].iloc[0] == pytest.approx(2 / 3)


def test_the_summary_is_that_of_the_saved_localiser(run, table):
    study, folder = run
    model = InpaintLocalizer.from_pretrained(next(folder.glob("*/model")))
    _, test = hold_out_sources(table, 3)
    own = table.iloc[test]
    own = own[own["kind"] == "a spliced"]
    expected = model.score(own["path"].tolist(), masks_of(own))
    assert study.summary["per_image_iou"].iloc[0] == pytest.approx(expected)
    assert study.summary["untouched_false_alarm"].iloc[1] >= 0
    assert np.isnan(study.summary["per_image_iou"].iloc[1])


def test_maps_are_kept_to_be_shown(run):
    study, folder = run
    assert len(study.examples) == 2
    model = InpaintLocalizer.from_pretrained(next(folder.glob("*/model")))
    for example in study.examples:
        expected = model.predict_proba([example["row"]["path"]])[0]
        np.testing.assert_allclose(load_image(example["map"])[..., 0] / 255, expected, atol=0.003)


def test_a_second_call_trains_and_judges_nothing(run, table, monkeypatch):
    def forbidden(*args, **kwargs):
        raise AssertionError("done again")

    study, folder = run
    for name in ("fit", "predict_proba"):
        monkeypatch.setattr(InpaintLocalizer, name, forbidden)
    plan, options = {FIT: CONDITIONS}, {"n_splits": 3, "n_resamples": 20}
    again = measure_localization({"iid": design(n_jobs=1)}, table, plan, folder, **options)
    pd.testing.assert_frame_equal(again.summary, study.summary)
    pd.testing.assert_frame_equal(again.images, study.images)


def test_more_conditions_are_judged_by_the_same_localiser(run, table, monkeypatch):
    monkeypatch.setattr(InpaintLocalizer, "fit", None)
    folder = run[1]
    plan = {FIT: [*CONDITIONS, Condition("b spliced", "half")]}
    options = {"n_splits": 3, "n_resamples": 20}
    more = measure_localization({"iid": design()}, table, plan, folder, **options)
    assert len(more.summary) == 4


@pytest.mark.parametrize("what", ["design", "data", "masks"])
def test_another_run_is_not_mixed_in(run, table, what, monkeypatch):
    _, folder = run
    designs = {"iid": design(learning_rate=1e-2) if what == "design" else design()}
    other = table.iloc[:-1] if what == "data" else table
    if what == "masks":
        monkeypatch.setattr(localization_study, "hash_masks", lambda table: "other")
    options = {"n_splits": 3, "n_resamples": 20}
    with pytest.raises(RunMismatchError, match="Choose another output folder"):
        measure_localization(designs, other, {FIT: CONDITIONS}, folder, **options)


def test_processes_that_only_help_train_and_write_nothing(table, tmp_path, monkeypatch):
    monkeypatch.setattr(localization_study, "writes", lambda distributed: False)
    assert (
        measure_localization({"iid": design()}, table, {FIT: CONDITIONS}, tmp_path, n_splits=3)
        is None
    )
    assert not list(tmp_path.rglob("model"))


class Oracle:
    """Says what is smooth; as `InpaintLocalizer` to those who judge."""

    mask_policy, threshold_ = "half", 0.5

    def predict_proba(self, images):
        return [self.look(image.astype(float).mean(axis=2)) for image in images]

    def look(self, grey):
        steps = np.abs(np.diff(grey, axis=0)).mean(axis=0)
        return np.repeat((steps < 25)[None], len(grey), axis=0).astype(np.float32)


def test_readings_are_scored_apart(table):
    rows, found = judge_kinds(Oracle(), table, n_resamples=10)
    assert found["b spliced"]["per_image_iou"] > 0.9
    assert found["b regenerated (whole)"]["per_image_iou"] > 0.9
    assert found["b regenerated (mask)"]["per_image_iou"] == pytest.approx(0.5, abs=0.05)
    assert found["original"]["untouched_false_alarm"] < 0.05
    assert found["original"]["per_image_iou"] is None
    assert len(rows) == len(table)
    means = rows[rows["n_repainted"] > 0].groupby("kind")["iou"].mean()
    for kind, value in means.items():
        assert found[kind]["per_image_iou"] == pytest.approx(value)


def test_images_go_through_a_jpeg_before_they_are_judged(table):
    seen = []

    class Watching(Oracle):
        def predict_proba(self, images):
            seen.extend(images)
            return super().predict_proba(images)

    own = table[table["kind"] == "a spliced"].reset_index(drop=True)
    positions = []
    counts = judge(Watching(), own, quality=40, watch=lambda place, found: positions.append(place))
    assert positions == list(range(len(own)))
    assert list(counts.rows["path"]) == list(own["path"])
    first = load_image(own["path"].iloc[0])
    np.testing.assert_array_equal(seen[0], compress(first, 40))
    assert np.abs(seen[0].astype(int) - first).mean() > 1


def test_costs_are_measured_once(tmp_path, monkeypatch):
    made = design(batch_size=2)
    cost = stored_cost(made, tmp_path, n_steps=1)
    assert cost["crop_size"] == 32
    assert cost["multiply_adds"] > 1e6
    for name in ("train_images_per_second", "inference_images_per_second"):
        assert cost[name] > 0
    assert cost["parameters"] == measure_cost(design(size="small"), 1)["parameters"]
    monkeypatch.setattr("localization_study.cost.measure_cost", None)
    assert stored_cost(made, tmp_path) == cost


class Known(nn.Module):
    """A 3x3 convolution of stride 2, and a product with a fixed matrix."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 5, 3, stride=2, padding=1)

    def forward(self, pixels):
        maps = self.convolution(pixels.float())
        return maps.flatten(2) @ torch.ones(maps[0, 0].numel(), 7)


@pytest.mark.parametrize("training", [True, False])
def test_multiply_adds_are_those_counted_by_hand(training):
    network, n_places = Known().train(training), 8 * 10
    product, convolution = 5 * n_places * 7, n_places * 5 * 3 * 3 * 3
    assert count_multiply_adds(network, 16, 20) == convolution + product
    assert network.training is training


def test_counting_leaves_the_statistics_of_batch_norm_alone():
    network = design().build_network()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    small, large = (count_multiply_adds(network, side, side) for side in (32, 64))
    assert 3.9 * small < large < 4.2 * small
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_frozen_numbers_are_no_parameters_of_training():
    network = Known()
    assert count_parameters(network) == 5 * 3 * 3 * 3 + 5
    network.convolution.bias.requires_grad_(False)
    assert count_parameters(network) == 5 * 3 * 3 * 3
