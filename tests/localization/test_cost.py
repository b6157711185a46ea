import pytest
import torch
from torch import nn

from cnnsvm.localization.architectures import build_network
from cnnsvm.localization.architectures.cost import count_multiply_adds, count_parameters


class Known(nn.Module):
    """A 3x3 convolution of stride 2, and a product with a fixed matrix."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 5, 3, stride=2, padding=1)

    def forward(self, pixels):
        maps = self.convolution(pixels.float())
        return maps.flatten(2) @ torch.ones(maps[0, 0].numel(), 7)


def test_multiply_adds_are_those_counted_by_hand():
    places = 8 * 10
    convolution = places * 5 * 3 * 3 * 3
    product = 5 * places * 7
    assert count_multiply_adds(Known(), 16, 20) == convolution + product


def test_frozen_numbers_are_no_parameters_of_training():
    network = Known()
    assert count_parameters(network) == 5 * 3 * 3 * 3 + 5
    network.convolution.bias.requires_grad_(False)
    assert count_parameters(network) == 5 * 3 * 3 * 3


@pytest.mark.parametrize("training", [True, False])
def test_counting_leaves_the_network_as_it_was(training):
    network = build_network("iidnet", size="small").train(training)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    small, large = (count_multiply_adds(network, side, side) for side in (32, 64))
    assert 3.9 * small < large < 4.2 * small
    assert network.training is training
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
