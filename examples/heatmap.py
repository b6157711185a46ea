"""Draw where the evidence lies over an image.

Run it as ``python examples/heatmap.py image.png heat.png``.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt

from cnnsvm import InpaintDetector
from cnnsvm.data.images import load_image


def main(image: Path, out: Path) -> None:
    """Write the heatmap of ``image`` over it to ``out``."""
    detector = InpaintDetector.from_pretrained()
    (verdict,) = detector.verdict([image])
    heat = detector.explain(image)  # float32 (height, width), 1 where it looks repainted

    figure, axes = plt.subplots(layout="constrained")
    axes.imshow(load_image(image))
    shown = axes.imshow(heat, cmap="inferno", alpha=0.5, vmin=0, vmax=1)
    figure.colorbar(shown, label="looks repainted")
    axes.set_title(verdict)
    axes.set_axis_off()
    figure.savefig(out, dpi=100)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
