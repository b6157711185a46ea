"""Choose the rate of false alarms on untouched images of your own, then judge others.

Run it as ``python examples/recalibrate.py untouched suspicious``.
"""

import sys
from pathlib import Path

from cnnsvm import InpaintDetector
from cnnsvm.data.scanning import list_images


def main(untouched: Path, suspicious: Path) -> None:
    """Recalibrate on ``untouched``, at least 19 images, and judge ``suspicious``."""
    detector = InpaintDetector.from_pretrained()  # traces; CombinedDetector works alike
    promise = detector.recalibrate(list_images(untouched), max_false_alarms=0.05).false_alarms_
    print(
        f"Of images like these {promise.expected:.1%} will be named fake, {promise.low:.1%} to "
        f"{promise.high:.1%} in 95 of 100 recalibrations."
    )
    paths = list_images(suspicious)
    for path, said in zip(paths, detector.verdict(paths), strict=True):
        print(f"{path}: {said}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
