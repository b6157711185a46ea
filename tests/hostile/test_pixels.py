"""Files that would take the memory or the time, or that lie about what is in them."""

import contextlib
import io
import os
import struct
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from cnnsvm.data import decoding
from cnnsvm.data.images import (
    ImageError,
    has_frames,
    image_hash,
    image_sides,
    load_image,
    read_header,
)
from cnnsvm.data.jpeg_xl import jpeg_xl_size

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF", "JPEG2000", "PPM", "JXL")
READERS = (load_image, read_header, image_sides, image_hash)


def draw_image(height=60, width=90):
    rng = np.random.default_rng(0)
    ramp = np.add.outer(np.arange(height), np.arange(width))[:, :, None] * np.array([1, 2, 1])
    return (ramp + rng.integers(0, 40, (height, width, 3))).clip(0, 255).astype(np.uint8)


def encode(format, pixels=None, **options):
    buffer = io.BytesIO()
    Image.fromarray(draw_image() if pixels is None else pixels).save(buffer, format, **options)
    return buffer.getvalue()


def chunk(kind, data, right=True):
    checksum = zlib.crc32(kind + data) ^ (0 if right else 1)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def png_with(extra, behind=False):
    """A PNG with a chunk in front of its pixels, or behind them."""
    data = encode("PNG")
    place = data.rindex(b"IEND") - 4 if behind else 33
    return data[:place] + extra + data[place:]


@pytest.mark.parametrize("size", [(1, 50_000_000), (50_000_000, 1), (2, 150_000)])
def test_a_side_that_no_wrapping_could_hold_is_refused_unseen(size):
    header = struct.pack(">IIBBBBB", *size, 1, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    data = b"\x89PNG\r\n\x1a\n" + chunks
    with pytest.raises(ImageError, match="a side of more than 100,000 pixels"):
        load_image(data)


def test_scans_without_end_are_refused():
    data = encode("JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    assert load_image(data).shape == (60, 90, 3)
    with pytest.raises(ImageError, match=r"2\d\d scans of 90x60 pixels; at most 100"):
        load_image(data[:-2] + 200 * data[last:-2] + data[-2:])


def test_scans_of_a_large_image_count_more(monkeypatch):
    content = encode("JPEG", progressive=True)
    n_scans = content.count(b"\xff\xda")
    monkeypatch.setattr(decoding, "USUAL_SCANS", n_scans - 1)
    monkeypatch.setattr(decoding, "MAX_SCANNED", n_scans * 60 * 90)
    load_image(content)
    monkeypatch.setattr(decoding, "MAX_SCANNED", n_scans * 60 * 90 - 1)
    with pytest.raises(ImageError, match="pixels in all"):
        load_image(content)


@pytest.mark.parametrize("read", [load_image, read_header, image_sides])
def test_chunks_of_a_png_are_counted_before_pillow_reads_them(read, monkeypatch):
    monkeypatch.setattr(decoding, "MAX_CHUNKS", 50)
    read(png_with(chunk(b"IDAT", b"") * 40))
    with pytest.raises(ImageError, match="50 chunks"):
        read(png_with(chunk(b"IDAT", b"") * 60))
    with pytest.warns(UserWarning, match="metadata"):
        read(png_with(chunk(b"tEXt", b"a\0b") * 60))


@pytest.mark.parametrize("between", [b"\xff", b"a", b"\xff\xfe\0\2", b"\xff\xd0"])
def test_the_head_of_a_jpeg_is_not_read_byte_by_byte_for_long(between, monkeypatch):
    monkeypatch.setattr(decoding, "MAX_CHUNKS", 100)
    monkeypatch.setattr(decoding, "_MOST_LEFT_OUT", 1000)
    content, opened = encode("JPEG"), []
    opens = Image.open

    def note(stream, **options):
        opened.append(len(stream.getvalue()))
        return opens(stream, **options)

    monkeypatch.setattr(Image, "open", note)
    for n_bytes in (200, 10_000):
        with warnings.catch_warnings(), contextlib.suppress(ImageError):
            warnings.simplefilter("ignore")  # that they were left out
            load_image(content[:2] + between * (n_bytes // len(between)) + content[2:])
    assert all(length < len(content) + 201 for length in opened)


@pytest.mark.parametrize("read", [load_image, read_header])
@pytest.mark.parametrize("format", ["JPEG", "WEBP", "AVIF", "JPEG2000", "JXL"])
def test_what_is_read_whole_is_not_huge(read, format, monkeypatch):
    content = encode(format)
    monkeypatch.setattr(decoding, "MAX_WHOLE", len(content))
    read(content)
    with pytest.raises(ImageError, match="read whole"):
        read(content + b"\0")


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP", "PPM"])
def test_what_is_read_as_it_is_decoded_may_be(format, monkeypatch):
    monkeypatch.setattr(decoding, "MAX_WHOLE", 300)
    assert load_image(encode(format)).shape == (60, 90, 3)


def test_no_chunk_of_a_png_but_pixels_is_huge(monkeypatch):
    monkeypatch.setattr(decoding, "MAX_WHOLE", 300)
    load_image(png_with(chunk(b"prVt", bytes(300))))
    for behind in (False, True):
        with pytest.raises(ImageError, match="one of over 300 bytes"):
            load_image(png_with(chunk(b"prVt", bytes(301)), behind))


def test_a_head_of_netpbm_is_short_and_text_is_not_for_large_images(monkeypatch):
    pixels = bytes(range(12))
    for head in (b"P6 2 2 255\n", b"P6\n# a comment\n2\t2 # another\n255\n"):
        np.testing.assert_array_equal(load_image(head + pixels).ravel(), list(pixels))
    for filler in (b"#" + b"a" * 5000 + b"\n", b" " * 5000):
        with pytest.raises(ImageError, match="without its size"):
            load_image(b"P6 " + filler + b"2 2 255\n" + pixels)
    text = b"P3 2 2 255\n" + b" ".join(str(n).encode() for n in pixels)
    np.testing.assert_array_equal(load_image(text).ravel(), list(pixels))
    monkeypatch.setattr(decoding, "MAX_TEXT", len(text) - 1)
    with pytest.raises(ImageError, match="as text"):
        load_image(text)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}])
def test_our_cap_holds_and_not_pillows(format, options, monkeypatch):
    content = encode(format, **(options if format == "TIFF" else {}))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert load_image(content).shape == (60, 90, 3)


def test_a_webp_takes_more_memory_and_has_a_lower_cap():
    content = encode("WEBP")
    assert load_image(content, max_pixels=60 * 90 * 3 // 2).shape == (60, 90, 3)
    with pytest.raises(ImageError, match="more than the cap"):
        load_image(content, max_pixels=60 * 90 * 3 // 2 - 2)


@pytest.mark.parametrize("format", ["TIFF", "GIF"])  # others say it in the header
def test_frames_are_not_counted(format, monkeypatch):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, format, save_all=True, append_images=frames[1:])
    kind = type(Image.open(io.BytesIO(buffer.getvalue())))
    monkeypatch.setattr(kind, "n_frames", property(lambda self: 1 / 0), raising=False)
    with pytest.warns(UserWarning, match="several frames"):
        assert load_image(buffer.getvalue()).shape == (16, 16, 3)


@pytest.mark.parametrize("read", READERS)
def test_what_is_no_regular_file_does_not_block(read, tmp_path):
    os.mkfifo(tmp_path / "photo.png")
    for place in (tmp_path / "photo.png", "/dev/zero"):
        with pytest.raises(ImageError, match="a pipe, socket or device"):
            read(place)


@pytest.mark.parametrize("read", READERS)
def test_a_file_is_measured_before_it_is_read(read, tmp_path):
    huge = tmp_path / "huge.png"
    with open(huge, "wb") as stream:
        stream.truncate(decoding.MAX_BYTES + 1)  # sparse
    with pytest.raises(ImageError, match=r"huge.png: a file of 2,147,483,649 bytes"):
        read(huge)
    (tmp_path / "empty.png").touch()
    with pytest.raises(ImageError, match=r"empty.png: a file of 0 bytes"):
        read(tmp_path / "empty.png")


def test_memory_that_ends_is_an_error_of_that_image_with_a_reason(monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr("cnnsvm.data.images.to_rgb", fail)
    with pytest.raises(ImageError, match=": MemoryError"):
        load_image(encode("PNG"))


def test_two_hundred_megapixels_are_admitted_without_a_warning(tmp_path):
    Image.new("L", (20_000, 10_000)).save(tmp_path / "a.png")
    assert image_sides(tmp_path / "a.png") == (10_000, 20_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nor does Pillow's own cap say anything
        assert read_header(tmp_path / "a.png").width == 20_000
    assert Image.MAX_IMAGE_PIXELS is not None


@pytest.mark.parametrize("quality", [5, 50, 75, 90, 100])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("size", [(60, 90), (61, 91), (7, 1), (1, 9), (16, 33)])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}])
def test_a_jpegs_pixels_are_pillows(quality, subsampling, size, options):
    data = encode("JPEG", draw_image(*size), quality=quality, subsampling=subsampling, **options)
    np.testing.assert_array_equal(load_image(data), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_jpegs_of_other_colours_are_pillows_too(mode):
    buffer = io.BytesIO()
    options = {"keep_rgb": True} if mode == "RGB" else {}
    Image.fromarray(draw_image()).convert(mode).save(buffer, "JPEG", **options)
    expected = np.asarray(Image.open(buffer).convert("RGB"))
    np.testing.assert_array_equal(load_image(buffer.getvalue()), expected)


@pytest.mark.parametrize("spoil", ["cut", "zeroed", "cut and closed"])
def test_a_jpeg_that_lacks_pixels_is_no_grey_image(spoil):
    data = encode("JPEG", quality=95)
    half = len(data) // 2
    spoilt = {
        "cut": data[:half],
        "cut and closed": data[:half] + b"\xff\xd9",
        "zeroed": data[:half] + bytes(400) + data[half + 400 :],
    }[spoil]
    for image in (spoilt, Image.open(io.BytesIO(spoilt))):
        with pytest.raises(ImageError, match="get it again"):
            load_image(image)


def test_an_image_that_is_opened_stays_as_it_was():
    data = encode("JPEG")
    expected = load_image(data)
    opened = Image.open(io.BytesIO(data))
    np.testing.assert_array_equal(load_image(opened), expected)
    np.testing.assert_array_equal(np.asarray(opened), expected)  # and is read by Pillow afterwards
    reduced = Image.open(io.BytesIO(data))
    reduced.draft("RGB", (45, 30))
    assert load_image(reduced).shape == (30, 45, 3)
    frames = io.BytesIO()
    second = Image.fromarray(255 - draw_image())
    Image.fromarray(draw_image()).save(frames, "MPO", save_all=True, append_images=[second])
    several = Image.open(frames)
    several.seek(1)
    assert np.abs(load_image(several).astype(int) - np.asarray(second)).mean() < 15


def test_a_gif_of_many_bytes_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "a.gif"
    path.write_bytes(encode("GIF"))
    assert load_image(path).shape == (60, 90, 3)
    with open(path, "r+b") as stream:
        stream.truncate(decoding.MAX_GIF + 1)  # sparse
    with pytest.raises(ImageError, match="GIF of 67,108,865 bytes, more than 67,108,864"):
        load_image(path)


@pytest.mark.parametrize("where", [2, 20])  # before and behind the first segment
@pytest.mark.parametrize(
    "junk", [b"junk", b"\xff\xff\0junk", b"\xff\xe2\0\x0eICC_PROFILE\0", b"\xff\xfe\0\x04hi"]
)
def test_a_bad_head_of_a_jpeg_blocks_no_pixels(junk, where):
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encode("JPEG", exif=exif)
    broken = content[:where] + junk + content[where:]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_array_equal(load_image(broken), load_image(content))
        assert read_header(broken).upright_size == (60, 90)


def test_bytes_between_segments_of_a_jpeg_are_no_damage():
    data = encode("JPEG")
    np.testing.assert_array_equal(load_image(data[:-2] + bytes(9) + data[-2:]), load_image(data))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_what_is_missing_is_not_filled_whatever_the_process_asks_for(format, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = encode(format)
    with pytest.raises(ImageError):
        load_image(data[: int(0.7 * len(data))])
    assert load_image(data).shape == (60, 90, 3)
    with pytest.raises(OSError):  # noqa: PT011 - of one that is opened, and not yet read
        load_image(Image.open(io.BytesIO(encode(format)[:-200])))
    assert ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"iCCP", b"tIME"])
@pytest.mark.parametrize("right", [True, False])
def test_bad_metadata_of_a_png_block_no_pixels(kind, right, behind):
    data = png_with(chunk(kind, b"\x00\xff nonsense \x00", right), behind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_array_equal(load_image(data), draw_image())
        assert image_sides(data) == (60, 90)
        assert read_header(data).width == 90


def test_metadata_that_were_ignored_are_mentioned():
    with pytest.warns(UserWarning, match="metadata cannot be read"):
        load_image(png_with(chunk(b"tEXt", b"a\x00b", right=False)))


@pytest.mark.parametrize(
    "exif", [b"Exif\x00\x00nonsense", b"Exif\x00\x00II*\x00\xff\xff\xff\x7f", b""]
)
@pytest.mark.parametrize("format", ["JPEG", "WEBP", "PNG"])
def test_bad_exif_blocks_no_pixels(exif, format):
    options = {"lossless": True} if format == "WEBP" else {}
    data = encode(format, exif=exif, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = load_image(data)
        assert read_header(data).orientation == 1
    np.testing.assert_array_equal(found, load_image(encode(format, **options)))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_the_bytes_there_is_an_image_or_an_image_error(data):
    whole = SAMPLES[data.draw(st.sampled_from(FORMATS))]
    spoilt = bytearray(whole[: data.draw(st.integers(1, len(whole)))])
    for _ in range(data.draw(st.integers(0, 5))):
        place = data.draw(st.integers(0, min(len(spoilt), 400) - 1))
        spoilt[place] = data.draw(st.integers(0, 255))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for read in (load_image, read_header, image_sides):
            with contextlib.suppress(ImageError):
                found = read(bytes(spoilt))
                assert read is not load_image or (found.dtype == np.uint8 and found.ndim == 3)


SAMPLES = {format: encode(format) for format in FORMATS}


def test_heic_is_read_where_the_extra_is_installed():
    pillow_heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(draw_image())).save(buffer, quality=95)
    difference = np.abs(load_image(buffer.getvalue()).astype(int) - draw_image())
    assert difference.mean() < 12


@pytest.mark.parametrize("size", [(8, 8), (64, 40), (65, 40), (300, 200), (1, 700), (9000, 3)])
@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("boxed", [True, False])
def test_the_size_of_a_jpeg_xl_is_known_before_it_is_decoded(size, lossless, boxed, monkeypatch):
    image = draw_image(*size[::-1])
    exif = Image.Exif()
    exif[0x0112] = 1
    options = {"exif": exif.tobytes()} if boxed else {}
    content = encode("JXL", image, lossless=lossless, **options)
    assert jpeg_xl_size(io.BytesIO(content)) == size
    assert load_image(content).shape == image.shape
    if lossless:
        np.testing.assert_array_equal(load_image(content), image)
    monkeypatch.setattr(Image, "open", pytest.fail)
    with pytest.raises(ImageError, match="more than the cap"):
        load_image(content, max_pixels=size[0] * size[1] - 1)


def test_the_head_of_a_jpeg_xl_is_read_without_decoding_whatever_the_cap(monkeypatch):
    content = encode("JXL", lossless=True)  # who decoded it was given another cap
    monkeypatch.setenv("CNNSVM_MAX_PIXELS", "9")
    monkeypatch.setattr(Image, "open", pytest.fail)
    assert image_sides(content) == tuple(sorted(draw_image().shape[:2]))
    assert not has_frames(content)


@pytest.mark.parametrize("length", [0, 1, 7])
def test_a_jpeg_xl_whose_boxes_lead_nowhere_is_refused(length):
    content = encode("JXL", lossless=True, exif=b"Exif\0\0MM\0*")
    start = content.index(b"ftyp") - 4
    broken = content[:start] + struct.pack(">I", length) + content[start + 4 :]
    with pytest.raises(ImageError, match="JPEG XL"):
        load_image(broken)


@pytest.mark.parametrize("quality", [90, 99])
def test_an_end_that_was_zeroed_is_no_filling(quality):
    """Zeros are pixels too: the decoder is done before they end, as before what cameras add."""
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    data = encode("JPEG", noise, quality=quality)
    for share in (0.5, 0.9, 0.99):
        start = int(share * len(data))
        with pytest.raises(ImageError, match="get it again"):
            load_image(data[:start] + bytes(len(data) - start - 2) + data[-2:])


@pytest.mark.parametrize("spoil", ["cut and closed", "zeroed"])
def test_a_jpeg_of_inks_that_lacks_pixels_is_no_grey_image(spoil):
    buffer = io.BytesIO()
    Image.fromarray(draw_image()).convert("CMYK").save(buffer, "JPEG", quality=95)
    data, half = buffer.getvalue(), len(buffer.getvalue()) // 2
    rest = b"\xff\xd9" if spoil == "cut and closed" else bytes(400) + data[half + 400 :]
    with pytest.raises(ImageError, match="get it again"):
        load_image(data[:half] + rest)


def test_a_png_whose_pixels_have_changed_is_refused():
    """Stored without compression, any pixel may be another; Pillow does not look."""
    data = bytearray(encode("PNG", compress_level=0))
    place = data.index(b"IDAT") + 200
    data[place] ^= 64
    with pytest.raises(ImageError, match="checksum of its pixels"):
        load_image(bytes(data))
    with pytest.raises(ImageError, match="checksum of its pixels"):
        load_image(Image.open(io.BytesIO(bytes(data))))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["TIFF", "JPEG", "PNG", "WEBP"])
def test_the_header_tells_the_size_of_the_upright_pixels(format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(format, exif=exif)
    height, width = load_image(data).shape[:2]
    header = read_header(data)
    assert header.upright_size == (width, height)
    assert (header.width, header.height) == (90, 60)
    assert ((height, width) == (90, 60)) == (orientation > 4)


@pytest.mark.parametrize("length", [64, 400])
@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"subsampling": 0}])
def test_zeros_among_the_pixels_of_a_jpeg_are_damage(options, length):
    """After them a decoder often ends where it should, and finds nothing wrong."""
    data = encode("JPEG", quality=92, **options)
    for start in range(700, len(data) - length - 9, 101):
        with pytest.raises(ImageError, match="get it again"):
            load_image(data[:start] + bytes(length) + data[start + length :])


@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"progressive": True}])
@pytest.mark.parametrize("format", ["JPEG", "WEBP", "AVIF"])
def test_zeros_of_one_colour_are_none(format, options):
    image = np.full((1200, 1600, 3), 255, np.uint8)
    image[:60, :90] = draw_image()
    assert load_image(encode(format, image, **(options if format == "JPEG" else {}))).min() < 99


@pytest.mark.parametrize("compression", ["jpeg", "tiff_adobe_deflate"])
def test_a_tiff_whose_strips_have_changed_is_refused(compression):
    data = encode("TIFF", draw_image(200, 300), compression=compression)
    for start in range(len(data) // 5, len(data) - 600, len(data) // 7):
        with pytest.raises(ImageError, match=r"get it again|incomplete|decoder error"):
            load_image(data[:start] + bytes(64) + data[start + 64 :])


def test_strips_that_lie_cost_no_more_than_the_image():
    """Of 2,000 rows each is the same bomb; a JPEG inside says that it is 65,500 pixels a side."""
    bomb, head, n_rows = zlib.compress(bytes(2**26), 9), 8 + 2 + 9 * 12 + 4, 2000
    start = head + 8 * n_rows
    tags = [(256, 4, 1, 64), (257, 4, 1, n_rows), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1)]
    tags += [(273, 4, n_rows, head), (277, 3, 1, 1), (278, 4, 1, 1), (279, 4, n_rows, start - 8000)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    places = struct.pack("<I", start) * n_rows + struct.pack("<I", len(bomb)) * n_rows
    data = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + places + bomb
    assert load_image(data).max() == 0  # in hours, if each were inflated
    data = bytearray(encode("TIFF", draw_image(200, 300), compression="jpeg"))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", 65500, 65500)
    tracemalloc.start()
    with pytest.raises(ImageError):
        load_image(bytes(data))
    assert tracemalloc.get_traced_memory()[1] < 10**8
    tracemalloc.stop()


@pytest.mark.parametrize("format", ["WEBP", "AVIF", "HEIF"])
def test_a_file_that_ends_in_zeros_is_not_whole(format):
    if format == "HEIF":
        pytest.importorskip("pillow_heif")
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    data = encode(format, noise)
    assert load_image(data).shape == (200, 300, 3)
    with pytest.raises(ImageError, match="bytes of zeros"):
        load_image(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
