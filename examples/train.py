"""Make fakes of your photographs, train a detector on both and save it.

Run it as ``python examples/train.py photos model``.
"""

import sys
from pathlib import Path

from cnnsvm import InpaintDetector, ResidualStatistics, TunedSVC
from cnnsvm.generation import build


def main(photos: Path, model: Path) -> None:
    """Train on ``photos`` and save the detector in ``model``."""
    records = model.with_name(f"{model.name}.records")
    manifest = build(photos, records, engine="opencv-telea", schemas=["rectangles"])

    detector = InpaintDetector(
        ResidualStatistics(finetune="none", crop_size=64),
        TunedSVC(kernel="linear", n_trials=5),
        random_state=0,
    )
    detector.fit(manifest)  # a table: path, label, source_id (what each was made from), ...
    detector.save_pretrained(model)

    loaded = InpaintDetector.from_pretrained(model)
    for path, said in zip(manifest["path"][:4], loaded.verdict(manifest["path"][:4]), strict=True):
        print(f"{Path(path).name}: {('real', 'fake')[said]}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
