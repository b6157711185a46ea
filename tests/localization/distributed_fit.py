"""What each process of the distributed test runs: ``torchrun distributed_fit.py FOLDER``."""

import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from tiny_localizer import SETTINGS, TINY_ARCHITECTURES, TinyNorm, paintings, weights

from cnnsvm import InpaintLocalizer
from cnnsvm.localization import bundle, cache, losses


def fit(distributed, cache_dir=None):
    """Fit a small localiser on sixteen pictures."""
    settings = SETTINGS | {"epochs": 3, "distributed": distributed, "cache_dir": cache_dir}
    return InpaintLocalizer(**settings).fit(*paintings(0, 16))


def broken_once(logits, targets, calls=[]):  # noqa: B006
    """Be NaN in one step of one process; the others must notice."""
    calls.append(None)
    is_broken = len(calls) == 6 and torch.distributed.get_rank() == 1
    return losses.dice(logits, targets) * (float("nan") if is_broken else 1)


def leave(localizer, place):
    """Write weights and history of a localiser."""
    save_file(weights(localizer.network_), place.with_suffix(".safetensors"))
    place.with_suffix(".txt").write_text(repr(localizer.history_))


def main():
    """Leave what each process has learnt, and what the first one saves, in the folder."""
    torch.set_num_threads(1)
    bundle.architectures = TINY_ARCHITECTURES
    folder = Path(sys.argv[1])
    rank, keep = os.environ["RANK"], cache._keep

    def watch(*result):
        (folder / f"kept-by-{rank}").touch()
        keep(*result)

    cache._keep = watch
    localizer = fit(True, folder / "cache")
    leave(localizer, folder / f"rank{rank}")
    localizer.save(folder / "model")
    fit(True, folder / "cache")  # finds the group joined and the result there
    losses.LOSSES["focal"] = broken_once
    bundle.architectures.build_network = lambda architecture, **options: TinyNorm()
    leave(fit(True), folder / f"broken{rank}")


if __name__ == "__main__":
    main()
