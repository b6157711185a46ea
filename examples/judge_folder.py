"""Judge the images of a folder with all the evidence that ships, into a CSV file.

Run it as ``python examples/judge_folder.py photos verdicts.csv``.
"""

import sys
from pathlib import Path

import pandas as pd

from cnnsvm import CombinedDetector
from cnnsvm.data.scanning import list_images


def main(photos: Path, out: Path) -> None:
    """Judge ``photos`` and write a row an image to ``out``, the most suspicious first."""
    paths = list_images(photos)
    rows = CombinedDetector.from_pretrained().explain(paths)
    table = pd.concat([pd.Series(paths, name="path"), rows], axis=1)
    table = table.sort_values("no_trace")
    table.to_csv(out, index=False)
    print(table[["path", "verdict", "evidence"]].to_string(index=False))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
