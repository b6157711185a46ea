"""A report as a page, as text and as files: templates render, this module formats values."""

import base64
import io
import json
import logging
import math
import os
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape
from PIL import Image

from cnnsvm.data.encoding import encode_image
from cnnsvm.data.images import load_image
from cnnsvm.io.files import write_text
from cnnsvm.report.model import Cell, Report, Table
from cnnsvm.report.wording import format_interval, format_number

logger = logging.getLogger(__name__)

Loader = Callable[[str], np.ndarray]  # path -> uint8 pixels of shape (H, W, 3)

WIDTH = 98  # letters in a line of text
SHOWN_IN_TEXT, SHOWN_ON_PAGE = 10, 100  # entries of a list
_NAME_WIDTH = 24
_THUMBNAIL = 160  # pixels, at most
_BLANK = "\n\xa0\u202f"  # that text is set with, though none is printable
#: Colours of figures that the page has by name; #fdfdfd is what stays white on a dark ground.
_PAGE_COLOURS = {
    **{"#000000": "currentColor", "#ffffff": "var(--paper)", "#6b7280": "var(--soft)"},
    **{"#cccccc": "var(--line)", "#0072b2": "var(--real)", "#d55e00": "var(--fake)"},
}
_COLOUR = re.compile("|".join(_PAGE_COLOURS), re.IGNORECASE)
#: Styles that would hold for the whole page, and names that several figures have.
_UNWANTED = re.compile(r'<style.*?</style>|(?<=<g) id="[^"]*"', re.DOTALL)
_HATCHED = re.compile(r"(fill: url\([^)]*\)); fill-opacity: [\d.]+")


def render_html(report: Report) -> str:
    """Write a report as one page that needs nothing from elsewhere; all its text is escaped."""
    return _environment().get_template("page.html.j2").render(report=report)


def render_text(report: Report, files: Iterable[str | os.PathLike[str]] = ()) -> str:
    """Write a report as text for standard output, in lines of at most 98 characters.

    ``files`` are those that were written; what is below the working directory is shown relative to
    it. What would command a terminal, as in the name of a file, is escaped.
    """
    template = _environment().get_template("text.txt.j2")
    text = template.render(report=report, files=[_shown_path(path) for path in files])
    return "".join(c if c.isprintable() or c in _BLANK else ascii(c)[1:-1] for c in text)


def write_report(out: Path, report: Report) -> dict[str, Path]:
    """Write the page and the other files of a report, and return their paths by name.

    Everything is rendered first; then each file replaces its predecessor in one step, so a
    reader never meets half a file.
    """
    contents = {**report.files, f"{report.name}.html": render_html(report)}
    paths = {name: write_text(out / name, content) for name, content in contents.items()}
    logger.info("Wrote %s to %s", ", ".join(contents), out)
    return paths


def to_json(result: Mapping[str, Any]) -> str:
    """Write strict JSON: nan and infinity become null, numpy values and paths plain ones.

    A TypeError is raised if a value is of a type that JSON does not have.
    """
    return json.dumps(_plain(result), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def thumbnail(path: str, loader: Loader = load_image) -> bytes | None:
    """Shrink an image to a small JPEG; None, with a warning in the log, if it cannot be read."""
    try:
        return encode_jpeg(loader(path), _THUMBNAIL)
    except (OSError, ValueError) as error:
        logger.warning("No thumbnail: %s", error)
        return None


def encode_jpeg(pixels: np.ndarray, side: int) -> bytes:
    """Encode uint8 pixels of shape (H, W, 3), shrunk to at most ``side`` both ways, as JPEG."""
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return encode_image(image, "JPEG", quality=85)


def to_svg(figure: Any, alt: str) -> Markup:
    """Write a matplotlib figure as an element of the page, which its colours follow, dark or light.

    The same figure gives the same text. ``alt`` says what it shows. What labels say is escaped by
    matplotlib.
    """
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    from matplotlib import rc_context  # `cnnsvm predict` draws nothing

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "cnnsvm"}):
        figure.savefig(buffer, format="svg", metadata=nothing)
    found = buffer.getvalue()
    found = _UNWANTED.sub("", found[found.index("<svg") :])
    # matplotlib gives lines and ground of a hatching one opacity, so that they look alike
    found = _HATCHED.sub(r"\1", found).replace(
        'height="73" fill=', 'height="73" fill-opacity="0.3" fill='
    )
    found = _COLOUR.sub(lambda match: _PAGE_COLOURS[match[0].lower()], found)
    return Markup(found.replace("<svg", f'<svg role="img" aria-label="{escape(alt)}"', 1))


def format_cell(value: Any, *, short: bool = False) -> str:
    """Write a value of a table; of an interval only the value if ``short``."""
    if isinstance(value, (str, Cell)):
        return value if isinstance(value, str) else value.text
    if isinstance(value, Mapping):
        return format_number(value.get("value")) if short else format_interval(value)
    return f"{value:,}" if isinstance(value, (int, np.integer)) else format_number(value)


def aligned(table: Table) -> str:
    """Write a table as text: names and prose to the left, numbers to the right.

    A name of more than 24 characters gets a line of its own. What is wider than a line has its
    headers broken, then intervals shortened to their values, from the last column on, and then
    columns of prose left out.
    """
    names = [format_cell(row[0]) for row in table.rows]
    columns = [[format_cell(row[i]) for row in table.rows] for i in range(len(table.headers))]
    columns[0] = ["" if len(name) > _NAME_WIDTH else name for name in names]
    headers = [[header] for header in table.headers]
    if _width(headers, columns) > WIDTH:
        headers = [_broken(*pair) for pair in zip(table.headers, columns, strict=True)]
    for i in reversed(range(1, len(headers))):
        if _width(headers, columns) > WIDTH:
            columns[i] = [format_cell(row[i], short=True) for row in table.rows]
            headers[i] = _broken(table.headers[i], columns[i])
    for i in reversed(range(1, len(headers))):
        if _width(headers, columns) > WIDTH and table.headers[i] in table.prose:
            del headers[i], columns[i]
    whole = [[" ".join(header)] for header in headers]
    headers = whole if _width(whole, columns) <= WIDTH else headers
    height = max(map(len, headers))
    padded = [
        _padded([""] * (height - len(header)) + header + column, i == 0 or is_prose)
        for i, (header, column) in enumerate(zip(headers, columns, strict=True))
        for is_prose in [" ".join(header) in table.prose]
    ]
    lines = ["  " + "  ".join(cells).rstrip() for cells in zip(*padded, strict=True)]
    for i in reversed(range(len(names))):
        if len(names[i]) > _NAME_WIDTH:
            lines.insert(height + i, f"  {names[i]}")
    return "\n".join(line for line in lines if line.strip())


def _broken(header: str, cells: Sequence[str]) -> list[str]:
    """Break a header over lines that are as wide as its column."""
    width = max(map(len, [*cells, *header.split()]), default=1)
    return textwrap.wrap(header, width, break_long_words=False) or [""]


def _width(headers: Sequence[list[str]], columns: Sequence[list[str]]) -> int:
    pairs = zip(headers, columns, strict=True)
    return sum(2 + max(map(len, header + column)) for header, column in pairs)


def _padded(cells: Sequence[str], to_the_left: bool) -> list[str]:
    width = max(map(len, cells))
    return [cell.ljust(width) if to_the_left else cell.rjust(width) for cell in cells]


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
        "svg": to_svg,
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
