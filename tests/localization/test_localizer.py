import copy
import inspect
import json
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import jaccard_score
from sklearn.model_selection import GroupKFold, cross_val_score
from tiny_localizer import (
    Brightness,
    assert_same_weights,
    build_tiny,
    painting,
    paintings,
    weights,
)
from tiny_localizer import localizer as make_localizer

import cnnsvm
from cnnsvm import InpaintLocalizer
from cnnsvm.data.images import ImageError
from cnnsvm.data.near_duplicates import perceptual_hash
from cnnsvm.io.bundle import BundleError, write_bundle
from cnnsvm.localization.architectures import ARCHITECTURES
from cnnsvm.localization.fitting import validation_split
from cnnsvm.localization.masks import MaskError
from cnnsvm.localization.trainer import LocalizerTrainer

pytestmark = [
    pytest.mark.usefixtures("tiny_network"),
    # most fits here are too short to be of use
    pytest.mark.filterwarnings("ignore:the localiser is of no use"),
]


@pytest.fixture(scope="module")
def fitted(painted):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARCHITECTURES, "iidnet", build_tiny)
        return make_localizer(epochs=16).fit(*painted[0])


def quick(**changes):
    return make_localizer(**{"epochs": 1, "crops_per_image": 1} | changes)


def save_pairs(folder, images, masks):
    """Write images and masks, and list the paths; the first image has no mask."""
    paths, mask_paths = [], []
    for k, (image, mask) in enumerate(zip(images, masks, strict=True)):
        paths.append(str(folder / f"{k}.png"))
        mask_paths.append(str(folder / f"{k}_mask.png"))
        Image.fromarray(image).save(paths[-1])
        Image.fromarray(mask).save(mask_paths[-1])
    return paths, [None, *mask_paths[1:]]


def test_held_out_images_are_marked_far_better_than_by_chance(fitted, painted):
    images, masks = painted[1]
    chance = np.mean([mask.mean() for mask in masks])  # the IoU of calling everything
    score = fitted.score(images, masks)
    assert chance < 0.3
    assert score > 0.6
    assert score == pytest.approx(
        np.mean(
            [
                jaccard_score(m.ravel(), p.ravel())
                for m, p in zip(masks, fitted.predict(images), strict=True)
            ]
        )
    )


def test_shapes_ranges_and_the_threshold(fitted, painted):
    images = [painted[1][0][0], painting(5, 30, 47)[0]]
    maps = fitted.predict_proba(images)
    assert [found.shape for found in maps] == [(64, 72), (30, 47)]
    assert {found.dtype for found in maps} == {np.dtype(np.float32)}
    assert all(found.min() >= 0 and found.max() <= 1 for found in maps)
    for threshold in (0.5, 0.3):
        localizer = copy.copy(fitted)
        localizer.threshold_ = threshold
        for found, called in zip(maps, localizer.predict(images), strict=True):
            assert called.dtype == bool
            assert (called == (found >= np.float32(threshold))).all()


def test_the_batch_size_does_not_matter(fitted):
    images = [painting(k, 150, 170)[0] for k in range(2)]
    alone = fitted.predict_proba(images)
    for batch_size in (1, 64):
        other = clone(fitted).set_params(batch_size=batch_size)
        other.network_, other.threshold_ = fitted.network_, fitted.threshold_
        for a, b in zip(alone, other.predict_proba(images), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


def test_order_and_company_do_not_matter(fitted, painted):
    images = painted[1][0]
    together = fitted.predict_proba(images)
    assert (fitted.predict_proba(images[3:4])[0] == together[3]).all()
    assert (fitted.predict_proba(images[::-1])[0] == together[-1]).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (97, 61), (20_000, 64)])
def test_odd_sizes_are_marked(fitted, shape):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    (found,) = fitted.predict_proba([pixels])
    assert found.shape == shape
    assert np.isfinite(found).all()


def test_all_kinds_of_input_agree(fitted, painted, tmp_path):
    paths, _ = save_pairs(tmp_path, *painted[1])
    wanted = fitted.predict_proba(painted[1][0])
    kinds = [
        paths,
        [Image.open(path) for path in paths],
        [(tmp_path / f"{k}.png").read_bytes() for k in range(8)],
        pd.DataFrame({"path": paths}),
        np.stack(painted[1][0]),
    ]
    for kind in kinds:
        for a, b in zip(fitted.predict_proba(kind), wanted, strict=True):
            assert (a == b).all()


def test_an_image_that_cannot_be_read_is_named(fitted):
    with pytest.raises(ImageError, match=r"nowhere\.png: no such file"):
        fitted.predict(["nowhere.png"])


def test_parameters_are_stored_and_cloned():
    signature = inspect.signature(InpaintLocalizer).parameters
    localizer = InpaintLocalizer()
    assert localizer.get_params(deep=False) == {n: p.default for n, p in signature.items()}
    given = {"genotype": [["a"]], "mask_policy": "none such", "crop_size": -1}
    cloned = clone(InpaintLocalizer(**given))  # checked in fit only
    assert {name: getattr(cloned, name) for name in given} == given
    assert not hasattr(cloned, "network_")
    nested = clone(quick()).set_params(training__loss="bce")
    assert nested.settings.loss == nested.training.loss == "bce"
    assert len(signature) <= 20


def test_a_manifest_brings_masks_and_groups(painted, tmp_path, monkeypatch):
    paths, mask_paths = save_pairs(tmp_path, *painted[0])
    seen = {}

    def watch(localizer, images, masks, groups):
        seen.update(images=images, masks=masks, groups=groups)
        return {}

    monkeypatch.setattr("cnnsvm.localization.localizer.fit_localizer", watch)
    table = pd.DataFrame({"path": paths, "mask_path": mask_paths, "source_id": range(16)})
    quick().fit(table)
    assert seen["images"] == paths
    assert seen["masks"] == mask_paths
    assert seen["groups"].tolist() == list(range(16))


def test_files_and_arrays_give_the_same_network(painted, tmp_path):
    images, masks = painted[0]
    paths, mask_paths = save_pairs(tmp_path, images, masks)
    masks = [None, *masks[1:]]
    from_files = quick().fit(paths, mask_paths)
    assert_same_weights(weights(from_files.network_), weights(quick().fit(images, masks).network_))


def test_a_refit_starts_afresh_and_seeds_are_reproducible(painted):
    images, masks = painted[0]
    localizer = quick().fit(images, masks)
    first, history = weights(localizer.network_), localizer.history_
    localizer.fit(images, masks)
    assert_same_weights(first, weights(localizer.network_))
    assert localizer.history_ == history
    other = weights(quick(random_state=1).fit(images, masks).network_)
    assert not torch.equal(first["body.body.0.weight"], other["body.body.0.weight"])


def test_no_group_is_in_training_and_validation(painted, monkeypatch):
    images, masks = painted[0]
    groups = np.array([f"s{k // 4}" for k in range(16)])
    seen = []
    run = LocalizerTrainer.run

    def watch(self, *args):
        seen.append((self.fit, self.valid))
        return run(self, *args)

    monkeypatch.setattr(LocalizerTrainer, "run", watch)
    quick().fit(images, masks, groups)
    ((fit, valid),) = seen
    assert set(groups[fit]).isdisjoint(groups[valid])
    assert sorted([*fit, *valid]) == list(range(16))
    assert len(valid) == 4


@pytest.mark.parametrize("seed", range(5))
def test_both_parts_of_a_split_have_repainted_pixels(seed):
    rng = np.random.default_rng(seed)
    sources = rng.integers(0, 9, 60)
    repainted = np.isin(sources, [0, 1, 2]) & (rng.random(60) < 0.8)
    fit, valid = validation_split(repainted, sources, 0.2, seed)
    assert set(sources[fit]).isdisjoint(sources[valid])
    assert repainted[fit].any()
    assert repainted[valid].any()


@pytest.mark.parametrize("seed", range(20))
def test_a_fold_without_a_repainted_pixel_is_not_chosen(seed):
    repainted = np.array([True, True, True, False, False])
    fit, valid = validation_split(repainted, np.arange(5), 0.2, seed)
    assert repainted[valid].any()
    assert repainted[fit].any()


def test_untouched_images_are_shared_out_if_there_are_enough():
    sources, repainted = np.arange(40) // 2, np.arange(40) % 2 == 1
    _, valid = validation_split(repainted, sources, 0.25, 0)
    assert repainted[valid].mean() == 0.5


def test_too_few_sources_leave_nothing_aside(caplog):
    fit, valid = validation_split(np.array([True, False, False]), np.array([0, 1, 2]), 0.2, 0)
    assert fit.tolist() == [0, 1, 2]
    assert len(valid) == 0
    assert "without early stopping" in caplog.text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("architecture", "unet"),
        ("mask_policy", "most"),
        ("loss", "hinge"),
        ("optimizer", "sgd"),
        ("augmentation", "more"),
        ("epochs", 0),
        ("max_restarts", -1),
        ("crop_size", 8),
        ("tile_overlap", 64),
        ("learning_rate", 0.0),
        ("validation_fraction", 0.6),
        ("balance", 1.1),
        ("warmup", -0.1),
        ("threshold", "best"),
        ("gpu_memory_fraction", 2),
        ("distributed", "yes"),
        ("n_jobs", 0),
        ("precision", "float8"),
        ("device", "tpu"),
    ],
)
def test_bad_parameters_are_named_before_anything_is_read(name, value):
    with pytest.raises(ValueError, match=rf"{name}.* {value!r}"):
        quick(**{name: value}).fit(["nowhere.png"], ["nowhere.png"])


def test_options_that_an_architecture_lacks_are_named():
    with pytest.raises(ValueError, match="size='28m' means nothing to 'fcn_resnet50'"):
        InpaintLocalizer("fcn_resnet50", size="28m").fit(*paintings(0, 2))


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ([np.zeros((64, 72), bool)] * 4, "none of the 4 masks has a repainted pixel"),
        ([None] * 4, "none of the 4 masks has a repainted pixel"),
        ([np.ones((64, 72), bool)] * 4, "all 4 masks cover their whole image"),
        ([np.full((64, 72), 9, np.uint8)] * 4, "brightest pixel is 9"),
        ([np.zeros((72, 64), bool)] * 4, "is 64x72 pixels and the image 72x64"),
        ([np.ones((64, 72))] * 4, "an array needs dtype bool or uint8"),
        (None, "fit requires masks"),
    ],
)
def test_masks_that_cannot_teach_are_refused(painted, masks, message):
    with pytest.raises(MaskError, match=message):
        quick().fit(painted[0][0][:4], masks)


def test_lengths_must_agree(painted):
    images, masks = painted[0]
    for wrong in ((images, masks[1:]), (images, masks, [1, 2])):
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            quick().fit(*wrong)
    with pytest.raises(ValueError, match=r"0 sample\(s\)"):
        quick().fit([], [])


def test_small_and_untouched_images_can_be_learnt_from():
    shapes = [(1, 1), (5, 200), (17, 9), (64, 64)]
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes * 2]
    masks = [np.ones(image.shape[:2], bool) for image in images[:4]] + [None] * 4
    assert quick().fit(images, masks).history_[0]["train_loss"] > 0


def test_unfitted():
    with pytest.raises(ValueError, match="not fitted yet"):
        quick().predict([painting(0)[0]])


def test_an_untouched_image_scores_by_its_false_alarms(fitted):
    localizer = clone(fitted)
    localizer.network_, localizer.threshold_ = Brightness(), 0.5
    dark, light = np.zeros((9, 9, 3), np.uint8), np.full((9, 9, 3), 255, np.uint8)
    assert localizer.score([dark, light], [None, None]) == 0.5
    assert localizer.score([dark, light], [None, np.ones((9, 9), bool)]) == 1


@pytest.mark.parametrize("bits", [32, 16])
def test_saved_and_loaded_is_the_same(fitted, painted, tmp_path, bits):
    folder = fitted.save_pretrained(tmp_path / "model", bits=bits)
    loaded = InpaintLocalizer.from_pretrained(folder)
    assert repr(loaded.set_params(precision="float32")) == repr(fitted)
    loaded.set_params(precision="float32")
    for a, b in zip(
        fitted.predict_proba(painted[1][0]), loaded.predict_proba(painted[1][0]), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=0, atol=0.02 if bits < 32 else 0)
    assert loaded.history_ == fitted.history_
    assert loaded.threshold_ == fitted.threshold_
    assert {file.suffix for file in folder.iterdir()} == {".json", ".safetensors"}


def test_half_the_precision_takes_half_the_space(fitted, tmp_path):
    sizes = [
        (fitted.save_pretrained(tmp_path / name, bits=bits) / "network.safetensors").stat().st_size
        for name, bits in (("whole", 32), ("half", 16))
    ]
    assert sizes[1] < 0.65 * sizes[0]


def test_every_changed_byte_is_refused(fitted, tmp_path):
    folder = fitted.save_pretrained(tmp_path / "model")
    for file in folder.iterdir():
        whole = file.read_bytes()
        for place in (0, len(whole) // 2, len(whole) - 1):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with pytest.raises(BundleError):
                InpaintLocalizer.from_pretrained(folder)
        file.write_bytes(whole)
    InpaintLocalizer.from_pretrained(folder)


def test_only_localizers_are_loaded_and_nothing_else_is_overwritten(fitted, tmp_path):
    other = write_bundle(tmp_path / "other", {"kind": "InpaintDetector"}, {})
    with pytest.raises(BundleError, match="holds a 'InpaintDetector' and no InpaintLocalizer"):
        InpaintLocalizer.from_pretrained(other)
    bare = write_bundle(tmp_path / "bare", {"kind": "InpaintLocalizer"}, {})
    with pytest.raises(BundleError, match="holds no InpaintLocalizer of this cnnsvm"):
        InpaintLocalizer.from_pretrained(bare)
    with pytest.raises(BundleError, match="holds no saved model"):
        fitted.save_pretrained(tmp_path)


def test_the_description_is_plain_and_leaves_the_machine_out(fitted, tmp_path):
    localizer = clone(fitted).set_params(
        cache_dir=tmp_path,
        n_jobs=3,
        genotype=(("a", "b"),),
        weights=tmp_path / "w.pth",
        random_state=np.random.RandomState(0),
        tile_size=np.int64(64),
    )
    for name in ("network_", "threshold_", "history_", "trained_on_"):
        setattr(localizer, name, getattr(fitted, name))
    params = json.loads(
        (localizer.save_pretrained(tmp_path / "model") / "config.json").read_text()
    )["params"]
    assert params["genotype"] == [["a", "b"]]
    assert params["tile_size"] == 64
    assert params["random_state"] is None
    assert not {"cache_dir", "n_jobs", "weights", "gpu_memory_fraction"} & set(params)


def test_a_fitted_localizer_pickles(fitted, painted):
    again = pickle.loads(pickle.dumps(fitted))
    assert (
        again.predict_proba(painted[1][0][:1])[0] == fitted.predict_proba(painted[1][0][:1])[0]
    ).all()


def test_a_cached_fit_is_the_same_and_trains_once(painted, tmp_path, monkeypatch):
    images, masks = painted[0]
    first = quick(cache_dir=tmp_path).fit(images, masks)
    monkeypatch.setattr(LocalizerTrainer, "run", None)
    again = quick(cache_dir=tmp_path, n_jobs=1).fit(images, masks)
    assert_same_weights(weights(first.network_), weights(again.network_))
    assert again.history_ == first.history_
    assert [path.name for path in tmp_path.glob("*/*.pt")] == []


def soft(mask):
    """Draw a mask with a grey line, which counts under one policy only."""
    grey = np.where(mask, np.uint8(255), np.uint8(0))
    grey[5] = 100
    return grey


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 0.02},
        {"mask_policy": "any"},
        {"random_state": 1},
        {"threshold": "iou"},
        {"validation_fraction": 0.5},
        "image",
        "groups",
    ],
)
def test_the_cache_sees_every_change(painted, tmp_path, monkeypatch, change):
    images, _ = painted[0]
    masks = [soft(mask) for mask in painted[0][1]]
    quick(cache_dir=tmp_path).fit(images, masks)
    images, groups = list(images), None
    if change == "image":
        images[3] = images[3] ^ 1
    elif change == "groups":
        groups = [k // 2 for k in range(16)]
    changes = change if isinstance(change, dict) else {}
    quick(cache_dir=tmp_path, **changes).fit(images, masks, groups)
    assert len(list(tmp_path.iterdir())) == 2


def test_an_interrupted_fit_goes_on_where_it_stopped(painted, tmp_path, monkeypatch):
    images, masks = painted[0]
    whole = quick(epochs=3).fit(images, masks)
    run_epoch, epochs = LocalizerTrainer.run_epoch, []

    def stop(self):
        if len(self.history) == 2:
            raise KeyboardInterrupt
        return run_epoch(self)

    def count(self):
        epochs.append(len(self.history))
        return run_epoch(self)

    monkeypatch.setattr(LocalizerTrainer, "run_epoch", stop)
    with pytest.raises(KeyboardInterrupt):
        quick(epochs=3, cache_dir=tmp_path).fit(images, masks)
    monkeypatch.setattr(LocalizerTrainer, "run_epoch", count)
    resumed = quick(epochs=3, cache_dir=tmp_path).fit(images, masks)
    assert epochs == [2]
    assert_same_weights(weights(resumed.network_), weights(whole.network_))


def test_a_chosen_threshold_is_frozen_in_the_fit(painted, tmp_path):
    images, masks = painted[0]
    localizer = quick(threshold="iou", epochs=8).fit(images, masks)
    best = max(localizer.history_, key=lambda entry: entry["valid_iou"])
    assert best["state"] == "learning"
    assert localizer.threshold_ == best["valid_threshold"] != 0.5
    assert (
        InpaintLocalizer.from_pretrained(localizer.save_pretrained(tmp_path / "m")).threshold_
        == localizer.threshold_
    )


def test_training_in_half_precision_has_finite_weights(painted):
    localizer = quick(precision="bfloat16").fit(*painted[0])
    assert all(torch.isfinite(value).all() for value in weights(localizer.network_).values())
    assert localizer.predict_proba(painted[1][0][:1])[0].dtype == np.float32


def test_bad_pairs_are_named_before_training(painted, monkeypatch):
    images, masks = list(painted[0][0]), list(painted[0][1])
    images[7] = b"no image"
    monkeypatch.setattr(LocalizerTrainer, "run", None)
    with pytest.raises(ImageError, match="<8 bytes>"):
        quick().fit(images, masks)


def test_it_can_be_cross_validated_by_groups(painted):
    images, masks = painted[0]
    groups = np.arange(16) // 2
    scores = cross_val_score(
        quick(),
        images,
        masks,
        groups=groups,
        cv=GroupKFold(2),
        params={"groups": groups},
        error_score="raise",
    )
    assert ((scores >= 0) & (scores <= 1)).all()


def test_it_is_exported():
    assert "InpaintLocalizer" in dir(cnnsvm)
    assert cnnsvm.InpaintLocalizer is InpaintLocalizer


def test_a_fit_that_fails_leaves_the_localiser_as_it_was(painted, monkeypatch):
    def interrupt(self):
        raise KeyboardInterrupt

    first = quick()
    fitted = quick().fit(*painted[0])
    before, scores = dict(vars(fitted)), fitted.predict_proba(painted[1][0][:1])[0]
    monkeypatch.setattr(LocalizerTrainer, "run_epoch", interrupt)
    for again in (first, fitted):
        with pytest.raises(KeyboardInterrupt):
            again.fit(*(part[:8] for part in painted[0]))
    assert vars(fitted) == before
    np.testing.assert_array_equal(fitted.predict_proba(painted[1][0][:1])[0], scores)
    with pytest.raises(NotFittedError):
        first.predict(painted[1][0])


def test_the_fit_says_what_it_was_trained_on(painted, tmp_path):
    images, masks = painted[0]
    masks = [None, None, *masks[2:]]
    groups = [0, 1, *[k // 2 for k in range(2, 16)]]  # of two images one is untouched in 0 and 1
    localizer = quick().fit(images[2:] + images[:2], masks[2:] + masks[:2], [*groups[2:], 1, 2])
    untouched = {perceptual_hash(image)[0] for image in images[:2]}
    assert len(localizer.trained_on_) == 7
    assert untouched <= set(localizer.trained_on_.tolist())
    loaded = InpaintLocalizer.from_pretrained(localizer.save_pretrained(tmp_path / "model"))
    np.testing.assert_array_equal(loaded.trained_on_, localizer.trained_on_)


@pytest.mark.parametrize(("architecture", "size"), [("nixnet", "2m"), ("iidnet", "small")])
def test_a_real_network_is_trained_saved_and_loaded(architecture, size, tmp_path, monkeypatch):
    monkeypatch.undo()  # the tiny network
    settings = {"architecture": architecture, "size": size, "crop_size": 32, "batch_size": 4}
    localizer = quick(**settings).fit(*paintings(0, 8))
    images = [*paintings(9, 2)[0], painting(9)[0][:1, :1]]
    maps = localizer.predict_proba(images)
    loaded = InpaintLocalizer.from_pretrained(localizer.save_pretrained(tmp_path / "model"))
    loaded.set_params(precision="float32")
    assert [found.shape for found in maps] == [(64, 72), (64, 72), (1, 1)]
    for a, b in zip(maps, loaded.predict_proba(images), strict=True):
        np.testing.assert_array_equal(a, b)
