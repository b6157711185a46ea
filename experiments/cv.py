"""The main job, `cnnsvm cv`: from images to a report that can be believed.

python experiments/cv.py                                  the embedded samples
python experiments/cv.py --data records.zip               records with originals and fakes
python experiments/cv.py --data photos --generate opencv-telea
"""

import sys

from cnnsvm import cli


def main(argv: list[str] | None = None) -> int:
    """Run from the command line and return the exit status."""
    return cli.main(["cv", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    raise SystemExit(main())
