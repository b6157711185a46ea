"""Rows of results as text, CSV, JSON or JSON lines, to standard output or a file that resumes."""

import io
import json
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from cnnsvm.io.tables import csv_line, whole_rows

FORMATS = ("text", "csv", "json", "jsonl")
Row = dict[str, Any]
#: How a file begins that `Rows` wrote, whatever judged.
_BEGINNINGS = {"json": '[\n{"path": ', "jsonl": '{"path": '}


class Rows:
    """Writes rows as they come, each complete when the next is computed.

    Parameters
    ----------
    fields : list of str
        The columns of CSV.
    format : {"text", "csv", "json", "jsonl"}
    out : Path or None
        A file, or standard output. Rows that an earlier call wrote to it are in ``known`` by path,
        and stay if they are written again.
    sentence : callable
        Turns a row into the text of it.
    """

    def __init__(
        self, fields: list[str], format: str, out: Path | None, sentence: Callable[[Row], str]
    ) -> None:
        self.fields, self.format, self.out, self.sentence = fields, format, out, sentence
        before = [] if out is None else read_rows(out, format, ",".join(fields[:2]) + ",")
        self.known = {str(row["path"]): row for row in before}
        self.stream: IO[str] = sys.stdout
        self.n_written = 0

    def start(self, kept: Iterable[Row]) -> None:
        """Begin, with the rows that are kept of an earlier call."""
        from cnnsvm.io.files import write_text

        if self.out is None:
            self._head()
            return
        self.stream = whole = io.StringIO(newline="")
        self._head()
        for row in kept:
            self._write(row)
        write_text(self.out, whole.getvalue())  # without a row that a killed call tore
        self.stream = open(  # noqa: SIM115 - until `close`
            self.out, "a", encoding="utf-8", errors="surrogateescape", newline=""
        )

    def add(self, row: Row) -> None:
        """Write a row and hand it on."""
        self._write(row)
        self.stream.flush()

    def close(self) -> None:
        """End."""
        if self.format == "json":
            self.stream.write("\n]\n" if self.n_written else "[]\n")
        self.stream.flush()
        if self.out is not None:
            self.stream.close()

    def _head(self) -> None:
        if self.format == "csv":
            self.stream.write(csv_line(self.fields))

    def _write(self, row: Row) -> None:
        if self.format == "csv":
            self.stream.write(csv_line(row.get(name, "") for name in self.fields))
        elif self.format == "text":
            self.stream.write(self.sentence(row) + "\n")
        else:
            content = json.dumps({name: row[name] for name in self.fields if name in row})
            before = ",\n" if self.n_written else "[\n"
            self.stream.write(f"{content}\n" if self.format == "jsonl" else f"{before}{content}")
        self.n_written += 1


def read_rows(file: Path, format: str, head: str) -> list[Row]:
    """Read the whole rows of a file that `Rows` wrote; none of text, or if it is not there.

    ``head`` is how a CSV begins. A ValueError says that the file is of another format, or that it
    holds something else, which is not to be lost.
    """
    if format == "text" or not file.is_file() or not file.stat().st_size:
        return []
    text = file.read_text(encoding="utf-8", errors="surrogateescape")
    if text.startswith(("{", "[")) == (format == "csv"):
        raise ValueError(f"--out {file} holds no {format}. Choose another file or --format.")
    begins = _BEGINNINGS.get(format, head)
    if not (text.startswith(begins) or begins.startswith(text) or text == "[]\n"):
        raise ValueError(f"--out {file} holds something else. Choose another file, or delete it.")
    if format == "csv":
        return whole_rows(text)
    rows = []
    for line in text.split("\n"):
        with suppress(ValueError):  # one that a killed call tore
            rows.append(json.loads(line.rstrip(",")))
    return [row for row in rows if isinstance(row, dict)]
