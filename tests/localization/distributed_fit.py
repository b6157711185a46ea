"""What each process of the distributed test runs: ``torchrun distributed_fit.py FOLDER``."""

import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from tiny_localizer import TinyNorm, build_tiny, localizer, paintings, weights

from cnnsvm.localization import fitting, training
from cnnsvm.localization.architectures import ARCHITECTURES


def fit(distributed, cache_dir=None):
    """Fit a small localiser on sixteen images."""
    made = localizer(epochs=3, distributed=distributed, cache_dir=cache_dir)
    return made.fit(*paintings(0, 16))


def broken_once(logits, targets, calls=[]):  # noqa: B006
    """Be NaN in one step of one process; the others must notice."""
    calls.append(None)
    is_broken = len(calls) == 6 and torch.distributed.get_rank() == 1
    return training.dice(logits, targets) * (float("nan") if is_broken else 1)


def leave(localizer, place):
    """Write weights and history of a localiser."""
    arrays = {k: v.contiguous() for k, v in weights(localizer.network_).items()}
    save_file(arrays, place.with_suffix(".safetensors"))
    place.with_suffix(".txt").write_text(repr(localizer.history_))


def main():
    """Leave what each process has learnt, and what the first one saves, in the folder."""
    torch.set_num_threads(1)
    ARCHITECTURES["iidnet"] = build_tiny
    folder, rank = Path(sys.argv[1]), os.environ["RANK"]
    store = fitting.store_training

    def watch(*args):
        (folder / f"written-by-{rank}").touch()
        store(*args)

    fitting.store_training = watch
    fitted = fit(True, folder / "cache")
    leave(fitted, folder / f"rank{rank}")
    fitted.save_pretrained(folder / "model")
    fit(True, folder / "cache")  # finds the group joined and the result there
    training.LOSSES["focal"] = broken_once
    ARCHITECTURES["iidnet"] = lambda size=None, genotype=None: TinyNorm(None)
    leave(fit(True), folder / f"broken{rank}")


if __name__ == "__main__":
    main()
