"""Which images an audit's probes look at: as many of each class of a record, by source."""

import numpy as np
import pandas as pd


def draw_sample(manifest: pd.DataFrame, max_images: int, random_state: int = 0) -> pd.DataFrame:
    """Draw images for the probes.

    Of a record with both classes as many images of each are drawn, so that how many fakes each
    original has is no clue; of other records all. Sources are taken whole, in random order, until
    the next would not fit.

    Parameters
    ----------
    manifest : DataFrame
        With ``source_id``, ``label`` and ``unit`` (the record).
    max_images : int, at least 2
    random_state : int

    Returns
    -------
    DataFrame
        Rows of the manifest in their order, under their old index.

    Raises
    ------
    ValueError
        If ``max_images`` is below 2.
    """
    if max_images < 2:
        raise ValueError(f"max_images must be at least 2, got {max_images!r}; 2000 is usual.")
    rng = np.random.default_rng(random_state)
    shuffled = manifest.iloc[rng.permutation(len(manifest))]
    number = shuffled.groupby(["source_id", "unit", "label"]).cumcount()
    sizes = manifest.groupby(["source_id", "unit"])["label"].agg(
        lambda labels: labels.value_counts().min()
    )
    units = pd.MultiIndex.from_frame(shuffled[["source_id", "unit"]])
    matched = shuffled[number.to_numpy() < sizes.loc[units].to_numpy()]
    return manifest.loc[matched.index[_fits(matched["source_id"], max_images)].sort_values()]


def _fits(sources: "pd.Series[str]", max_images: int) -> np.ndarray:
    """Choose whole sources, in order of appearance, while they fit; of a first giant a part."""
    counts = sources.groupby(sources, sort=False).size()
    kept = counts.index[counts.cumsum() <= max_images]
    if not len(kept):
        return np.arange(len(sources)) < max_images
    return sources.isin(kept).to_numpy()
