"""List the detectors that ship with cnnsvm, or say what one knows."""

import argparse
from pathlib import Path


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``cnnsvm models``."""
    parser.add_argument(
        "model",
        nargs="?",
        help="print the card of one: a name of the list, a folder, or owner/name on the hub",
    )
    parser.add_argument("--revision", help="commit, tag or branch of a model on the hub")


def main(args: argparse.Namespace) -> int:
    """Print the list, or a card."""
    if args.model is not None:
        print(_card(args.model, args.revision))
        return 0
    if args.revision is not None:
        raise ValueError(f"--revision {args.revision} needs the model that it is one of.")
    for name, folder in shipped().items():
        size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file()) / 1e6
        print(f"{name:10} {size:5.1f} MB  {_summary(folder)}")
    return 0


def shipped() -> dict[str, Path]:
    """Return name and folder of what ships: detectors, the region detector, the localiser."""
    from cnnsvm.io.bundle import SHIPPED, SHIPPED_LOCALIZER, SHIPPED_REGION, holds_model

    known = SHIPPED | {"region": SHIPPED_REGION, "localizer": SHIPPED_LOCALIZER}
    return {name: folder for name, folder in known.items() if holds_model(folder)}


def _card(name: str, revision: str | None) -> str:
    from cnnsvm.detection.pretrained import find_pretrained
    from cnnsvm.io.bundle import CARD

    known = shipped()
    folder = known[name] if name in known else find_pretrained(name, revision=revision)
    card = folder / CARD
    if not card.is_file():
        raise FileNotFoundError(f"{folder} has no model card ({CARD}).")
    text = card.read_text(encoding="utf-8")
    return text.split("---\n", 2)[-1].strip() if text.startswith("---\n") else text.strip()


def _summary(folder: Path) -> str:
    """Return the first sentence of a card: of what it is."""
    from cnnsvm.io.bundle import CARD

    text = (folder / CARD).read_text(encoding="utf-8").split("---\n", 2)[-1]
    paragraphs = (" ".join(part.split()) for part in text.split("\n\n"))
    said = next((part for part in paragraphs if part and not part.startswith(("#", "-"))), "")
    return said.partition(". ")[0].rstrip(".")
