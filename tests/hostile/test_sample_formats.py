"""However a file stores its samples: the pixels of the same 8-bit image, or a clear refusal.

What an independent writer, tifffile or OpenCV, was given is the truth.
"""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from cnnsvm.data.images import ImageError, load_image

rng = np.random.default_rng(0)
RAMP = np.add.outer(np.arange(48) * 5, np.arange(80) * 3)[:, :, None] * np.array([1, 2, 3]) % 256
COLOUR = (RAMP + rng.integers(-9, 9, RAMP.shape)).clip(0, 255).astype(np.uint8)
GREY = COLOUR[:, :, 0]
OPAQUE = np.full((48, 80, 1), 255, np.uint8)


def tiff(pixels, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


def scaled(pixels, dtype):
    return pixels.astype(dtype) * dtype(np.iinfo(dtype).max // 255)


def png(pixels):
    order = {2: slice(None), 3: [2, 1, 0], 4: [2, 1, 0, 3]}[
        pixels.shape[-1] if pixels.ndim == 3 else 2
    ]
    ordered = pixels[..., order] if pixels.ndim == 3 else pixels
    return cv2.imencode(".png", ordered)[1].tobytes()


def as_rgb(truth):
    return np.repeat(truth[:, :, None], 3, axis=2) if truth.ndim == 2 else truth[:, :, :3]


def check(content, truth):
    found = load_image(content).astype(int)
    assert np.abs(found - as_rgb(truth)).max() <= 1


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    ("pixels", "options"),
    [
        (GREY, {"photometric": "minisblack"}),
        (COLOUR, {"photometric": "rgb"}),
        (COLOUR, {"photometric": "rgb", "rowsperstrip": 5}),
        (COLOUR, {"photometric": "rgb", "tile": (16, 16)}),
        (np.dstack([COLOUR, OPAQUE]), {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
    ],
)
def test_tiffs_of_whole_bytes(pixels, options, dtype, compression, order):
    values = scaled(pixels, dtype).astype(np.dtype(dtype).newbyteorder(order))
    check(tiff(values, byteorder=order, compression=compression, **options), pixels)


@pytest.mark.parametrize(
    ("pixels", "options", "truth"),
    [
        (255 - GREY, {"photometric": "miniswhite"}, GREY),
        (COLOUR, {"photometric": "rgb", "bigtiff": True, "byteorder": "<"}, COLOUR),
        (np.moveaxis(COLOUR, -1, 0), {"photometric": "rgb", "planarconfig": "separate"}, COLOUR),
        (np.dstack([255 - COLOUR, 0 * OPAQUE]), {"photometric": "separated"}, COLOUR),
        (GREY > 127, {}, (GREY <= 127) * 255),  # tifffile writes white as zero
        (
            np.dstack([np.round(COLOUR * (128 / 255)).astype(np.uint8), OPAQUE // 2 + 1]),
            {"photometric": "rgb", "extrasamples": ["assocalpha"]},
            np.round(COLOUR * (128 / 255) + 127).astype(np.uint8),
        ),
    ],
)
def test_tiffs_of_other_kinds(pixels, options, truth):
    check(tiff(pixels, **options), truth)


@pytest.mark.parametrize(
    ("pixels", "options", "reason"),
    [
        ((GREY.astype(int) - 128).astype(np.int8), {}, "signed"),
        ((scaled(GREY, np.uint16).astype(int) - 32768).astype(np.int16), {}, "signed"),
        (scaled(GREY, np.uint32), {}, "32 bits"),
        ((GREY / 255).astype(np.float32), {}, "floating"),
        (65535 - scaled(GREY, np.uint16), {"photometric": "miniswhite"}, "white as zero"),
        (
            np.moveaxis(scaled(COLOUR, np.uint16), -1, 0),
            {"photometric": "rgb", "planarconfig": "separate"},
            "separate planes",
        ),
        (COLOUR, {"photometric": "cielab"}, "Lab"),
        (COLOUR.astype(np.float64), {"photometric": "rgb"}, "floating"),
        (GREY.astype(np.complex64), {}, "complex"),
    ],
)
@pytest.mark.parametrize("order", ["<", ">"])
def test_what_would_be_misread_is_refused(pixels, options, reason, order):
    values = pixels.astype(pixels.dtype.newbyteorder(order))
    with pytest.raises(ImageError, match=f"{reason}|of a kind that is read"):
        load_image(tiff(values, byteorder=order, **options))


def test_twelve_packed_bits_are_refused():
    header = tiff(np.zeros((2, 120), np.uint16), photometric="minisblack")
    with tifffile.TiffFile(io.BytesIO(header)) as opened:
        place = opened.pages[0].tags["BitsPerSample"].valueoffset
    with pytest.raises(ImageError, match="12 bits"):
        load_image(header[:place] + b"\x0c\x00" + header[place + 2 :])


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_tile_is_no_way_to_memory(compression):
    content = bytearray(tiff(COLOUR, photometric="rgb", tile=(64, 80), compression=compression))
    with tifffile.TiffFile(io.BytesIO(bytes(content))) as opened:
        for name in ("TileWidth", "TileLength"):
            place = opened.pages[0].tags[name].valueoffset
            content[place : place + 2] = (20_000).to_bytes(2, "little")
    with pytest.raises(ImageError, match="400,000,000 pixels"):
        load_image(bytes(content))


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("pixels", [GREY, COLOUR])
@pytest.mark.parametrize("encode", [tiff, png])
def test_fewer_bits_in_sixteen_are_no_dark_image(bits, pixels, encode):
    values = np.round(pixels / 255 * (2**bits - 1)).astype(np.uint16)
    with pytest.raises(ImageError, match="10, 12 or 14 bits in 16"):
        load_image(encode(values))
    check(encode(values << (16 - bits)), pixels)


def test_few_bits_of_opacity_are_no_transparent_image():
    values = np.dstack([COLOUR, OPAQUE]).astype(np.uint16) * 4  # 10 bits
    with pytest.raises(ImageError, match="10, 12 or 14 bits in 16"):
        load_image(png(values))


@pytest.mark.parametrize("mode", ["I", "I;16", "LAB"])
def test_images_in_memory_are_held_to_the_same(mode):
    if mode == "LAB":
        image = Image.frombytes("LAB", (80, 48), COLOUR.tobytes())
    else:
        image = Image.fromarray((GREY * 4.0).astype({"I": np.int32, "I;16": np.uint16}[mode]))
    with pytest.raises(ImageError, match=r"Lab|10, 12 or 14 bits"):
        load_image(image)


@pytest.mark.parametrize("bits", [4, 16])
def test_a_transparent_grey_of_other_bits_is_refused(bits):
    """Pillow compares it with pixels that it has brought to 8 bits, or not at all."""
    head = struct.pack(">IIBBBBB", 8, 2, bits, 0, 0, 0, 0)
    rows = 2 * (b"\0" + bytes(range(bits)))
    chunks = [(b"IHDR", head), (b"tRNS", b"\0\1"), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    with pytest.raises(ImageError, match=f"transparent colour of {bits} bits"):
        load_image(content)


@pytest.mark.parametrize(
    "pixels", [GREY, COLOUR, np.dstack([COLOUR, OPAQUE])], ids=["grey", "colour", "alpha"]
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pngs(pixels, dtype):
    check(png(scaled(pixels, dtype)), pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_jpeg_2000_in_colour_is_read_with_eight_bits_only(dtype):
    lossless = [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000]
    content = cv2.imencode(".jp2", scaled(COLOUR[:, :, ::-1], dtype), lossless)[1].tobytes()
    if dtype is np.uint16:  # Pillow wraps its white round to black
        with pytest.raises(ImageError, match="16-bit"):
            load_image(content)
    else:
        assert np.abs(load_image(content).astype(int) - COLOUR).mean() < 4


@pytest.mark.parametrize("most", [1, 15, 100, 255, 1000, 4095, 65535])
def test_netpbm_of_any_range(most):
    values = np.round(COLOUR / 255 * most)
    header = f"P6\n80 48\n{most}\n".encode()
    content = header + values.astype("u1" if most < 256 else ">u2").tobytes()
    check(content, np.round(values / most * 255).astype(np.uint8))


def test_a_thumbnail_in_front_of_an_image_is_not_judged_for_it():
    with pytest.raises(ImageError, match="in front of the image"):
        load_image(tiff(COLOUR[::4, ::4].copy(), photometric="rgb", subfiletype=1))


def test_a_palette_of_eight_bits_is_no_black_image():
    numbers = (GREY // 16).astype(np.uint8)
    colours = np.repeat((np.arange(256, dtype=np.uint16) * 16 % 256)[None], 3, axis=0)
    options = {"photometric": "palette"}
    check(tiff(numbers, colormap=colours * 257, **options), numbers * 16)
    with pytest.raises(ImageError, match="palette of 8 bits"):
        load_image(tiff(numbers, colormap=colours, **options))


@pytest.mark.parametrize("bits", [4, 9])
def test_a_jpeg_2000_of_odd_bits_is_refused(bits):
    """Pillow makes 240 of the white of 4 bits, and wraps the white of 9 round to black."""
    content = bytearray(cv2.imencode(".jp2", GREY)[1].tobytes())
    for place in (content.index(b"ihdr") + 14, content.index(b"\xff\x4f\xff\x51") + 42):
        assert content[place] == 7
        content[place] = bits - 1
    with pytest.raises(ImageError, match=f"{bits}-bit"):
        load_image(bytes(content))
