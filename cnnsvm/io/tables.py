"""CSV of which every value can be read back, whatever a file is named."""

import csv
import io
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def csv_line(values: Iterable[object]) -> str:
    """Return a row of CSV with its end; a value that has a carriage return is quoted too."""
    line = io.StringIO(newline="")
    csv.writer(line, lineterminator="\r\n").writerow(values)
    return line.getvalue().removesuffix("\r\n") + "\n"


def whole_rows(text: str) -> list[dict[str, str]]:
    """Return the rows of CSV that have every column; none behind what cannot be read."""
    rows: list[dict[str, str]] = []
    with suppress(csv.Error):  # a field without an end
        for row in csv.DictReader(io.StringIO(text, newline="")):
            if None not in row and None not in row.values() and "\0" not in "".join(row.values()):
                rows.append(row)
    return rows


def to_csv(rows: "pd.DataFrame") -> str:
    """Write rows as CSV, without the index."""
    text = rows.to_csv(index=False, lineterminator="\n")
    if "\r" in text:
        text = rows.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    return text
