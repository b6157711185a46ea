"""How a localiser is trained: its losses, and the settings of a training.

Each loss takes logits and targets (0 or 1), float32 of shape (N, 1, H, W), and returns the mean
over the N crops of what each of them costs. So the loss of a batch is the mean of the losses of its
equal parts, and processes that share a batch train as one would.
"""

from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any, ClassVar

import torch
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval, StrOptions
from torch.nn.functional import binary_cross_entropy_with_logits
from torchvision.ops import sigmoid_focal_loss

from cnnsvm.features.augmentation import AUGMENTATIONS
from cnnsvm.features.trainer import OPTIMIZERS
from cnnsvm.io.callbacks import Callback

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

#: Weight of repainted pixels. The 0.25 of the paper is for rare objects; masks and the choice of
#: crops make both kinds about as frequent, and 0.5 leaves the even chance at a logit of 0.
FOCAL_ALPHA = 0.5
FOCAL_GAMMA = 2.0


def focal(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Sigmoid focal loss (Lin et al., "Focal loss for dense object detection", ICCV 2017)."""
    return sigmoid_focal_loss(logits, targets, FOCAL_ALPHA, FOCAL_GAMMA, reduction="mean")


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
LOSSES: dict[str, Loss] = {"focal": focal, "bce": binary_cross_entropy_with_logits, "dice": dice}

_COUNT = [Interval(Integral, 1, None, closed="left")]
_SHARE = [Interval(Real, 0, 1, closed="both")]


class LocalizerTraining(BaseEstimator):
    """Settings of the training of an `InpaintLocalizer`.

    Parameters
    ----------
    loss : {"focal", "bce", "dice"}, default="focal"
    optimizer : {"adamw", "adam"}, default="adamw"
        The weight decay of "adam" is part of the gradient.
    learning_rate : float, default=1e-3
        Peak rate of the one-cycle schedule.
    weight_decay : float, default=0.01
    epochs, patience : int, default=20, 5
        Most epochs, and epochs without a better validation IoU before training stops.
    max_restarts : int, default=2
        How often a training that collapsed (the network calls nothing repainted, or everything,
        and stays there) or diverged begins again at a fifth of the rate, with the best weights so
        far. After that its best weights are kept with a ``ConvergenceWarning``.
    validation_fraction : float in (0, 0.5], default=0.2
        Share of the training sources that early stopping watches.
    augmentation : str, default="full"
        A key of `cnnsvm.features.augmentation.AUGMENTATIONS`. The mask goes through the same
        place, resizing, turns and flips; blur, noise and codecs are the image's alone. Half of the
        recompressed patches lie on the image's own 8-pixel grid.
    warmup : float in [0, 1], default=0.5
        Share of the epochs over which degradations (resizing, blur, noise, codecs) grow from
        never to as often as the augmentation says. Strong ones from the first step on leave
        little to learn from. The weights kept are of an epoch after that, if one is of use.
    crops_per_image : int, default=1
        Patches that an image gives in an epoch.
    n_crops : int, default=4
        Patches of a validation image, at most.
    balance : float in [0, 1], default=0.5
        Share of the patches that are placed so that both kinds of pixels occur in them.
    callbacks : list of `cnnsvm.io.callbacks.Callback` or None, default=None
        Told of each epoch.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "loss": [StrOptions(set(LOSSES))],
        "optimizer": [StrOptions(set(OPTIMIZERS))],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "epochs": _COUNT,
        "patience": _COUNT,
        "max_restarts": [Interval(Integral, 0, None, closed="left")],
        "validation_fraction": [Interval(Real, 0, 0.5, closed="right")],
        "augmentation": [StrOptions(set(AUGMENTATIONS))],
        "warmup": _SHARE,
        "crops_per_image": _COUNT,
        "n_crops": _COUNT,
        "balance": _SHARE,
        "callbacks": [list, tuple, None],
    }

    def __init__(
        self,
        *,
        loss: str = "focal",
        optimizer: str = "adamw",
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
        epochs: int = 20,
        patience: int = 5,
        max_restarts: int = 2,
        validation_fraction: float = 0.2,
        augmentation: str = "full",
        warmup: float = 0.5,
        crops_per_image: int = 1,
        n_crops: int = 4,
        balance: float = 0.5,
        callbacks: Sequence[Callback] | None = None,
    ) -> None:
        self.loss = loss
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.patience = patience
        self.max_restarts = max_restarts
        self.validation_fraction = validation_fraction
        self.augmentation = augmentation
        self.warmup = warmup
        self.crops_per_image = crops_per_image
        self.n_crops = n_crops
        self.balance = balance
        self.callbacks = callbacks
