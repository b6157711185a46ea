import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cnnsvm.localization.architectures.iidnet import layers
from cnnsvm.localization.architectures.iidnet.layers import (
    SIMILAR,
    TOP,
    GlobalAttention,
    LocalAttention,
    most_similar,
)


def by_hand(features):
    """The mean over the T most similar places, one place and image after the other."""
    n, channels, height, width = features.shape
    result = torch.empty_like(features).flatten(2)
    for i in range(n):
        places = features[i].flatten(1).T
        unit = places / places.norm(dim=1, keepdim=True)
        similarity, order = (unit @ unit.T).sort(dim=1, descending=True)
        means = similarity.mean(dim=0)[:TOP]
        t = max(2, int((means >= SIMILAR).sum()))
        for place in range(height * width):
            result[i, :, place] = places[order[place, :t]].mean(dim=0)
    return result.view(n, channels, height, width)


@pytest.mark.parametrize("likeness", [0.0, 1.0, 3.0])
def test_each_place_becomes_the_mean_of_those_like_it(likeness):
    torch.manual_seed(0)
    features = torch.randn(2, 6, 5, 7) + likeness
    torch.testing.assert_close(GlobalAttention()(features), by_hand(features))


def test_how_many_count_depends_on_the_image():
    torch.manual_seed(0)
    unlike = torch.randn(1, 40, 512)
    alike = 5 + torch.randn(1, 40, 512)
    _, weights = most_similar(torch.cat([unlike, alike]))
    assert (weights > 0).sum(dim=2).unique(dim=1).flatten().tolist() == [2, TOP]
    torch.testing.assert_close(weights.sum(dim=2), torch.ones(2, 40))


def test_the_most_similar_place_is_the_place_itself():
    torch.manual_seed(0)
    chosen, _ = most_similar(torch.randn(1, 30, 16))
    assert chosen[0, :, 0].tolist() == list(range(30))


def test_a_single_place_is_its_own_mean():
    features = torch.randn(2, 4, 1, 1)
    torch.testing.assert_close(GlobalAttention()(features), features)


class Largest(TorchDispatchMode):
    """Notes how many elements the largest tensor had."""

    def __init__(self):
        super().__init__()
        self.n_elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in torch.utils._pytree.tree_leaves(result):
            if isinstance(value, torch.Tensor):
                self.n_elements = max(self.n_elements, value.numel())
        return result


def test_memory_is_bounded_and_the_blocks_change_nothing(monkeypatch):
    torch.manual_seed(0)
    features = torch.randn(2, 4, 20, 20)
    whole = GlobalAttention()(features)
    n_places = 400
    monkeypatch.setattr(layers, "SIMILARITIES", 10 * 2 * n_places)
    with Largest() as largest:
        torch.testing.assert_close(GlobalAttention()(features), whole)
    assert largest.n_elements <= 2 * n_places * TOP < 2 * n_places**2


def test_gradients_flow_through_the_mean():
    features = torch.randn(1, 4, 6, 6, requires_grad=True)
    GlobalAttention()(features).square().sum().backward()
    assert (features.grad != 0).any(dim=1).all()


def test_neighbours_count_by_their_likeness():
    attention_ = LocalAttention()
    flat = torch.full((1, 8, 6, 9), 3.0)
    torch.testing.assert_close(attention_(flat), flat)
    point = torch.zeros(1, 1, 9, 9)
    point[0, 0, 4, 4] = 1
    spread = attention_(point)[0, 0]
    torch.testing.assert_close(spread, spread.flip(0))
    torch.testing.assert_close(spread, spread.T)
    assert spread[4, 4] > spread[4, 5] > spread[4, 6] > spread[2, 6] > 0
    assert spread[4, 7] == 0
