import numpy as np
import pytest
import torch

from cnnsvm.localization.training import FOCAL_ALPHA, FOCAL_GAMMA, LOSSES


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (6, 1, 8, 9)).astype(np.float32)
    targets = (rng.random(logits.shape) < 0.3).astype(np.float32)
    targets[0] = 0
    targets[1] = 1
    return logits, targets


def focal(logits, targets):
    chance = 1 / (1 + np.exp(-logits))
    right = np.where(targets == 1, chance, 1 - chance)
    weight = np.where(targets == 1, FOCAL_ALPHA, 1 - FOCAL_ALPHA)
    return (-weight * (1 - right) ** FOCAL_GAMMA * np.log(right)).mean()


def bce(logits, targets):
    chance = 1 / (1 + np.exp(-logits))
    return -(targets * np.log(chance) + (1 - targets) * np.log(1 - chance)).mean()


def dice(logits, targets):
    losses = []
    for crop, truth in zip(1 / (1 + np.exp(-logits)), targets, strict=True):
        losses.append(1 - (2 * (crop * truth).sum() + 1) / ((crop**2).sum() + truth.sum() + 1))
    return np.mean(losses)


FORMULAS = {"focal": focal, "bce": bce, "dice": dice}


def cost(name, logits, targets):
    return LOSSES[name](torch.as_tensor(logits), torch.as_tensor(targets)).item()


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_what_their_formulas_say(name, batch):
    wanted = FORMULAS[name](*(part.astype(np.float64) for part in batch))
    assert cost(name, *batch) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_of_a_batch_is_the_mean_of_its_halves(name, batch):
    halves = [cost(name, *(part[place] for part in batch)) for place in (slice(3), slice(3, 6))]
    assert cost(name, *batch) == pytest.approx(np.mean(halves), rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_a_right_answer_costs_nothing_and_a_sure_wrong_one_has_a_finite_gradient(name, batch):
    targets = torch.from_numpy(batch[1])
    assert cost(name, 200 * targets - 100, targets) == pytest.approx(0, abs=1e-6)
    wrong = (100 - 200 * targets).requires_grad_()
    loss = LOSSES[name](wrong, targets)
    loss.backward()
    assert loss.item() > 0.3
    assert torch.isfinite(wrong.grad).all()


@pytest.mark.parametrize("name", LOSSES)
def test_the_best_constant_answer_calls_neither_everything_nor_nothing_for_sure(name):
    """Of a network that knows nothing yet, the loss must not ask for a saturated answer."""
    targets = torch.zeros(1, 1, 20, 20)
    targets[..., :8] = 1
    levels = torch.linspace(-9, 9, 181)
    costs = [cost(name, torch.full_like(targets, level.item()), targets) for level in levels]
    assert abs(levels[int(np.argmin(costs))]) < 2
