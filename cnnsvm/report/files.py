"""The files of a report: JSON and CSV for programs, HTML for people."""

import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cnnsvm.data.images import load_image
from cnnsvm.io.files import write_text
from cnnsvm.report.html import render_html
from cnnsvm.report.mistakes import Loader

logger = logging.getLogger(__name__)

PREDICTION_COLUMNS = (
    "path",
    "source_id",
    "variant",
    "engine",
    "mask_schema",
    "fold",
    "label",
    "prediction",
    "score",
    "probability",
)


def write_report(
    out: Path,
    result: Mapping[str, Any],
    predictions: pd.DataFrame,
    folds: Sequence[Mapping[str, Any]],
    curves: Sequence[Mapping[str, Any]],
    *,
    loader: Loader = load_image,
) -> dict[str, Path]:
    """Write ``report.json``, ``folds.csv``, ``predictions.csv`` and ``report.html``.

    Everything is rendered first; then each file replaces its predecessor in one step, so a
    reader never meets half a file.

    Parameters
    ----------
    out : Path
        Folder; made if it is missing.
    result : mapping
        What ``report.json`` holds. ``metrics``: a ``{"value", "low", "high"}`` each;
        ``by_mask_schema``, ``by_variant`` and ``by_engine``: ``n_fakes`` and ``metrics`` each;
        ``controls``: ``roc_auc``, ``balanced_accuracy``, ``meaning`` and ``verdict`` each;
        ``tables``: more to show, each with ``title``, ``headers``, ``rows`` of text and, if
        wanted, a ``note``; ``folds``: taken from the parameter if missing; ``title``,
        ``command``, ``data``, ``n_images``, ``n_sources``, ``seconds``, ``environment``,
        ``settings``, ``skipped`` (``path`` and ``reason`` each), ``warnings`` and
        ``confidence`` (of the intervals,
        0.95 if missing). nan and None both mean undefined; what is missing is left out.
    predictions : DataFrame
        One row an image with the columns of ``PREDICTION_COLUMNS``: ``label`` and
        ``prediction`` 0 (real) or 1 (fake), ``probability`` of fake in [0, 1].
    folds : sequence of mapping
        One an outer fold: ``fold``, ``n_train``, ``n_test``, ``n_sources_train``,
        ``n_sources_test``, ``metrics``, ``best_params``, ``threshold`` and ``seconds``.
    curves : sequence of mapping
        As :func:`cnnsvm.report.plots.training_plot` takes them; may be empty.
    loader : callable
        Turns a path into uint8 pixels of shape (H, W, 3) for the thumbnails; an image that it
        cannot read gets a placeholder.

    Returns
    -------
    dict of str to Path
        File name to path, in the order above.

    Raises
    ------
    ValueError
        If ``predictions`` lack a column or hold impossible values.
    TypeError
        If ``result`` holds what JSON cannot.
    """
    result = {**result, "folds": result.get("folds") or list(folds)}
    contents = {
        "report.json": to_json(result),
        "folds.csv": folds_csv(folds),
        "predictions.csv": predictions_csv(predictions),
        "report.html": render_html(result, predictions, curves, loader),
    }
    return write_files(out, contents)


def write_files(out: Path, contents: Mapping[str, str]) -> dict[str, Path]:
    """Write text files by name into a folder, each in one step.

    Parameters
    ----------
    out : Path
        Made if it is missing.
    contents : mapping of str to str

    Returns
    -------
    dict of str to Path
        File name to path, in the same order.
    """
    out.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_text(out / name, content)
    logger.info("Wrote %s to %s", ", ".join(contents), out)
    return {name: out / name for name in contents}


def to_json(result: Mapping[str, Any]) -> str:
    """Write strict JSON: nan and infinity become null, numpy values and paths plain ones.

    Parameters
    ----------
    result : mapping

    Returns
    -------
    str
        Indented, in UTF-8 characters, with a final newline.

    Raises
    ------
    TypeError
        If a value is of a type that JSON does not have.
    """
    return json.dumps(_plain(result), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def folds_csv(folds: Sequence[Mapping[str, Any]]) -> str:
    """Write one row a fold; metrics are columns, and chosen parameters are ``best_<name>``.

    Parameters
    ----------
    folds : sequence of mapping
        As :func:`write_report` takes them.

    Returns
    -------
    str
    """
    rows = []
    for fold in folds:
        row = {key: value for key, value in fold.items() if key not in ("metrics", "best_params")}
        row.update(fold.get("metrics") or {})
        row.update({f"best_{k}": v for k, v in (fold.get("best_params") or {}).items()})
        rows.append(row)
    return pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")


def predictions_csv(predictions: pd.DataFrame) -> str:
    """Write one row an image, with the columns of ``PREDICTION_COLUMNS`` in that order.

    Parameters
    ----------
    predictions : DataFrame

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If a column is missing.
    """
    missing = [column for column in PREDICTION_COLUMNS if column not in predictions]
    if missing:
        raise ValueError(
            f"predictions lack the column(s) {', '.join(missing)}; "
            f"a report needs {', '.join(PREDICTION_COLUMNS)}."
        )
    return predictions[list(PREDICTION_COLUMNS)].to_csv(index=False, lineterminator="\n")


def _plain(value: Any) -> Any:
    """Turn nested values into what JSON has; leave the rest for ``json`` to refuse."""
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return os.fspath(value) if isinstance(value, os.PathLike) else value
