import dataclasses

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from cnnsvm.data.splits import encode_groups
from cnnsvm.features import branch
from cnnsvm.features.augmentation import AUGMENTATIONS
from cnnsvm.features.backbones import Standardise, build_statistics
from cnnsvm.features.branch import StatisticsTrainer, train_branch
from cnnsvm.features.cache import fit_network, load_network, network_arrays
from cnnsvm.features.finetuning import validation_split
from cnnsvm.features.loading import paired_draws
from cnnsvm.features.statistics import STATISTICS_DIM
from cnnsvm.features.trainer import Training, best_epoch

TRAINING = Training(
    mode="full",
    epochs=3,
    learning_rate=1e-3,
    weight_decay=0.01,
    batch_size=8,
    patience=5,
    crop_size=32,
    n_crops=2,
    validation_fraction=0.25,
    augmentation=AUGMENTATIONS["geometric"],
    random_state=0,
    n_jobs=0,
    device=torch.device("cpu"),
    dtype=torch.float32,
)


def statistics_network():
    return build_statistics(True)


def run(labelled_images, network=None, folder=None, validate=True, **changes):
    """Train the branch of a network, on the split that fine-tuning makes."""
    images, codes, groups = labelled_images
    network = network or statistics_network()
    training = dataclasses.replace(TRAINING, **changes)
    group_codes = encode_groups(groups, len(codes))
    fit, valid = validation_split(codes, group_codes, training)
    if not validate:
        fit, valid = np.arange(len(codes)), np.arange(0)
    history = train_branch(network, images, codes, group_codes, fit, valid, training, folder)
    network.eval()
    return network, history


def weights(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def differ(a, b):
    assert a.keys() == b.keys()
    return [name for name in a if not torch.equal(a[name], b[name])]


@pytest.fixture
def gathered(monkeypatch):
    """Count the crops that are described, a number for each call."""
    counts = []
    original = branch.residual_statistics

    def count(crops):
        counts.append(len(crops))
        return original(crops)

    monkeypatch.setattr(branch, "residual_statistics", count)
    return counts


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(branch, "PASSES", 3)


@pytest.mark.parametrize("seed", [0, 1])
def test_many_passes_learn_more_than_one(labelled_images, monkeypatch, seed):
    changes = {"epochs": 6, "crop_size": 48, "random_state": seed}
    _, history = run(labelled_images, **changes)
    many = history[best_epoch(history)]
    assert len(history) == branch.PASSES
    assert many["valid_auc"] > 0.95
    monkeypatch.setattr(branch, "PASSES", 1)
    _, (once,) = run(labelled_images, **changes)
    assert many["valid_loss"] < 0.6 * once["valid_loss"]


def test_shuffled_classes_teach_nothing(labelled_images):
    """What the history calls unseen is unseen: by heart, all could be told apart."""
    images, codes, groups = labelled_images
    shuffled = np.random.default_rng(0).permutation(codes)
    _, history = run((images, shuffled, groups), learning_rate=3e-3)
    assert history[-1]["train_loss"] < 0.5
    assert history[-1]["valid_loss"] > 0.6


def test_what_is_kept_is_what_the_history_says(labelled_images, monkeypatch):
    found = []
    gather = branch._gather

    def keep(*args):
        found.append(gather(*args))
        return found[-1]

    monkeypatch.setattr(branch, "_gather", keep)
    network, history = run(labelled_images)
    rows, targets = map(torch.from_numpy, found[-1])
    with torch.inference_mode():
        logits = network.classifier(network.branch(rows))
    loss = torch.nn.functional.cross_entropy(logits, targets).item()  # the classes are balanced
    assert loss == pytest.approx(min(entry["valid_loss"] for entry in history), rel=1e-4)


def test_held_out_sources_are_in_no_training_row(labelled_images, quick, monkeypatch):
    groups = labelled_images[2]
    rounds = []

    class Watched(branch.DrawnCrops):
        def __init__(self, images, codes, draws, size, augmentation):
            rounds.append({groups[draw.index] for draw in draws})
            super().__init__(images, codes, draws, size, augmentation)

    monkeypatch.setattr(branch, "DrawnCrops", Watched)
    run(labelled_images)
    *trained, held_out = rounds
    assert len(trained) == TRAINING.epochs
    assert all(part == trained[0] for part in trained)
    assert trained[0].isdisjoint(held_out)
    assert trained[0] | held_out == set(groups)
    assert len(held_out) == 3


def test_each_round_draws_crops_of_its_own(labelled_images, quick, tmp_path):
    run(labelled_images, folder=tmp_path)
    files = sorted(tmp_path.glob("*"))
    assert [file.name for file in files] == [f"statistics_{k}.safetensors" for k in range(4)]
    rows = [load_file(file)["rows"] for file in files]
    assert [part.shape for part in rows] == [(36, STATISTICS_DIM)] * 3 + [(12, STATISTICS_DIM)]
    assert not np.array_equal(rows[0], rows[1])
    assert not np.array_equal(rows[1], rows[2])


def test_rows_stand_beside_the_classes_of_their_crops(labelled_images, quick, tmp_path):
    _, codes, groups = labelled_images
    group_codes = encode_groups(groups, len(codes))
    run(labelled_images, folder=tmp_path, validate=False)
    draws = paired_draws(codes, group_codes, TRAINING.random_state, 1)
    kept = load_file(tmp_path / "statistics_1.safetensors")
    assert kept["targets"].tolist() == [codes[draw.index] for draw in draws]


def test_pairs_limit_the_crops_of_a_source(labelled_images, quick, gathered):
    run(labelled_images, pairs=1, validate=False)
    assert sum(gathered) == TRAINING.epochs * 12 * 2


def test_an_interrupted_gathering_goes_on(labelled_images, quick, gathered, tmp_path, monkeypatch):
    whole, history = run(labelled_images)
    all_crops = sum(gathered)
    per_round = 36
    original, limit = branch.residual_statistics, per_round + 10

    def interrupted(crops):
        if sum(gathered) > limit:
            raise KeyboardInterrupt
        return original(crops)

    gathered.clear()
    with monkeypatch.context() as patch:
        patch.setattr(branch, "residual_statistics", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(labelled_images, folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["statistics_0.safetensors"]
    gathered.clear()
    resumed, resumed_history = run(labelled_images, folder=tmp_path)
    assert sum(gathered) == all_crops - per_round
    assert resumed_history == history
    assert not differ(weights(resumed), weights(whole))
    gathered.clear()
    run(labelled_images, folder=tmp_path)
    assert gathered == []


def test_a_finished_task_leaves_its_network_only(labelled_images, quick, gathered, tmp_path):
    images, codes, groups = labelled_images
    training, cache = dataclasses.replace(TRAINING, epochs=1), tmp_path / "task"
    network = statistics_network()
    seen = []
    original = branch._gather

    def watch(*args):
        seen.append(original(*args))
        assert list(cache.glob("statistics_*.safetensors"))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(branch, "_gather", watch)
        fit_network(network, images, codes, groups, training, cache)
    assert len(seen) == 2
    left = sorted(path.name for path in cache.glob("[!.]*"))
    assert left == ["history.json", "network.safetensors"]
    gathered.clear()
    again = statistics_network()
    fit_network(again, images, codes, groups, training, cache)
    assert gathered == []
    assert not differ(weights(again), weights(network))


def test_standardise_gives_zero_mean_and_unit_deviation():
    rows = torch.from_numpy(np.random.default_rng(0).normal(5, 3, (200, 4)).astype(np.float32))
    rows[:, 2] = 0.1  # constant, and no float32 is exactly 0.1
    layer = Standardise(4)
    torch.testing.assert_close(layer(rows), rows)  # as yet it does nothing
    layer.fit(rows)
    out = layer(rows)
    reference = (rows.numpy() - rows.numpy().mean(0)) / rows.numpy().std(0)
    np.testing.assert_allclose(out[:, [0, 1, 3]], reference[:, [0, 1, 3]], atol=1e-5)
    np.testing.assert_allclose(out[:, 2], 0, atol=1e-6)
    assert layer.scale[2] == 1
    assert (layer(rows + torch.tensor([0, 0, 0.5, 0]))[:, 2] - 0.5).abs().max() < 1e-6


def test_standardisation_is_of_the_training_rows_and_is_saved(labelled_images, quick, tmp_path):
    network, _ = run(labelled_images, folder=tmp_path)
    kept = [load_file(tmp_path / f"statistics_{k}.safetensors")["rows"] for k in range(3)]
    rows = np.concatenate(kept).astype(np.float64)
    np.testing.assert_allclose(network.branch[0].mean, rows.mean(0), atol=1e-6)
    deviation = rows.std(0)
    varies = deviation > 1e-6
    np.testing.assert_allclose(network.branch[0].scale[varies], deviation[varies], rtol=1e-5)
    assert (network.branch[0].scale[~varies] == 1).all()

    arrays = network_arrays(network)
    assert {"branch.0.mean", "branch.0.scale"} <= set(arrays)
    save_file(arrays, tmp_path / "network.safetensors")
    loaded = statistics_network()
    load_network(loaded, load_file(tmp_path / "network.safetensors"))
    crops = torch.randint(0, 256, (3, 3, 48, 48), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(loaded(crops), network(crops))
        assert torch.equal(loaded.logits(crops), network.logits(crops))


def test_unbalanced_classes_count_the_same(labelled_images, quick, monkeypatch):
    images, codes, groups = labelled_images
    # half of the sources have no original, so that there are more crops of fakes
    few = np.flatnonzero((codes == 1) | (np.arange(len(codes)) // 3 % 2 == 0))
    found = []
    original = StatisticsTrainer.run

    def watch(self):
        found.append((self.weight, self.targets))
        return original(self)

    monkeypatch.setattr(StatisticsTrainer, "run", watch)
    run(([images[i] for i in few], codes[few], groups[few]), validate=False)
    weight, targets = found[0]
    counts = targets.bincount()
    assert counts[1] > 1.5 * counts[0]
    torch.testing.assert_close(weight * counts, torch.full((2,), len(targets) / 2))


def test_the_weights_of_the_classes_are_those_of_the_loss():
    """A classifier that knows nothing is not led to the larger class."""
    grey = [np.full((40, 40, 3), 128, np.uint8)] * 24
    labels = np.array([0] * 4 + [1] * 20)
    network, _ = run((grey, labels, None), validate=False, epochs=2, learning_rate=1e-2)
    with torch.inference_mode():
        proba = network.logits(torch.full((1, 3, 32, 32), 128, dtype=torch.uint8)).softmax(1)
    np.testing.assert_allclose(proba, 0.5, atol=0.1)


def test_three_classes(labelled_images, quick):
    images, codes, groups = labelled_images
    three = codes.copy()
    three[2::3] = 2
    network, history = run((images, three, groups))
    assert network.classifier.out_features == 3
    assert 0 <= history[-1]["valid_auc"] <= 1
