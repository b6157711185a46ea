import dataclasses

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from cnnsvm.data.splits import encode_groups
from cnnsvm.features.augmentation import AUGMENTATIONS
from cnnsvm.features.backbones import build_backbone, build_statistics
from cnnsvm.features.finetuning import AuxiliaryLabels, FineTuner, finetune
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


def run(labelled_images, network=None, checkpoint=None, **changes):
    images, codes, groups = labelled_images
    network = network or build_backbone("squeezenet1_1", preprocessing="residual")
    training = dataclasses.replace(TRAINING, **changes)
    return network, finetune(network, images, codes, groups, training, checkpoint)


def weights(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def differ(a, b):
    return any(not torch.equal(a[name], b[name]) for name in a)


def test_training_lowers_the_loss_on_unseen_sources(labelled_images):
    network = build_backbone("resnet18", preprocessing="residual")
    _, history = run(labelled_images, network, epochs=8, learning_rate=7e-4)
    best = history[best_epoch(history)]
    assert best["valid_loss"] < 0.5  # guessing gives 0.69
    assert best["valid_auc"] > 0.9
    images, codes, _ = labelled_images  # the classifier that is kept is the one that was so good
    crops = torch.from_numpy(np.stack([x[:32, :32].transpose(2, 0, 1) for x in images]))
    with torch.inference_mode():
        scores = network.fake_score(network(crops)).numpy()
    assert roc_auc_score(codes, scores) > 0.9


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_fake_score_is_the_log_odds_against_the_first_class(n_classes):
    network = build_backbone("squeezenet1_1").eval()
    network.classifier = torch.nn.Linear(512, n_classes)
    crops = torch.randint(0, 256, (4, 3, 48, 48), dtype=torch.uint8)
    with torch.inference_mode():
        embeddings = network(crops)
        first = network.logits(crops).double().softmax(dim=1)[:, 0]
        scores = network.fake_score(embeddings).double()
    torch.testing.assert_close(scores, torch.log((1 - first) / first), atol=1e-5, rtol=1e-4)


def test_without_fine_tuning_there_is_no_classifier():
    network = build_backbone("squeezenet1_1").eval()
    for judge in (network.fake_score, network.logits):
        with pytest.raises(RuntimeError, match="was not fine-tuned"):
            judge(torch.zeros(1, 3, 48, 48, dtype=torch.uint8))


def test_pairs_limit_an_epoch_to_so_many_of_each_source(labelled_images, monkeypatch):
    epochs = []
    draws = FineTuner.draws

    def watch(self, epoch):
        epochs.append(draws(self, epoch))
        assert set(self.codes[[d.index for d in epochs[-1]]]) == {0, 1}
        return epochs[-1]

    monkeypatch.setattr(FineTuner, "draws", watch)
    run(labelled_images, epochs=1, pairs=1)
    groups = labelled_images[2]
    for drawn in epochs:
        counts = np.unique([groups[d.index] for d in drawn], return_counts=True)[1]
        assert set(counts) == {2}


@pytest.mark.parametrize("mode", ["head", "full"])
def test_layers_over_residual_statistics_learn(labelled_images, mode):
    network = build_statistics(True)
    _, history = run(
        labelled_images, network, mode=mode, epochs=8, learning_rate=3e-3, crop_size=48
    )
    best = history[best_epoch(history)]
    assert best["valid_auc"] > 0.95
    assert best["valid_loss"] < 0.2  # guessing gives 0.69


def test_validation_sources_are_not_trained_on(labelled_images, monkeypatch):
    images, codes, groups = labelled_images
    seen, judged = set(), set()
    step, validate = FineTuner.draws, FineTuner.validate

    def draws(self, epoch):
        drawn = step(self, epoch)
        seen.update(groups[draw.index] for draw in drawn)
        return drawn

    def watch(self):
        judged.update(groups[self.valid])
        return validate(self)

    monkeypatch.setattr(FineTuner, "draws", draws)
    monkeypatch.setattr(FineTuner, "validate", watch)
    run((images, codes, groups), epochs=1)
    assert seen | judged == set(groups)
    assert judged
    assert seen.isdisjoint(judged)


def test_head_mode_leaves_the_body_alone(labelled_images):
    network = build_backbone("resnet18", projection=True)
    before = weights(network)
    run(labelled_images, network, mode="head", epochs=1)
    after = weights(network)
    changed = {name for name in before if not torch.equal(after[name], before[name])}
    assert changed == {"projection.0.weight", "projection.0.bias"}
    assert set(after) - set(before) == {"classifier.weight", "classifier.bias"}


def test_full_mode_trains_every_parameter(labelled_images):
    network = build_backbone("squeezenet1_1")
    before = weights(network)
    run(labelled_images, network, epochs=1)
    after = weights(network)
    assert all(not torch.equal(after[name], before[name]) for name in before)


def test_a_single_source_a_class_trains_without_validation(labelled_images, caplog):
    images, codes, groups = labelled_images
    _, history = run((images[:3], codes[:3], groups[:3]), epochs=2)
    assert "valid_loss" not in history[-1]
    assert best_epoch(history) == 1
    assert "without early stopping" in caplog.text


def test_images_without_groups_are_their_own(labelled_images):
    images, codes, _ = labelled_images
    _, history = run((images, codes, None), epochs=1)
    assert "valid_loss" in history[0]
    assert len(np.unique(encode_groups(None, len(images)))) == len(images)


def test_three_classes_train(labelled_images):
    images, codes, groups = labelled_images
    three = codes.copy()
    three[2::3] = 2
    network, history = run((images, three, groups), epochs=1)
    assert np.isfinite(history[0]["valid_loss"])
    assert not network.training


def test_dropout_follows_the_seed_too(labelled_images):
    def train():
        network = build_backbone("efficientnet_b0")  # it drops whole layers at random
        run(labelled_images, network, epochs=1)
        return weights(network)

    torch.manual_seed(1)
    first = train()
    torch.manual_seed(2)
    assert not differ(first, train())


def test_finer_classes_are_taught_and_the_classes_validated():
    rng = np.random.default_rng(0)
    codes, kinds = np.arange(48) % 2, np.arange(48) // 2 % 2
    images = [rng.integers(0, 90, (32, 32, 3), dtype=np.uint8) for _ in codes]
    for image, code, kind in zip(images, codes, kinds, strict=True):
        image += np.array([120 * code, 0, 120 * kind], np.uint8)  # fakes are red, half are blue
    fine = AuxiliaryLabels.of(2 * kinds + codes, codes)
    network = build_backbone("plain_cnn", preprocessing="imagenet")
    training = dataclasses.replace(TRAINING, epochs=6, learning_rate=3e-3)
    history = finetune(network, images, codes, np.arange(48) // 2, training, auxiliary=fine)
    assert network.classifier.out_features == 4
    assert network.parents == (0, 1, 0, 1)
    best = history[best_epoch(history)]
    assert best["valid_loss"] < 0.5  # of two classes: guessing gives 0.69, of four 1.39
    assert best["valid_auc"] > 0.9
    with torch.inference_mode():
        said = network.logits(torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2)))
    assert (said.argmax(dim=1).numpy() // 2 == kinds).mean() > 0.9


def test_shares_told_right_are_of_the_classes(labelled_images, monkeypatch):
    images, codes, groups = labelled_images
    fine = AuxiliaryLabels.of(2 * (np.arange(len(codes)) % 3) + codes, codes)
    real = FineTuner.logits

    def fake_of_some_kind(self, network, crops):
        logits = real(self, network, crops) * 0
        logits[:, [k for k, parent in enumerate(fine.parents) if parent == 1]] += 5
        return logits

    monkeypatch.setattr(FineTuner, "logits", fake_of_some_kind)
    entry = finetune(
        *(build_backbone("squeezenet1_1"), images, codes, groups),
        dataclasses.replace(TRAINING, epochs=1),
        auxiliary=fine,
    )[0]
    assert entry["train_accuracy"] == pytest.approx(0.5)  # pairs: half of an epoch is fake
    assert entry["valid_accuracy"] == pytest.approx(2 / 3)  # two fakes to an original
