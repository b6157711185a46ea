"""Saved detectors that were trained on the very images that another run would train on."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from cnnsvm.detection.training_overlap import hash_images, training_hashes
from cnnsvm.features.saved import saved_folder
from cnnsvm.io.bundle import read_config


class OtherSplitError(ValueError):
    """A saved detector that may have learnt from images that are to be judged."""


def refuse_other_split(
    saved: Sequence[str | os.PathLike[str]],
    images: Any,
    random_state: int,
    validation_fraction: float,
) -> None:
    """Refuse saved detectors that had other training images, or set others of them aside.

    With the same images and seed the same ones are set aside again, to be judged and to tell when
    to stop; with others a detector may have learnt from some of them.

    Parameters
    ----------
    saved : sequence of str or path
        Detectors that ship, or folders that say what they were trained on.
    images : as for `InpaintDetector.fit`
        What is trained on now, including what tells when to stop.
    random_state : int
    validation_fraction : float
        Share of the sources that tells when to stop.

    Raises
    ------
    OtherSplitError
    """
    hashes = hash_images(images) if saved else np.array([], dtype=np.uint64)
    for place in saved:
        name = os.fspath(place)
        known = training_hashes(saved_folder(place))
        config = read_config(saved_folder(place))
        seed = config["params"]["random_state"]
        tuning = config["embedders"][0]["params"]["finetune"]
        # frozen networks had been checked when the detector was made
        share = tuning["validation_fraction"] if isinstance(tuning, dict) else validation_fraction
        if (seed, share) != (random_state, validation_fraction) or not np.array_equal(
            hashes, known
        ):
            raise OtherSplitError(
                f"{name} was trained on other images, or with another seed (its: {seed}, now: "
                f"{random_state}) or share for early stopping (its: {share}, now: "
                f"{validation_fraction}), so that it may have learnt from images that are to be "
                "judged or to tell when to stop. Give the data, seed and limits that it was "
                "trained with, or start from scratch."
            )
