"""The folder of partitions: whole files with names of their own, one job at a time."""

import io
import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from cnnsvm.io.files import clear_partials, read_json, write_bytes, write_json
from cnnsvm.scale.sources import is_remote, open_store

#: What the rows were made by; readers of Parquet folders pass over names that begin so.
JOB, LOCK = "_job.json", "_lock.json"
#: Seconds between two signs of life of a job that writes to a store, and until one counts as dead.
BEAT, DEAD = 20, 90


class OutputError(ValueError):
    """A folder that holds the rows of another job, or that another job writes to."""


class Output:
    """A folder of this machine, or of a store that fsspec writes to, that gets partitions.

    A partition appears whole under its name: by a rename here, by one upload in a store. So a file
    that is there and can be read is finished, whoever was killed when.
    """

    def __init__(self, place: str | os.PathLike[str]) -> None:
        place = os.fspath(place)
        self.remote = is_remote(place)
        self.place = place.rstrip("/") if self.remote else os.path.abspath(place)
        if self.remote:
            self.system, self.inner = open_store(self.place)

    def write(self, name: str, table: pa.Table) -> None:
        """Write a partition."""
        content = io.BytesIO()
        pq.write_table(table, content)
        if self.remote:
            self.system.pipe_file(f"{self.inner}/{name}", content.getvalue())
        else:
            write_bytes(Path(self.place, name), content.getvalue())

    def partitions(self) -> dict[str, int]:
        """Return the names of the finished partitions and their numbers of rows.

        What no partition can be read from, such as a file that a full disk has cut, is left out.
        """
        found = {}
        for name in self._names():
            try:
                with self._open(name) as stream:
                    found[name] = pq.ParquetFile(stream).metadata.num_rows
            except (pa.ArrowInvalid, OSError):
                continue
        return found

    def read(self, name: str, columns: list[str]) -> list[dict[str, Any]]:
        """Read rows of a partition."""
        with self._open(name) as stream:
            rows: list[dict[str, Any]] = pq.read_table(stream, columns=columns).to_pylist()
        return rows

    def read_note(self, name: str) -> dict[str, Any]:
        """Read values that were noted beside the partitions; none if they were not."""
        if not self.remote:
            return read_json(Path(self.place, name))
        try:
            found: dict[str, Any] = json.loads(self.system.cat_file(f"{self.inner}/{name}"))
        except FileNotFoundError:
            return {}
        return found

    def write_note(self, name: str, values: Mapping[str, Any]) -> None:
        """Note values beside the partitions."""
        if self.remote:
            self.system.pipe_file(f"{self.inner}/{name}", json.dumps(dict(values)).encode())
        else:
            write_json(Path(self.place, name), values)

    def remove_note(self, name: str) -> None:
        """Remove what was noted."""
        if self.remote:
            self.system.rm_file(f"{self.inner}/{name}")
        else:
            Path(self.place, name).unlink(missing_ok=True)

    def claim(self, job: Mapping[str, Any]) -> None:
        """Note what the rows are made by and of; an `OutputError` if there are rows of another."""
        kept = self.read_note(JOB)
        changed = sorted(k for k in kept.keys() | job.keys() if kept.get(k) != job.get(k))
        if kept and changed and self._names():
            said = ", ".join(f"{k}: {kept.get(k)!r}, not {job.get(k)!r}" for k in changed)
            raise OutputError(
                f"{self.place} holds rows of another job ({said}); nothing is mixed in. Choose "
                "another --out, the same inputs and options, or delete that folder."
            )
        if not kept and self._names():
            raise OutputError(
                f"{self.place} holds Parquet files and no {JOB}, so what made them is unknown. "
                "Choose another --out."
            )
        if not self.remote:
            clear_partials(Path(self.place))
        self.write_note(JOB, job)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Refuse (`OutputError`) to work beside another job on the same folder.

        Here a lock ends with its process. In a store there is a file that is written again every
        20 seconds; a job that left no such sign for 90 counts as dead.
        """
        if self.remote:
            with self._leased():
                yield
            return
        lock = FileLock(Path(self.place, ".lock"))
        try:
            os.makedirs(self.place, exist_ok=True)
            lock.acquire(blocking=False)
        except Timeout:
            raise OutputError(self._taken("another job on this machine")) from None
        except OSError as error:
            raise OutputError(
                f"{self.place} cannot be written ({error.strerror}). Name a folder as --out that "
                "you may write to."
            ) from error
        try:
            yield
        finally:
            lock.release()

    def _taken(self, by: str) -> str:
        return f"{self.place} is being written by {by}. Wait for it, or choose another --out."

    @contextmanager
    def _leased(self) -> Iterator[None]:
        file, ended = f"{self.inner}/{LOCK}", threading.Event()

        def sign() -> bytes:
            me = {"host": socket.gethostname(), "process": os.getpid(), "time": time.time()}
            return json.dumps(me).encode()

        def beat() -> None:
            while not ended.wait(BEAT):
                with suppress(Exception):  # of whatever store; the next sign may get through
                    self.system.pipe_file(file, sign())

        try:
            self.system.pipe_file(file, sign(), mode="create")
        except FileExistsError:
            other = json.loads(self.system.cat_file(file))
            if (age := time.time() - other["time"]) < DEAD:
                by = f"process {other['process']} of {other['host']}, seen {age:.0f} s ago"
                raise OutputError(
                    f"{self._taken(by)} If it was killed, try again in {DEAD - age:.0f} s."
                ) from None
            self.system.pipe_file(file, sign())
        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self.system.rm_file(file)

    def _names(self) -> list[str]:
        if self.remote:
            self.system.invalidate_cache()
            try:
                paths = self.system.ls(self.inner, detail=False)
            except FileNotFoundError:
                return []
        else:
            paths = os.listdir(self.place)
        names = (str(path).rpartition("/")[2] for path in paths)
        return sorted(n for n in names if n.endswith(".parquet") and not n.startswith((".", "_")))

    def _open(self, name: str) -> Any:
        if self.remote:
            return self.system.open(f"{self.inner}/{name}", "rb")
        return open(Path(self.place, name), "rb")
