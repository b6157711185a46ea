"""Tables as text."""

from collections.abc import Sequence

WIDTH = 98
_NAME_WIDTH = 24


def format_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align columns: the first to the left, the others to the right.

    Parameters
    ----------
    headers : sequence of str
    rows : sequence of sequences of str
        Each as long as ``headers``. A first cell of more than 24 characters gets a line of its
        own, so that one long name does not push the numbers off the screen.

    Returns
    -------
    str
    """
    short = [list(row) for row in rows if len(row[0]) <= _NAME_WIDTH]
    cells = [list(headers), *short, *(["", *row[1:]] for row in rows if len(row[0]) > _NAME_WIDTH)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headers))]
    lines = [_line(headers, widths)]
    for row in rows:
        if len(row[0]) > _NAME_WIDTH:
            lines.append(f"  {row[0]}")
            row = ["", *row[1:]]
        lines.append(_line(row, widths))
    return "\n".join(lines)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    rest = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
    return "  " + "  ".join([row[0].ljust(widths[0]), *rest]).rstrip()
