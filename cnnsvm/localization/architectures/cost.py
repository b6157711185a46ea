"""What a network costs: parameters and multiply-adds."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(network: nn.Module) -> int:
    """Count the numbers that training may change."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def count_multiply_adds(network: nn.Module, height: int, width: int) -> int:
    """Count the multiply-adds of one picture's forward pass: convolutions and matrix products.

    Parameters
    ----------
    network : nn.Module
        From uint8 pixels (1, 3, height, width). Runs once, in eval mode, where its weights are.
    height, width : int
        Of the picture, in pixels.

    Returns
    -------
    int
        Half of the floating-point operations that `torch.utils.flop_counter` counts.
    """
    device = next(network.parameters()).device
    pixels = torch.zeros(1, 3, height, width, dtype=torch.uint8, device=device)
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(pixels)
    finally:
        network.train(was_training)
    return counter.get_total_flops() // 2
