"""FineTuning: how a network is trained before it embeds."""

from collections.abc import Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar

from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval, StrOptions

from cnnsvm.features.augmentation import AUGMENTATIONS
from cnnsvm.features.trainer import Training
from cnnsvm.io.callbacks import Callback, check_callbacks

if TYPE_CHECKING:
    from cnnsvm.features.embedder import CropEmbedder


class FineTuning(BaseEstimator):
    """How a network is trained before it embeds.

    Parameters
    ----------
    mode : {"full", "head"}, default="full"
        Train the whole network, or a 256-feature projection on the frozen backbone.
    epochs, patience : int, default=20, 5
        Most epochs, and epochs without improvement before training stops.
    learning_rate : float or None, default=None
        Peak learning rate; None takes 1e-4 for a whole pretrained backbone, else 1e-3.
    weight_decay : float, default=0.01
    validation_fraction : float in (0, 0.5], default=0.2
        Share of the training sources that early stopping watches.
    augmentation : {"none", "geometric", "small", "full", "jpeg", "robust"}, default="full"
        See `cnnsvm.features.augmentation.AUGMENTATIONS`. A source and its fakes get the same.
    pairs_per_source : int or None, default=None
        Most crops of each class that a source gives in an epoch; None takes every image.
    callbacks : list of `cnnsvm.io.callbacks.Callback` or None, default=None
        Told of each epoch.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "mode": [StrOptions({"full", "head"})],
        "epochs": [Interval(Integral, 1, None, closed="left")],
        "patience": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither"), None],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "validation_fraction": [Interval(Real, 0, 0.5, closed="right")],
        "augmentation": [StrOptions(set(AUGMENTATIONS))],
        "pairs_per_source": [Interval(Integral, 1, None, closed="left"), None],
        "callbacks": [list, tuple, None],
    }

    def __init__(
        self,
        mode: str = "full",
        *,
        epochs: int = 20,
        patience: int = 5,
        learning_rate: float | None = None,
        weight_decay: float = 0.01,
        validation_fraction: float = 0.2,
        augmentation: str = "full",
        pairs_per_source: int | None = None,
        callbacks: Sequence[Callback] | None = None,
    ) -> None:
        self.mode = mode
        self.epochs = epochs
        self.patience = patience
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.validation_fraction = validation_fraction
        self.augmentation = augmentation
        self.pairs_per_source = pairs_per_source
        self.callbacks = callbacks


def training_of(embedder: "CropEmbedder", tuning: FineTuning, seed: int) -> Training:
    """Return what the training of an embedder's network needs."""
    device, dtype = embedder.place()
    return Training(
        mode=tuning.mode,
        epochs=tuning.epochs,
        patience=tuning.patience,
        learning_rate=tuning.learning_rate or embedder.usual_rate(tuning),
        weight_decay=tuning.weight_decay,
        validation_fraction=tuning.validation_fraction,
        augmentation=AUGMENTATIONS[tuning.augmentation],
        pairs=tuning.pairs_per_source,
        random_state=seed,
        crop_size=int(embedder.crop_size),
        n_crops=embedder.n_crops,
        batch_size=int(embedder.batch_size),
        device=device,
        dtype=dtype,
        n_jobs=0 if embedder.n_jobs in (None, 1) else int(embedder.n_jobs),
        mirror=bool(embedder.mirror),
        callbacks=check_callbacks(tuning.callbacks),
    )
