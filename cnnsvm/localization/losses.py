"""Losses of a map of logits against a mask.

Each takes logits and targets (0 or 1), float32 of shape (N, 1, H, W), and returns the mean over
the N crops of what each of them costs. So the loss of a batch is the mean of the losses of its
equal parts, and processes that share a batch train as one would.
"""

from collections.abc import Callable

import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from torchvision.ops import sigmoid_focal_loss

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

#: Weight of repainted pixels. The 0.25 of the paper is for rare objects; masks and the choice of
#: crops make both kinds about as frequent, and 0.5 leaves the even chance at a logit of 0.
FOCAL_ALPHA = 0.5
FOCAL_GAMMA = 2.0


def focal(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Sigmoid focal loss (Lin et al., "Focal loss for dense object detection", ICCV 2017)."""
    return sigmoid_focal_loss(logits, targets, FOCAL_ALPHA, FOCAL_GAMMA, reduction="mean")


def bce(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy."""
    return binary_cross_entropy_with_logits(logits, targets)


def dice(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """One minus the Dice coefficient of each crop (Milletari et al., "V-Net", 3DV 2016).

    Their form, with squares in the denominator: of all maps that are the same everywhere, its
    best is the root of the repainted share. That of the form without squares is 1, where the
    gradient of the sigmoid ends: it drove each network that we tried into calling everything
    repainted. One pixel is added to overlap and size, so that an untouched crop of which nothing
    is called costs nothing.
    """
    chance, truth = torch.sigmoid(logits).flatten(1), targets.flatten(1)
    overlap = 2 * (chance * truth).sum(dim=1) + 1
    size = chance.square().sum(dim=1) + truth.sum(dim=1) + 1
    return (1 - overlap / size).mean()


#: What ``loss=`` accepts.
LOSSES: dict[str, Loss] = {"focal": focal, "bce": bce, "dice": dice}
