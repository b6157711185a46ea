"""Download a data set from Kaggle with its own client."""

import argparse
from pathlib import Path

#: What comes next, by data set.
_NEXT = {
    "deepfakeart": "cnnsvm cv --data {path}",
    "cifake": "cnnsvm.data.readers.read_cifake({path!r})",
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``cnnsvm download``."""
    parser.add_argument("name", choices=sorted(_NEXT), help="the data set")
    parser.add_argument("folder", type=Path, nargs="?", default=Path("data"), help="[%(default)s]")
    parser.epilog = (
        "Needs the command kaggle (pip install kaggle) and, for older versions of it, a token. "
        "An interrupted download is resumed, a finished one is not repeated."
    )


def main(args: argparse.Namespace) -> int:
    """Download, and say where the archive is and what reads it."""
    from cnnsvm.data.readers.kaggle import download

    path = download(args.name, args.folder)
    print(f"Saved in {path}. Next: {_NEXT[args.name].format(path=str(path))}")
    return 0
