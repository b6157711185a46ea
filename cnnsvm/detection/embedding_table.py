"""Embeddings in a Parquet file that grows: one row an image, written in parts, then joined."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cnnsvm.io.files import replacing

logger = logging.getLogger(__name__)

MODEL = b"cnnsvm_model"  # key of the schema's metadata
_KEYS = ("path", "sha256")


class EmbeddingTable:
    """Rows of ``path``, ``sha256`` and one float32 column a feature.

    Rows are added in parts beside the file, in the folder ``FILE.parts``, each written in one step;
    `join` makes them one file. After an interruption, `known` tells what is there already.

    Parameters
    ----------
    file : Path
    names : sequence of str
        Of the features.
    model : str
        Identifies what embeds, in the metadata of the schema.

    Raises
    ------
    ValueError
        If the file holds the embeddings of another model, or is no table of embeddings.
    """

    def __init__(self, file: Path, names: Sequence[str], model: str) -> None:
        fields = [(name, pa.string()) for name in _KEYS] + [(name, pa.float32()) for name in names]
        self.schema = pa.schema(fields, metadata={MODEL: model.encode()})
        self.file, self.parts = file, file.with_name(f"{file.name}.parts")
        for part in self._files():
            self._check(part)

    def known(self) -> set[tuple[str, str]]:
        """Return path and hash of each row."""
        return {key for part in self._files() for key in _keys(part)}

    def add(self, paths: Sequence[str], hashes: Sequence[str], embeddings: np.ndarray) -> None:
        """Write rows as a part; embeddings are float32 (n, n_features)."""
        self.parts.mkdir(parents=True, exist_ok=True)
        columns = [pa.array(paths), pa.array(hashes), *map(pa.array, embeddings.T)]
        last = max(self.parts.glob("*.parquet"), default=None)
        number = 0 if last is None else int(last.stem) + 1
        with replacing(self.parts / f"{number:08d}.parquet") as partial:
            table = pa.table(columns, schema=self.schema)
            pq.write_table(table, partial, write_page_checksum=True)

    def join(self) -> int:
        """Make one file of all rows, of each path the newest; return their number."""
        keys = [_keys(part) for part in self._files()]
        newest = {path: (i, row) for i, own in enumerate(keys) for row, (path, _) in enumerate(own)}
        if not self.parts.is_dir():
            return len(newest)
        with replacing(self.file) as partial, pq.ParquetWriter(partial, self.schema) as writer:
            for i, part in enumerate(self._files()):
                keep = [newest[path] == (i, row) for row, (path, _) in enumerate(keys[i])]
                writer.write_table(pq.read_table(part).filter(pa.array(keep)))
        shutil.rmtree(self.parts)
        return len(newest)

    def _files(self) -> list[Path]:
        whole = [self.file] if self.file.is_file() else []
        return whole + sorted(self.parts.glob("*.parquet"))

    def _check(self, part: Path) -> None:
        try:
            schema = pq.read_schema(part)
            if part != self.file:
                pq.read_table(part, page_checksum_verification=True)
        except (pa.ArrowInvalid, OSError) as error:
            if part == self.file or getattr(error, "errno", None):
                raise ValueError(
                    f"{part} is no Parquet file ({error}). Choose another name."
                ) from error
            logger.warning("%s is damaged and is embedded again: %s", part, error)
            part.unlink()
            return
        found = (schema.metadata or {}).get(MODEL, b"").decode()
        wanted = self.schema.metadata[MODEL].decode()
        if found != wanted or schema.names != self.schema.names:
            raise ValueError(
                f"{part} holds embeddings of the model {found or 'unknown'!r}, and these are of "
                f"{wanted!r}: they do not compare. Choose another file, or delete this one."
            )


def _keys(part: Path) -> list[tuple[str, str]]:
    columns = pq.read_table(part, columns=list(_KEYS)).to_pydict()
    return list(zip(columns["path"], columns["sha256"], strict=True))
