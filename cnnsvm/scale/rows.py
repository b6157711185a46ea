"""Blocks of inputs become rows: those of ``cnnsvm predict``, with a column or two more."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from cnnsvm.report.judging import Judge, Row, judge_pixels
from cnnsvm.scale.attempts import Attempts
from cnnsvm.scale.contents import Contents, open_block
from cnnsvm.scale.sources import Block


def judge_block(
    judge: Judge, block: Block, n_jobs: int, batch_size: int, attempts: Attempts
) -> list[Row]:
    """Judge the images of a block: rows as ``cnnsvm predict`` has them, and more columns.

    ``class`` is the most probable one and ``probability`` its own; ``coverage`` is there of one
    detector alone, too.
    """
    with open_block(block.entries, block.is_shard, judge) as contents:
        attempts.begin()
        if attempts.is_careful:
            said = _one_by_one(contents, attempts)
        else:
            said = judge_pixels(judge, contents, n_jobs, batch_size)
        return [_complete(contents, index, row) for index, row in enumerate(said)]


class _One(Sequence[np.ndarray]):
    """One image, which is not decoded yet."""

    def __init__(self, contents: Contents, index: int) -> None:
        self.contents, self.place = contents, index

    def __len__(self) -> int:
        return 1

    def __getitem__(self, _: Any) -> Any:
        return self.contents[self.place]


def _one_by_one(contents: Contents, attempts: Attempts) -> Iterator[Row]:
    """Judge images alone and note each before, so that what kills a worker is found and left."""
    for index, name in enumerate(contents.names):
        if (reason := attempts.reason_to_leave(index)) is not None:
            yield {"error": f"{name}: {reason}"}
            continue
        attempts.note(index)
        yield from judge_pixels(contents.judge, _One(contents, index), 1, 1)


def _complete(contents: Contents, index: int, row: Row) -> Row:
    judge, name = contents.judge, contents.names[index]
    said: Row = {"path": os.fsencode(name).decode(errors="backslashreplace")}
    if "error" in row:
        return said | {"error": os.fsencode(row["error"]).decode(errors="backslashreplace")}
    best = max(judge.names, key=lambda each: float(row[f"probability_{each}"]))
    stated = {"class": best, "probability": row[f"probability_{best}"]}
    return said | contents.facts[index] | row | stated | {"model": judge.model}


def to_table(judge: Judge, rows: list[Row]) -> pa.Table:
    """Make a table of rows, whose columns and types follow from the judge alone."""
    fields = [*judge.fields, "class", "probability", "coverage", "sha256", "model", "error"]
    schema = pa.schema([(name, _type(name)) for name in dict.fromkeys(fields)])
    return pa.Table.from_pylist(rows, schema)


def _type(name: str) -> pa.DataType:
    if name.startswith("was_"):
        return pa.bool_()
    return pa.float64() if name.startswith(("probability", "coverage")) else pa.string()


def encode_block(block: Block) -> pa.Table:
    """Make a block one table, in which names may be any bytes."""
    return pa.table(
        {
            "partition": [block.name] * len(block.entries),
            "path": [os.fsencode(path) for path, _ in block.entries],
            "skipped": pa.array([reason for _, reason in block.entries], pa.string()),
        }
    )


def decode_block(table: pa.Table) -> Block:
    """Read what `encode_block` made."""
    paths = [os.fsdecode(path) for path in table["path"].to_pylist()]
    entries = list(zip(paths, table["skipped"].to_pylist(), strict=True))
    return Block(table["partition"][0].as_py(), entries)
