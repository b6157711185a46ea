"""Put paintings together from the puzzles of an educational game, to train on.

    python experiments/collect_paintings.py UNPACKED/usr/share/gcompris-qt/rcc --out webmuseum

UNPACKED is the Debian package gcompris-qt-data 3.1-2. Its paintings (WebMuseum, GPL-3+) are cut
into the pieces of jigsaw puzzles, WebP with transparent edges; a few more lie there whole.
"""

import argparse
import io
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from cnnsvm.data.encoding import write_image
from scripting import make_parser, run_script

PIECE = re.compile(
    r'"pixmapfile"\s*:\s*"([^"]+)"[^}]*?"x"\s*:\s*"([\d.]+)"[^}]*?"y"\s*:\s*"([\d.]+)"'
)
WHOLE = re.compile(r"(Gogh|Tanguy).*_background\.webp$")
HEIGHT = 520  # pixels, of a board; its width differs, and is found by leaving no gap
WIDTHS = range(800, 560, -4)
GAP = 0.003  # share of the pixels


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    parser.add_argument("folder", type=Path, help="folder of paintings.rcc and details.rcc")
    parser.add_argument("--out", type=Path, required=True, help="folder of the paintings")
    return parser.parse_args(argv)


def read_resources(file: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each file in a Qt resource file of version 3."""
    raw = file.read_bytes()
    if raw[:4] != b"qres":
        raise ValueError(f"{file} is no resource file of Qt. Name the package's folder rcc.")
    _, tree, data, names = struct.unpack(">4I", raw[4:20])

    def walk(number: int, above: str) -> Iterator[tuple[str, bytes]]:
        entry = tree + 22 * number
        offset, flags = struct.unpack(">IH", raw[entry : entry + 6])
        length = struct.unpack(">H", raw[names + offset : names + offset + 2])[0]
        start = names + offset + 6
        name = raw[start : start + 2 * length].decode("utf-16-be") if number else ""
        if flags & 2:  # a folder
            count, first = struct.unpack(">II", raw[entry + 6 : entry + 14])
            for child in range(first, first + count):
                yield from walk(child, f"{above}/{name}")
            return
        place = data + struct.unpack(">I", raw[entry + 10 : entry + 14])[0]
        content = raw[place + 4 : place + 4 + struct.unpack(">I", raw[place : place + 4])[0]]
        yield f"{above}/{name}", zlib.decompress(content[4:]) if flags & 1 else content

    yield from walk(0, "")


def assemble(pieces: list[tuple[Image.Image, float, float]]) -> Image.Image | None:
    """Lay pieces by their centres, as shares of a board; None if no width closes the gaps."""
    for width in WIDTHS:
        board = Image.new("RGBA", (WIDTHS.start + 100, HEIGHT + 100))
        for image, x, y in pieces:
            left, top = round(x * width - image.width / 2), round(y * HEIGHT - image.height / 2)
            board.alpha_composite(image, (max(0, left), max(0, top)))
        cut = board.crop(board.getchannel("A").getbbox())
        if (np.asarray(cut.getchannel("A")) <= 128).mean() < GAP:
            return cut.convert("RGB")
    return None


def run(args: argparse.Namespace) -> int:
    """Write every painting as PNG."""
    files = dict(read_resources(args.folder / "paintings.rcc"))
    by_name = {Path(name).name: content for name, content in files.items()}
    found: dict[str, Image.Image | None] = {}
    for name, content in files.items():
        if "/board/" in name and name.endswith(".qml"):
            listed = PIECE.findall(content.decode())
            pieces = [(Path(piece).name, float(x), float(y)) for piece, x, y in listed]
            images = [(_open(by_name[piece]).convert("RGBA"), x, y) for piece, x, y in pieces]
            found[Path(pieces[0][0]).stem] = assemble(images)
    for name, content in read_resources(args.folder / "details.rcc"):
        if WHOLE.search(name):
            found[Path(name).stem] = _open(content).convert("RGB")
    for stem, image in found.items():
        if image is not None:
            write_image(args.out / f"{stem}.png", image, "PNG")
    gaps = [stem for stem, image in found.items() if image is None]
    left = f", {len(gaps)} whose pieces leave gaps are left out: {', '.join(gaps)}" if gaps else ""
    print(f"{args.out}: {len(found) - len(gaps)} paintings{left}")
    return 0


def _open(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def main(argv: list[str] | None = None) -> int:
    """Run from the command line and return the exit status."""
    return run_script(__file__, run, parse_arguments(argv))


if __name__ == "__main__":
    raise SystemExit(main())
