"""What is told of a training or a search while it runs: `Callback`, and one for TensorBoard."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Self


class Callback:
    """Told of each epoch of a training and of each trial of a search; does nothing itself.

    Give instances of a subclass as ``callbacks`` to `FineTuning`, `LocalizerTraining` or
    `cnnsvm.TunedSVC`. Clones of an estimator share them, and they are not saved with it. What a
    cache has finished is not told again.
    """

    def on_epoch_end(self, metrics: Mapping[str, Any], step: int) -> None:
        """Take an entry of ``history_``; ``step`` is the number of the epoch, from 0."""

    def on_trial_end(self, metrics: Mapping[str, Any], step: int) -> None:
        """Take ``kernel``, ``score`` and the hyperparameters; ``step`` counts trials from 0."""

    def __sklearn_clone__(self) -> Self:
        return self

    def __deepcopy__(self, memo: Any) -> Self:
        return self


class TensorBoardCallback(Callback):
    """Write scalars for TensorBoard; needs ``pip install 'cnnsvm[tensorboard]'``.

    Parameters
    ----------
    log_dir : path
    """

    def __init__(self, log_dir: str | os.PathLike[str]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError(
                f"TensorBoardCallback needs tensorboard, which cannot be imported ({error}). "
                "Install it: pip install 'cnnsvm[tensorboard]'."
            ) from error

        self.writer = SummaryWriter(os.fspath(log_dir))

    def on_epoch_end(self, metrics: Mapping[str, Any], step: int) -> None:
        """Write what is a number of an epoch."""
        self._write("epoch", metrics, step)

    def on_trial_end(self, metrics: Mapping[str, Any], step: int) -> None:
        """Write what is a number of a trial, below the name of its kernel."""
        self._write(f"trial/{metrics['kernel']}", metrics, step)

    def _write(self, prefix: str, metrics: Mapping[str, Any], step: int) -> None:
        for name, value in metrics.items():
            if isinstance(value, int | float):
                self.writer.add_scalar(f"{prefix}/{name}", value, step)
        self.writer.flush()


def check_callbacks(callbacks: Sequence[Any] | None) -> tuple[Callback, ...]:
    """Return callbacks as a tuple; a ValueError says that one is none."""
    for callback in callbacks or ():
        if not isinstance(callback, Callback):
            raise ValueError(
                f"callbacks must be instances of cnnsvm.io.callbacks.Callback, got "
                f"{callback!r}. Derive it from that class."
            )
    return tuple(callbacks or ())


def without_callbacks(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters without their callbacks, which change no result and are not saved."""
    return {name: value for name, value in params.items() if name != "callbacks"}
