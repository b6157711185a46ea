import hashlib
import io
import warnings

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from cnnsvm.data.images import (
    ImageError,
    as_image_list,
    find_bad_images,
    image_hash,
    image_name,
    image_sides,
    load_image,
    read_header,
)
from cnnsvm.data.scanning import list_images


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def encode(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def smooth(size=(64, 48)):
    ramp = np.add.outer(np.arange(size[1]) * 3, np.arange(size[0])).astype(np.uint8)
    return Image.fromarray(np.stack([ramp, ramp[::-1], 255 - ramp], axis=2))


def palette():
    image = Image.new("P", (2, 1))
    image.putpalette([9, 8, 7, 200, 100, 50])
    image.putpixel((1, 0), 1)
    return encode(image, "PNG", transparency=1)


def row(*values, mode=None, dtype=np.uint8):
    return Image.fromarray(np.array([values], dtype), mode)


def test_path_bytes_pil_and_array_agree(tmp_path, pixels):
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    for same in (path, str(path), path.read_bytes(), Image.open(path), pixels):
        loaded = load_image(same)
        np.testing.assert_array_equal(loaded, pixels)
        assert loaded.dtype == np.uint8
        assert loaded.flags.c_contiguous
        assert loaded.flags.writeable


@pytest.mark.parametrize("kind", ["colour", "grey", "pil"])
def test_the_input_is_not_changed_nor_shared(pixels, kind):
    given = {"colour": pixels, "grey": pixels[:, :, 0].copy(), "pil": Image.fromarray(pixels)}[kind]
    before = np.array(given)
    load_image(given)[:] = 0
    np.testing.assert_array_equal(np.asarray(given), before)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(tmp_path, orientation):
    image, exif = smooth(), Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.png"
    image.save(path, exif=exif)
    upright = load_image(path)
    turns = {
        **{1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1]},
        **{4: lambda a: a[::-1], 5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, -1)},
        **{7: lambda a: a[::-1, ::-1].swapaxes(0, 1), 8: np.rot90},
    }
    np.testing.assert_array_equal(upright, turns[orientation](np.asarray(image)))
    np.testing.assert_array_equal(load_image(Image.open(path)), upright)
    already = ImageOps.exif_transpose(Image.open(path))
    np.testing.assert_array_equal(load_image(already), upright)
    np.testing.assert_array_equal(load_image(Image.fromarray(upright)), upright)


def test_exif_of_a_pil_input_survives():
    exif = Image.Exif()
    exif[0x0112] = 6
    opened = Image.open(io.BytesIO(encode(smooth(), "JPEG", exif=exif)))
    load_image(opened)
    assert opened.getexif()[0x0112] == 6
    assert opened.size == (64, 48)


@pytest.mark.parametrize("kind", ["file", "array", "pil"])
def test_alpha_is_composited_on_white(kind):
    rgba = np.array([[[10, 20, 30, 0], [10, 20, 30, 255], [0, 0, 0, 128]]], np.uint8)
    image = Image.fromarray(rgba)
    given = {"file": encode(image, "PNG"), "array": rgba, "pil": image}[kind]
    expected = [[[255, 255, 255], [10, 20, 30], [127, 127, 127]]]
    np.testing.assert_array_equal(load_image(given), expected)


WHITE = [255] * 3


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encode(row([40, 255], [40, 0], mode="LA"), "PNG"), [[40] * 3, WHITE]),
        (palette(), [[9, 8, 7], WHITE]),
        (encode(row([1, 2, 3], [4, 5, 6]), "PNG", transparency=(4, 5, 6)), [[1, 2, 3], WHITE]),
        (encode(row(True, False, dtype=bool), "PNG"), [WHITE, [0] * 3]),
    ],
    ids=["grey with alpha", "palette", "a transparent colour", "one bit"],
)
def test_every_mode_becomes_rgb(data, expected):
    np.testing.assert_array_equal(load_image(data)[0], expected)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_to_the_nearest_eight(format):
    values = np.arange(0, 65536, 7, dtype=np.uint16).reshape(1, -1)
    loaded = load_image(encode(Image.fromarray(values), format))
    exact = np.round(values / 65535 * 255)
    np.testing.assert_array_equal(loaded, np.repeat(exact[:, :, None], 3, axis=2))


def test_cmyk():
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    loaded = load_image(encode(image, "JPEG", quality=95))
    assert loaded.shape == (8, 8, 3)
    np.testing.assert_allclose(loaded.reshape(-1, 3).mean(axis=0), [255, 0, 0], atol=4)


@pytest.mark.parametrize("format", ["GIF", "WEBP"])
def test_an_animation_warns_and_gives_its_first_frame(format):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if format == "WEBP" else {}
    data = encode(frames[0], format, save_all=True, append_images=frames[1:], **options)
    with pytest.warns(UserWarning, match="several frames"):
        loaded = load_image(data)
    np.testing.assert_array_equal(loaded[0, 0], [255, 0, 0])


def test_a_still_image_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_image(encode(smooth(), "GIF"))


def test_the_cap_is_checked_before_decoding():
    huge = encode(Image.new("1", (15000, 15000)), "PNG")[:60]  # a header, hardly any data
    with pytest.raises(ImageError, match="225,000,000 pixels, more than the cap of 200,000,000"):
        load_image(huge)
    with pytest.raises(ImageError, match=r"truncated|broken|checksum"):
        load_image(huge, max_pixels=225_000_000)


@pytest.mark.parametrize("kind", ["array", "pil", "bytes"])
def test_the_cap_holds_for_every_input(kind):
    image = smooth((11, 10))
    given = {"array": np.asarray(image), "pil": image, "bytes": encode(image, "PNG")}[kind]
    assert load_image(given, max_pixels=110).shape == (10, 11, 3)
    with pytest.raises(ImageError, match="11x10 is 110 pixels"):
        load_image(given, max_pixels=109)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("share", [0.3, 0.8])
def test_truncated_files_are_refused(tmp_path, pixels, format, share):
    noise = np.tile(pixels, (4, 4, 1))  # large enough that the cut falls into the pixels
    data = encode(Image.fromarray(noise), format)
    path = tmp_path / "cut"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageError, match=r"cut: ."):
        load_image(path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        *[
            (np.zeros((3, 3, 3), kind), r"uint8 \(0-255\), got .*as")
            for kind in (float, "u2", bool)
        ],
        *[
            (np.zeros(shape, np.uint8), "must have shape")
            for shape in [(3,), (3, 3, 2), (2, 3, 3, 3)]
        ],
        *[(np.zeros(shape, np.uint8), "at least one pixel") for shape in [(0, 3, 3), (3, 0)]],
        *[(kind, "an image is a path, bytes, a PIL image or") for kind in (None, 3, ["a.png"])],
        (row(0, 70_000, dtype=np.int32), "70000 are not 16-bit"),
        (row(0, 1, dtype=np.float32), "no fixed range"),
        (b"", "a file of 0 bytes"),
        (b"hello, I am a text file\n" * 20, "not an image of a kind"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image of a kind"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path, given, message):
    with pytest.raises(ImageError, match=message):
        load_image(given)
    if isinstance(given, bytes):
        (tmp_path / "a.png").write_bytes(given)
        with pytest.raises(ImageError, match=rf"a\.png: {message}"):
            load_image(tmp_path / "a.png")


@pytest.mark.parametrize("read", [read_header, image_sides, image_hash, load_image])
def test_every_reader_names_what_it_cannot_open(tmp_path, read):
    for kind in (ValueError, OSError, ImageError):
        with pytest.raises(kind, match=r"none\.png: no such file. Check the path"):
            read(tmp_path / "none.png")
    with pytest.raises(ImageError, match="a folder, not an image"):
        read(tmp_path)


def test_a_bare_string_or_path_is_one_image(tmp_path):
    image = smooth()
    for one in ("a.png", b"abc", tmp_path / "a.png", image):
        assert as_image_list(one) == [one]


def test_arrays_are_one_image_or_a_stack():
    assert len(as_image_list(np.zeros((4, 5), np.uint8))) == 1
    assert len(as_image_list(np.zeros((4, 5, 4), np.uint8))) == 1
    assert [a.shape for a in as_image_list(np.zeros((2, 4, 5, 3), np.uint8))] == [(4, 5, 3)] * 2
    with pytest.raises(ValueError, match=r"got \(2, 4, 5\)"):
        as_image_list(np.zeros((2, 4, 5), np.uint8))


def test_sequences_and_tables_give_their_paths():
    paths = ["a.png", "b.png"]
    table = pd.DataFrame({"path": paths, "label": [0, 1]})
    for given in (paths, tuple(paths), np.array(paths), np.array(paths, object), table.path, table):
        assert as_image_list(given) == paths
    with pytest.raises(ValueError, match="needs a 'path' column"):
        as_image_list(table[["label"]])
    with pytest.raises(ValueError, match="got int"):
        as_image_list(3)


def test_bad_images_are_found_with_their_position(tmp_path, pixels):
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    found = find_bad_images([path, tmp_path / "none.png", pixels, b""], n_jobs=2)
    assert [position for position, _ in found] == [1, 3]
    assert "none.png: no such file" in found[0][1]


def test_listing_is_sorted_and_leaves_out_hidden_and_other_files(tmp_path):
    for name in ("b/2.JPG", "a.png", ".hidden/x.png", "__MACOSX/y.png", "._z.png", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "folder.png").mkdir()
    assert [p.relative_to(tmp_path).as_posix() for p in list_images(tmp_path)] == [
        "a.png",
        "b/2.JPG",
    ]


def test_names_are_short(pixels):
    assert image_name(b"1234") == "<4 bytes>"
    assert image_name(pixels) == "<array (20, 30, 3) uint8>"
    assert image_name(Image.fromarray(pixels)) == "<PIL image 30x20>"
    assert image_name(None) == "<NoneType>"


def turned(orientation=6):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def test_a_header_tells_format_size_and_compression():
    data = encode(smooth(), "JPEG", subsampling=1, quality=90, exif=turned())
    header = read_header(data)
    assert (header.format, header.coding, header.mode) == ("JPEG", "JPEG", "RGB")
    assert (header.width, header.height, header.upright_size) == (64, 48, (48, 64))
    assert (header.orientation, header.n_exif, header.n_bytes) == (6, 1, len(data))
    assert header.sampling == ((2, 1), (1, 1), (1, 1))
    assert {len(table) for table in header.quantization.values()} == {64}
    assert "jfif" in header.entries


@pytest.mark.parametrize("kind", ["path", "bytes", "pil", "array"])
def test_every_input_has_a_header(tmp_path, pixels, kind):
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    kinds = {"path": path, "bytes": path.read_bytes(), "pil": Image.open(path), "array": pixels}
    header = read_header(kinds[kind])
    assert (header.width, header.height, header.mode, header.orientation) == (30, 20, "RGB", 1)
    assert image_sides(kinds[kind]) == (20, 30)


def test_what_stands_behind_the_pixels_of_a_png_is_read(tmp_path):
    text = PngImagePlugin.PngInfo()
    text.add_text("date", "now", after_idat=True) if False else text.add(b"tEXt", b"d\0now", True)
    plain, late = encode(smooth(), "PNG", exif=turned()), encode(smooth(), "PNG", pnginfo=text)
    assert read_header(plain).orientation == 6
    assert read_header(late).entries == ("d",)


def test_webp_is_told_lossy_from_lossless():
    for lossless in (True, False):
        header = read_header(encode(smooth(), "WEBP", lossless=lossless))
        assert header.format == "WEBP"
        assert header.coding == ("WEBP lossless" if lossless else "WEBP")


def test_an_image_is_hashed_by_its_file_or_else_its_pixels(tmp_path, pixels):
    data = encode(Image.fromarray(pixels), "PNG")
    (tmp_path / "a.png").write_bytes(data)
    expected = hashlib.sha256(data).hexdigest()
    assert image_hash(tmp_path / "a.png") == image_hash(data) == expected
    assert image_hash(pixels) == image_hash(Image.fromarray(pixels)) != expected
    assert image_hash(pixels) != image_hash(pixels.reshape(30, 20, 3))
