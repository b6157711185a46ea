"""A report as a page, as text and as files: templates render, this module formats values."""

import base64
import io
import json
import logging
import math
import os
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from PIL import Image

from cnnsvm.data.images import load_image
from cnnsvm.io.files import write_text
from cnnsvm.report.model import Cell, Column, Report, Table
from cnnsvm.report.wording import format_interval, format_number, format_seconds, percent

logger = logging.getLogger(__name__)

Loader = Callable[[str], np.ndarray]  # path -> uint8 pixels of shape (H, W, 3)

WIDTH = 98  # letters in a line of text
SHOWN_IN_TEXT, SHOWN_ON_PAGE = 10, 100  # entries of a list
_NAME_WIDTH = 24
_DPI = 150
_THUMBNAIL = 160  # pixels, at most


def render_html(report: Report) -> str:
    """Write a report as one page that needs nothing from elsewhere.

    Parameters
    ----------
    report : Report

    Returns
    -------
    str
        HTML with inline style and embedded images; all text of the report is escaped.
    """
    return _environment().get_template("page.html.j2").render(report=report)


def render_text(report: Report, files: Iterable[str | os.PathLike[str]] = ()) -> str:
    """Write a report as text for standard output.

    Parameters
    ----------
    report : Report
    files : iterable of path
        Where the written files are; those below the working directory are shown relative to it.

    Returns
    -------
    str
        Lines of at most 98 characters, unless a path, a command or a table is wider, with a final
        newline.
    """
    template = _environment().get_template("text.txt.j2")
    return template.render(report=report, files=[_shown_path(path) for path in files])


def write_report(out: Path, report: Report) -> dict[str, Path]:
    """Write the page and the other files of a report.

    Everything is rendered first; then each file replaces its predecessor in one step, so a
    reader never meets half a file.

    Parameters
    ----------
    out : Path
        Folder; made if it is missing.
    report : Report

    Returns
    -------
    dict of str to Path
        File name to path.
    """
    contents = {**report.files, f"{report.name}.html": render_html(report)}
    paths = {name: write_text(out / name, content) for name, content in contents.items()}
    logger.info("Wrote %s to %s", ", ".join(contents), out)
    return paths


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


def to_csv(rows: pd.DataFrame) -> str:
    """Write rows as CSV, without the index."""
    return rows.to_csv(index=False, lineterminator="\n")


def thumbnail(path: str, loader: Loader = load_image) -> bytes | None:
    """Shrink an image to at most 160 by 160 pixels and encode it as JPEG.

    Parameters
    ----------
    path : str
    loader : callable

    Returns
    -------
    bytes or None
        None, with a warning in the log, if the image cannot be read.
    """
    try:
        return encode_jpeg(loader(path), _THUMBNAIL)
    except (OSError, ValueError) as error:
        logger.warning("No thumbnail: %s", error)
        return None


def encode_jpeg(pixels: np.ndarray, side: int) -> bytes:
    """Encode uint8 pixels of shape (H, W, 3), shrunk to at most ``side`` both ways, as JPEG."""
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def to_png(figure: Any) -> bytes:
    """Encode a matplotlib figure; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()


def format_cell(value: Any, column: Column, *, short: bool = False) -> str:
    """Write a value of a table; of an interval only the value if ``short``."""
    if isinstance(value, (str, Cell)):
        return value if isinstance(value, str) else value.text
    if column.kind == "seconds":
        return format_seconds(value)
    if isinstance(value, Mapping):
        return format_number(value.get("value")) if short else format_interval(value)
    if isinstance(value, (int, np.integer)):
        return f"{value:,}"
    return percent(value) if column.kind == "percent" else format_number(value)


def aligned(table: Table) -> str:
    """Write a table as text: names and prose to the left, numbers to the right.

    A name of more than 24 characters gets a line of its own, so that one long name does not push
    the numbers off the screen.
    """
    columns = [(i, column) for i, column in enumerate(table.columns) if column.in_text != "no"]
    headers = [column.short or column.name for _, column in columns]
    rows = [
        [format_cell(row[i], column, short=column.in_text == "value") for i, column in columns]
        for row in table.rows
    ]
    long = [len(name) > _NAME_WIDTH and bool(rest) for name, *rest in rows]
    padded = [["", *row[1:]] if wide else row for row, wide in zip(rows, long, strict=True)]
    widths = [max(map(len, cells)) for cells in zip(headers, *padded, strict=True)]
    left = [i == 0 or column.kind == "words" for i, column in columns]
    lines = [_line(headers, widths, left)]
    for row, cells, wide in zip(rows, padded, long, strict=True):
        lines += [f"  {row[0]}"] * wide + [_line(cells, widths, left)]
    return "\n".join(lines)


def _line(cells: Sequence[str], widths: Sequence[int], left: Sequence[bool]) -> str:
    looks = zip(cells, widths, left, strict=True)
    return "  " + "  ".join(f"{c:<{w}}" if side else f"{c:>{w}}" for c, w, side in looks).rstrip()


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("cnnsvm.report"),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "aligned": aligned,
        "base64": lambda data: base64.b64encode(data).decode("ascii"),
        "cell": format_cell,
        "item": _item,
        "png": to_png,
        "wrap": lambda text: textwrap.fill(text, WIDTH, break_long_words=False),
    }
    environment.globals |= {"in_text": SHOWN_IN_TEXT, "on_page": SHOWN_ON_PAGE}
    return environment


def _item(text: str, indent: str = "  ") -> str:
    """Wrap an entry of a list; a path longer than a line stays whole, to be copied."""
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _shown_path(path: str | os.PathLike[str]) -> str:
    relative = os.path.relpath(path)
    return os.fspath(path) if relative.startswith(os.pardir) else relative


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
