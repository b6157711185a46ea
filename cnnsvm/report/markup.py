"""HTML by hand: whatever is not marked as HTML is escaped."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any


class Html(str):
    """Text that is HTML already and is not escaped again."""


def html(value: Any) -> Html:
    """Escape text, quotes included; leave HTML as it is."""
    return value if isinstance(value, Html) else Html(escape(str(value)))


def element(tag: str, *content: Any, **attributes: Any) -> Html:
    """Write an element.

    Parameters
    ----------
    tag : str
    *content
        Escaped unless it is :class:`Html`.
    **attributes
        Values are escaped; ``class_`` stands for ``class``, and None leaves one out.

    Returns
    -------
    Html
    """
    written = "".join(
        f' {name.rstrip("_")}="{html(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Html(f"<{tag}{written}>{''.join(map(html, content))}</{tag}>")


def join(parts: Iterable[Any]) -> Html:
    """Concatenate parts, one a line."""
    return Html("\n".join(html(part) for part in parts))


def section(title: str, *content: Any) -> Html:
    """Write a heading and what follows; nothing at all if nothing follows."""
    filled = [part for part in content if part]
    if not filled:
        return Html("")
    return element("section", element("h2", title), join(filled))


def paragraph(*content: Any, class_: str | None = None) -> Html:
    """Write a paragraph."""
    return element("p", *content, class_=class_)


def table(headers: Sequence[str], rows: Sequence[Sequence[Any]], words: Sequence[str] = ()) -> Html:
    """Write a table that scrolls sideways where the screen is narrow.

    Parameters
    ----------
    headers : sequence of str
    rows : sequence of sequences
        Cells, escaped unless they are :class:`Html`; the first of a row is its header.
    words : sequence of str
        Headers of columns that hold prose: aligned to the left, and wrapped.

    Returns
    -------
    Html
        Empty without rows.
    """
    if not rows:
        return Html("")
    looks = ["words" if header in words else None for header in headers]
    head = [
        element("th", name, scope="col", class_=look)
        for name, look in zip(headers, looks, strict=True)
    ]
    body = []
    for row in rows:
        cells = [element("td", cell, class_=look) for cell, look in zip(row, looks, strict=True)]
        cells[0] = element("th", row[0], scope="row")
        body.append(element("tr", *cells))
    inner = element("table", element("thead", element("tr", *head)), element("tbody", join(body)))
    return element("div", inner, class_="scroll", tabindex="0")


def definitions(values: Mapping[str, Any]) -> Html:
    """Write names and values as a definition list; empty without any."""
    pairs = (element("dt", name) + element("dd", value) for name, value in values.items())
    return element("dl", join(Html(pair) for pair in pairs)) if values else Html("")


def image(data: bytes, kind: str, alt: str) -> Html:
    """Embed an image; ``kind`` is ``"png"`` or ``"jpeg"``."""
    uri = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
    return Html(f'<img src="{uri}" alt="{html(alt)}">')
