import io
import struct
import zlib

import numpy as np
from PIL import Image

from collect_paintings import HEIGHT, assemble, main, read_resources


def qt_resources(file, contents, compressed=()):
    """Write files into one folder of a Qt resource file of version 3."""
    names, data, tree = b"", b"", b""
    entries = [("", None), ("folder", None), *contents.items()]
    for number, (name, content) in enumerate(entries):
        offset = len(names)
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
        if content is None:
            count, first = (1, 1) if number == 0 else (len(contents), 2)
            tree += struct.pack(">IHII", offset, 2, count, first) + bytes(8)
            continue
        if name in compressed:
            content = struct.pack(">I", len(content)) + zlib.compress(content)
        tree += struct.pack(">IHII", offset, int(name in compressed), 0, len(data)) + bytes(8)
        data += struct.pack(">I", len(content)) + content
    head = struct.pack(">4s5I", b"qres", 3, 24 + len(data) + len(names), 24, 24 + len(data), 0)
    file.write_bytes(head + data + names + tree)
    return file


def test_files_come_out_as_they_went_in(tmp_path):
    contents = {"a.qml": b"some text" * 9, "b.webp": b"pixels"}
    file = qt_resources(tmp_path / "x.rcc", contents, compressed=("a.qml",))
    assert dict(read_resources(file)) == {f"//folder/{k}": v for k, v in contents.items()}


def test_another_file_is_refused(tmp_path, capsys):
    (tmp_path / "paintings.rcc").write_bytes(b"nothing")
    assert main([str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "no resource file of Qt" in capsys.readouterr().err


def halves(width):
    """The left and the right half of a painting, by their centres on a board of a width."""
    pixels = np.random.default_rng(0).integers(0, 256, (100, 200, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).convert("RGBA")
    parts = [image.crop((0, 0, 100, 100)), image.crop((100, 0, 200, 100))]
    centres = [(150 + 100 * k, 100) for k in range(2)]
    return pixels, [
        (part, x / width, y / HEIGHT) for part, (x, y) in zip(parts, centres, strict=True)
    ]


def test_pieces_are_put_together_at_the_width_that_leaves_no_gap():
    pixels, pieces = halves(700)
    np.testing.assert_array_equal(np.asarray(assemble(pieces)), pixels)


def test_pieces_that_leave_gaps_at_every_width_are_no_painting():
    _, ((left, _, y), (right, *_)) = halves(700)
    assert assemble([(left, 0.1, y), (right, 0.9, y)]) is None


def test_a_puzzle_becomes_a_file(tmp_path, capsys):
    pixels, pieces = halves(700)
    contents, listed = {}, []
    for k, (piece, x, y) in enumerate(pieces):
        buffer = io.BytesIO()
        piece.save(buffer, "PNG")
        contents[f"wave_{k}.webp"] = buffer.getvalue()
        listed.append(f'{{"pixmapfile" : "image/wave_{k}.webp", "x" : "{x}", "y" : "{y}"}}')
    board = "".join(listed).encode()
    qt_resources(tmp_path / "details.rcc", {"other.webp": b""})
    qt_resources(tmp_path / "paintings.rcc", contents | {"board.qml": board})
    assert main([str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    assert "0 paintings" in capsys.readouterr().out  # no folder of boards
    raw = (tmp_path / "paintings.rcc").read_bytes()
    named = "folder".encode("utf-16-be")
    (tmp_path / "paintings.rcc").write_bytes(raw.replace(named, "/board".encode("utf-16-be")))
    assert main([str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    found = np.asarray(Image.open(tmp_path / "out" / "wave_0.png"))
    np.testing.assert_array_equal(found, pixels)
