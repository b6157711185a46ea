"""Whether a fitted detector still says the same where something else computes its embeddings.

A classifier fits the embeddings of one backend and precision. Those of others are a little apart,
by nothing that matters or by so much that a verdict is another, which depends on the network.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from cnnsvm.features.backends import Way
from cnnsvm.features.devices import DeviceError
from cnnsvm.features.embedder import CropEmbedder

logger = logging.getLogger(__name__)

#: How far a decision may be from the one as it was fitted: log-odds, so that no probability moves
#: by more than 0.025.
TOLERANCE = 0.1
#: Images that are compared, the first that are judged.
MOST_IMAGES = 8
#: Backend and precision of each embedder.
Ways = tuple[Way, ...]


def other_ways(embedders: Sequence[Any]) -> Ways:
    """Return what computes embeddings, if it is not what they were fitted with; else nothing."""
    own = [each for each in embedders if isinstance(each, CropEmbedder)]
    ways = tuple(each.choose_way(each.network_) for each in own)
    return () if ways == tuple(each.fitted_way_ for each in own) else ways


def check_parity(detector: Any, embedders: Sequence[Any], decide: Callable[[], np.ndarray]) -> None:
    """Refuse decisions that are other than with the embeddings that were fitted (`DeviceError`).

    ``decide`` returns the log-odds of the same few images each time. Once is enough, so that what
    was found is in ``compared_ways_`` of the detector.
    """
    ways = other_ways(embedders)
    if ways in ((), getattr(detector, "compared_ways_", ())):
        return
    found = decide()
    with _as_fitted(embedders):
        expected = decide()
    apart = float(np.abs(found - expected).max())
    own = [each for each in embedders if isinstance(each, CropEmbedder)]
    fitted = " and ".join(str(way) for way in dict.fromkeys(each.fitted_way_ for each in own))
    if not apart <= TOLERANCE:
        raise DeviceError(
            f"the log-odds of an image are {apart:.3f} from those with {fitted}, which the "
            f"detector was fitted with; {TOLERANCE:g} is the most. Use these, or fit it anew."
        )
    logger.info("log-odds of %d images within %.4f of those with %s", len(found), apart, fitted)
    detector.compared_ways_ = ways


@contextlib.contextmanager
def _as_fitted(embedders: Sequence[Any]) -> Iterator[None]:
    """Compute embeddings as when they were fitted, for a while."""
    asked = []
    for each in embedders:
        known = each.get_params(deep=False) if isinstance(each, CropEmbedder) else {}
        way = each.fitted_way_._asdict() if known else {}
        way |= {"device": "cpu"} if way.get("backend") == "openvino" else {}
        asked.append({name: known[name] for name in way if name in known})
        each.set_params(**{name: way[name] for name in asked[-1]})
    try:
        yield
    finally:
        for each, params in zip(embedders, asked, strict=True):
            each.set_params(**params)
