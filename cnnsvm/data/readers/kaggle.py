"""Download data sets with Kaggle's own command-line client, when it is installed."""

import io
import logging
import os
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections import deque
from pathlib import Path

from cnnsvm.data.manifest import DatasetError, MissingDataError

logger = logging.getLogger(__name__)

#: Name -> (owner/name on Kaggle, bytes that its archive may need).
DATASETS = {
    # 5,063 inpaintings and more of other kinds; the size is an upper bound, not a measurement
    "deepfakeart": ("danielmao2019/deepfakeart", 32 * 2**30),
    "cifake": ("birdy654/cifake-real-and-ai-generated-synthetic-images", 110 * 2**20),
}
TOKEN = (
    "get a token at kaggle.com/settings/api (Generate New Token) and save it as "
    "~/.kaggle/access_token, or set KAGGLE_API_TOKEN to it; an older kaggle.json belongs in "
    "~/.kaggle/ (then chmod 600 ~/.kaggle/kaggle.json)."
)
_LINES = 8  # of the client's output that an error repeats


def download(name: str, folder: str | os.PathLike[str]) -> Path:
    """Download a data set from Kaggle; a finished download is not repeated.

    The work is done by the command ``kaggle`` (``pip install kaggle``), which finds its token by
    itself and shows its progress on standard error. It resumes an interrupted download, if it was
    the client (2.2 or later) that was interrupted.

    Parameters
    ----------
    name : "deepfakeart" or "cifake"
    folder : path
        Where the archive goes; made if needed.

    Returns
    -------
    Path
        The .zip file, for `open_dataset` or `read_cifake`.

    Raises
    ------
    DatasetError
        If the name is unknown, the client is missing or fails (the message has the end of its
        output, the command, and where a token belongs), or the disk is too full.
    """
    if name not in DATASETS:
        raise DatasetError(f"name must be one of {', '.join(DATASETS)}, got {name!r}.")
    slug, n_bytes = DATASETS[name]
    target = Path(folder).absolute() / f"{slug.rpartition('/')[2]}.zip"
    if _is_finished(target):
        logger.info("%s: downloaded before", target)
        return target
    arguments = ["datasets", "download", "-d", slug, "-p", str(target.parent)]
    command = shlex.join(["kaggle", *arguments])
    client = _find_client(command)
    target.parent.mkdir(parents=True, exist_ok=True)
    _check_space(target, n_bytes, command)
    status, output = _run([client, *arguments])
    if status or not _is_finished(target):
        raise DatasetError(_explain(command, status, output, target))
    return target


def _find_client(command: str) -> str:
    # Beside the interpreter too: .venv/bin/cnnsvm is often run without activating .venv.
    places = os.environ.get("PATH", os.defpath) + os.pathsep + str(Path(sys.executable).parent)
    client = shutil.which("kaggle", path=places)
    if client is None:
        # six: kaggle 2.2.4 imports it and gets it from nowhere since python-dateutil 4
        raise MissingDataError(
            "the command kaggle, Kaggle's own client, is not installed. Install it with\n"
            f"  {shlex.quote(sys.executable)} -m pip install kaggle six\n"
            "and run this again; or download where it is installed, with\n"
            f"  {command}\nWhere the client needs a token: {TOKEN}"
        )
    return client


def _check_space(target: Path, n_bytes: int, command: str) -> None:
    needed = n_bytes - (target.stat().st_size if target.is_file() else 0)
    free = shutil.disk_usage(target.parent).free
    if free < needed:
        raise DatasetError(
            f"{target.parent}: {free:,} bytes are free, {target.name} may need {needed:,}. Name a "
            f"folder on a larger disk, or, to try all the same:\n  {command}"
        )


def _run(command: list[str]) -> tuple[int, list[str]]:
    """Run the client, pass its output on to standard error, and return its status and its end."""
    # A token is not asked for first: newer clients need none for public data, older ones say so.
    quiet = [] if sys.stderr.isatty() else ["-q"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    end: deque[str] = deque(maxlen=_LINES)
    pipe, closed = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(
        command + quiet, stdin=closed, stdout=pipe, stderr=subprocess.STDOUT, env=environment
    ) as client:
        assert client.stdout is not None
        try:
            # newline="": a progress bar ends its lines by a carriage return
            for line in io.TextIOWrapper(client.stdout, "utf-8", "replace", newline=""):
                sys.stderr.write(line)
                sys.stderr.flush()
                end.extend([line.strip()] if line.strip() else [])
        except BaseException:
            client.terminate()  # a keyboard interrupt may have reached only this process
            raise
    return client.returncode, list(end)


def _is_finished(target: Path) -> bool:
    """Tell whether an archive is whole: its list of contents stands at its very end."""
    if target.with_name(target.name + ".kaggle-partial").exists():  # the client's own mark
        return False
    try:
        with zipfile.ZipFile(target):
            return True
    except (OSError, zipfile.BadZipFile):
        return False


def _explain(command: str, status: int, output: list[str], target: Path) -> str:
    failed = f"ended with status {status}"
    return "\n".join(
        [
            command,
            (failed if status else f"ended, but {target} is no complete archive") + ":",
            *(f"  {line}" for line in output),
            f"Where a token is missing, wrong or expired: {TOKEN}",
            f"Then run the same again to resume. If that fails too, delete {target}.",
        ]
    )
