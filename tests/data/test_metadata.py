"""What metadata say of the making of an image, as its makers write them, and in hostile files."""

import io
import json
import os
import struct
import time
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from cnnsvm.data.metadata import MAX_FINDINGS, MAX_VALUE, read_metadata
from cnnsvm.data.metadata_blocks import MAX_TEXT

A1111 = "a red fox\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1"
SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/"


def xmp(attributes="", elements=""):
    described = f"<rdf:Description {attributes}>{elements}</rdf:Description>"
    return (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF>{described}</rdf:RDF></x:xmpmeta>'.encode()
    )


def image(format="PNG", **options):
    stream = io.BytesIO()
    Image.new("RGB", (16, 16), "grey").save(stream, format, **options)
    return stream.getvalue()


def png(**texts):
    info = PngImagePlugin.PngInfo()
    for keyword, text in texts.items():
        info.add_text(keyword.replace("_dash_", "-"), text, zip=len(text) > 200)
    return image(pnginfo=info)


def exif(**entries):
    """EXIF with the entries given by Pillow's names."""
    data = Image.Exif()
    for tag, value in entries.items():
        number = int(tag.removeprefix("t"), 16)
        (data.get_ifd(0x8769) if number > 0x9000 else data)[number] = value
    return data.tobytes()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_with(*chunks, behind=False):
    """A PNG with chunks before its pixels, or behind them."""
    whole = image()
    place = whole.rindex(b"IEND") - 4 if behind else whole.index(b"IDAT") - 4
    return whole[:place] + b"".join(chunks) + whole[place:]


def jpeg_with(marker, data):
    return (
        b"\xff\xd8\xff"
        + bytes([marker])
        + struct.pack(">H", len(data) + 2)
        + data
        + image("JPEG")[2:]
    )


def jxl_with(kind, data):
    box = struct.pack(">I", len(data) + 8) + kind + data
    return b"\0\0\0\x0cJXL \r\n\x87\n" + struct.pack(">I", 12) + b"ftypjxl " + box


def heif():
    """A HEIC with the settings of AUTOMATIC1111; where it cannot be written, an AVIF."""
    formats = Image.registered_extensions().values()
    return image("HEIF" if "HEIF" in formats else "AVIF", exif=exif(t9286=UNICODE))


def iptc(**datasets):
    data = b""
    for number, text in datasets.items():
        data += b"\x1c\x02" + struct.pack(">BH", int(number[1:]), len(text)) + text.encode()
    resource = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(data)) + data
    return jpeg_with(0xED, b"Photoshop 3.0\0" + b"8BIM\x03\xe8\x03ab\0" + bytes(4) + resource)


UNICODE = b"UNICODE\0" + A1111.encode("utf-16-be")
GENERATED = {
    "AUTOMATIC1111": (png(parameters=A1111), "PNG text 'parameters'", "Steps: 20"),
    "AUTOMATIC1111, JPEG": (
        image("JPEG", exif=exif(t9286=UNICODE)),
        "EXIF UserComment",
        "a red fox",
    ),
    "AUTOMATIC1111, WebP": (
        image("WEBP", exif=exif(t9286=b"ASCII\0\0\0" + A1111.encode())),
        "EXIF UserComment",
        "a red fox",
    ),
    "ComfyUI": (
        png(prompt=json.dumps({"3": {"class_type": "KSampler", "inputs": {"seed": 5}}})),
        "PNG text 'prompt'",
        "ComfyUI",
    ),
    "ComfyUI, WebP": (
        image("WEBP", exif=exif(t110='prompt:{"3": {"class_type": "KSampler", "inputs": {}}}')),
        "EXIF Model",
        "ComfyUI",
    ),
    "NovelAI": (
        png(Software="NovelAI", Title="AI generated image"),
        "PNG text 'Software'",
        "NovelAI",
    ),
    "InvokeAI": (png(invokeai_metadata='{"seed": 1}'), "PNG text 'invokeai_metadata'", "seed"),
    "InvokeAI, old": (png(sd_dash_metadata="{}"), "PNG text 'sd-metadata'", "InvokeAI"),
    "InvokeAI, oldest": (png(Dream='"a fox" -s 50'), "PNG text 'Dream'", "a fox"),
    "Fooocus": (
        image("JPEG", exif=exif(t131="Fooocus v2.5.5")),
        "EXIF Software",
        "Fooocus v2.5.5",
    ),
    "SwarmUI": (png(parameters='{"sui_image_params": {}}'), "PNG text 'parameters'", "SwarmUI"),
    "Midjourney": (
        png(Description="a fox --v 6.1 Job ID: 01234567-89ab-cdef-0123-456789abcdef"),
        "PNG text 'Description'",
        "Midjourney",
    ),
    "Google": (
        image("JPEG", xmp=xmp('photoshop:Credit="Made with Google AI"', "")),
        "XMP Credit",
        "Made with Google AI",
    ),
    "Google, IPTC": (iptc(d110="Made with Google AI"), "IPTC Credit", "Made with Google AI"),
    "digital source": (
        png_with(
            chunk(
                b"iTXt",
                b"XML:com.adobe.xmp\0\0\0\0\0"
                + xmp(f'I:DigitalSourceType="{SOURCE}trainedAlgorithmicMedia"', ""),
            )
        ),
        "XMP DigitalSourceType",
        "trainedAlgorithmicMedia",
    ),
    "digital source of a part, WebP": (
        image(
            "WEBP",
            xmp=xmp(
                "",
                f'<I:DigitalSourceType rdf:resource="{SOURCE}compositeSynthetic"/>',
            ),
        ),
        "XMP DigitalSourceType",
        "compositeSynthetic",
    ),
    "Photoshop's history": (
        image(
            "TIFF",
            tiffinfo={
                700: xmp(
                    "",
                    "<M:History><rdf:li><E:softwareAgent>Adobe Firefly</E:softwareAgent>",
                )
            },
        ),
        "XMP softwareAgent",
        "Adobe Firefly",
    ),
    "AIGC": (
        png(AIGC='{"Label":"1","ContentProducer":"x"}'),
        "PNG text 'AIGC'",
        "GB 45438",
    ),
    "AIGC, XMP": (
        image(
            "JPEG",
            xmp=xmp(
                "",
                "<T:AIGC>{&quot;Label&quot;:&quot;1&quot;,&quot;ContentProducer&quot;:&quot;x&quot;}</T:AIGC>",
            ),
        ),
        "XMP AIGC",
        "GB 45438",
    ),
    "behind the pixels": (
        png_with(chunk(b"tEXt", b"parameters\0" + A1111.encode()), behind=True),
        "PNG text 'parameters'",
        "AUTOMATIC1111",
    ),
    "JPEG XL": (
        jxl_with(b"Exif", bytes(4) + exif(t9286=UNICODE).removeprefix(b"Exif\0\0")),
        "EXIF UserComment",
        "Steps: 20",
    ),
    "JPEG XL, XMP": (
        jxl_with(b"xml ", xmp('x:CreatorTool="Draw Things"')),
        "XMP CreatorTool",
        "Draw Things",
    ),
    "HEIF": (heif(), "EXIF UserComment", "Steps: 20"),
    "ImageMagick's hexadecimal": (
        png(**{"Raw profile type exif": f"\nexif\n {9}\n{exif(t131='Fooocus').hex()}\n"}),
        "EXIF Software",
        "Fooocus",
    ),
    "AVIF": (image("AVIF", exif=exif(t9286=UNICODE)), "EXIF UserComment", "Steps: 20"),
}


@pytest.mark.parametrize("maker", GENERATED)
def test_what_generators_write_is_said(maker):
    file, name, value = GENERATED[maker]
    found = [finding for finding in read_metadata(file) if finding.says == "generated"]
    assert [finding.name for finding in found] == [name]
    assert value in found[0].value


OTHERS = {
    "a camera": (image("JPEG", exif=exif(t10f="Canon", t110="Canon EOS R5")), {"camera"}),
    "an editor": (image("JPEG", exif=exif(t131="Adobe Photoshop 25.0 (Windows)")), {"edited"}),
    "a developer": (
        image("JPEG", xmp=xmp('xmp:CreatorTool="Adobe Lightroom 7"', "")),
        {"edited"},
    ),
    "a capture": (
        image("JPEG", xmp=xmp(f"I:DigitalSourceType='{SOURCE}digitalCapture'", "")),
        {"camera"},
    ),
    "a caption": (
        image("JPEG", exif=exif(t10e="The office of Midjourney and OpenAI; Stable Diffusion")),
        set(),
    ),
    "a camera named as a generator is": (
        image("JPEG", exif=exif(t110="Gemini11\0H\0")),
        {"camera"},
    ),
    "an editor's comment": (
        image("JPEG", comment=b"File written by Adobe Photoshop 5.0"),
        {"edited"},
    ),
    "a title": (png(Title="How ComfyUI works", Comment="Steps: walk, run"), set()),
    "a plug-in": (image("JPEG", exif=exif(t131="Imagenomic Portraiture")), set()),
    "a comment": (image("JPEG", comment=b"made by hand"), set()),
    "nothing": (image(), set()),
}


@pytest.mark.parametrize("what", OTHERS)
def test_what_others_write_names_no_generator(what):
    file, said = OTHERS[what]
    assert {finding.says for finding in read_metadata(file)} - {"unknown"} == said


def test_an_image_without_metadata_has_no_findings():
    assert read_metadata(image()) == read_metadata(image("WEBP")) == read_metadata(b"GIF89a") == []


@pytest.mark.parametrize("quality", [5, 75, 90, 100])
def test_tables_of_libjpeg_give_their_quality(quality):
    (found,) = read_metadata(image("JPEG", quality=quality, subsampling=0, progressive=True))
    assert (found.kind, found.says) == ("jpeg_tables", "unknown")
    assert found.value == f"standard tables, quality {quality}"
    (found,) = read_metadata(image("JPEG", qtables=[[7] * 64, [9] * 64]))
    assert found.value.startswith("custom tables")


@pytest.fixture(scope="module")
def sign():
    """Sign an image with a certificate that no trust list holds."""
    pytest.importorskip("c2pa", reason="needs the extra c2pa")
    from c2pa_signing import sign

    return sign


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "GIF"])
def test_a_signed_manifest_is_read_and_its_signature_checked(sign, format, monkeypatch):
    signed = sign(image(format), f"image/{format.lower()}", f"{SOURCE}trainedAlgorithmicMedia")
    (found,) = (each for each in read_metadata(signed) if each.kind == "c2pa")
    assert found.says == "generated"
    assert found.value == (
        "source trainedAlgorithmicMedia; a valid signature by Example Org, not checked against a "
        "trust list; by Example Maker"
    )
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (unread,) = (each for each in read_metadata(signed) if each.kind == "c2pa")
    assert unread.says == "generated"
    assert unread.value == (
        "names trainedAlgorithmicMedia; not read (install the extra: pip install 'cnnsvm[c2pa]'), "
        "signature not checked"
    )


def test_a_manifest_of_other_pixels_does_not_validate(sign):
    signed = bytearray(sign(image("JPEG"), "image/jpeg", f"{SOURCE}digitalCapture"))
    signed[-5] ^= 1
    (found,) = (each for each in read_metadata(bytes(signed)) if each.kind == "c2pa")
    assert "its signature does not validate (assertion.dataHash.mismatch)" in found.value
    assert found.says == "camera"


def test_a_broken_manifest_still_names_what_it_names(sign):
    source = f"{SOURCE}trainedAlgorithmicMedia"
    signed = sign(image("PNG"), "image/png", source).replace(b"jumd", b"jumx")
    (found,) = (each for each in read_metadata(signed) if each.kind == "c2pa")
    assert found.value.startswith("names trainedAlgorithmicMedia; cannot be read (")
    assert found.says == "generated"


def test_a_broken_block_costs_itself_alone():
    broken = [
        chunk(b"eXIf", b"II*\0\xff"),
        chunk(b"zTXt", b"a\0\0nothing"),
        chunk(b"iTXt", b"b\0\0"),
    ]
    file = png_with(*broken, chunk(b"tEXt", b"parameters\0" + A1111.encode()), chunk(b"caBX", b"x"))
    found = read_metadata(file)
    assert [finding.kind for finding in found[:4]] == ["unreadable"] * 3 + ["png_text"]
    assert found[3].says == "generated"
    assert found[4].kind == "c2pa"
    assert found[4].says == "unknown"


def test_values_are_short_and_can_be_read():
    (found,) = read_metadata(png(Software="\x1b[2J\u202e evil" + "x" * 5000 + "\x00\n"))
    assert len(found.value) <= MAX_VALUE
    assert found.value.isprintable()
    assert "\\x1b" in found.value


def bomb():
    whole = zlib.compress(b"Steps: 20, " * 10_000_000, 9)
    texts = [chunk(b"zTXt", b"k\0\0" + whole)] * 20
    entities = b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><x:Credit>&b;</x:Credit>'
    hostile = b":Credit>" * 400_000 + b":UserComment='" * 100_000 + b"<rdf:" * 100_000
    return png_with(
        *texts,
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + entities + hostile),
        *[chunk(b"tEXt", b"Comment\0" + b'"Label":"1",' * 90_000)] * 5,
        *[chunk(b"tEXt", b"Software\0" + b"Adobe FireFly"[:8] * 100_000)] * 5,
    )


def test_bombs_cost_little():
    file = bomb()
    tracemalloc.start()
    begun = time.monotonic()
    found = read_metadata(file)
    took, most = time.monotonic() - begun, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert took < 10
    assert most < 40 * MAX_TEXT
    assert found[-1].kind == "unreadable"
    assert "more than" in found[-1].value


@pytest.mark.parametrize(
    "file",
    [
        b"\xff\xd8" + b"\xff\x00" * 20_000_000,
        b"\xff\xd8" + b"\xff\xfe\0\3x" * 3_000_000,
        b"\x89PNG\r\n\x1a\n" + bytes(4) + b"IDAT" + bytes(40_000_000),
        b"RIFF\0\0\0\0WEBP" + b"ABCD\0\0\0\0" * 5_000_000,
        b"\0\0\0\x10ftypavif\0\0\0\0" + b"\0\0\0\x08free" * 5_000_000,
    ],
    ids=["no markers", "small segments", "a chunk without an end", "small chunks", "small boxes"],
)
def test_long_ways_to_nothing_are_cut_short(file):
    begun = time.monotonic()
    assert len(read_metadata(file)) <= 1
    assert time.monotonic() - begun < 5


def test_many_blocks_give_few_findings():
    assert len(read_metadata(png_with(*[chunk(b"tEXt", b"a\0b")] * 5000))) <= MAX_FINDINGS + 1


def test_what_is_no_file_is_a_finding(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "none.png", tmp_path, tmp_path / "pipe"):
        (found,) = read_metadata(place)
        assert found.kind == "unreadable"
    path = tmp_path / "a.png"
    path.write_bytes(GENERATED["InvokeAI"][0])
    assert read_metadata(path) == read_metadata(path.read_bytes())


SEEDS = [file for file, _, _ in GENERATED.values()] + [image("GIF"), image("BMP")]


@settings(max_examples=300, deadline=2000)
@given(st.data())
def test_no_mutation_raises_or_says_much(data):
    file = bytearray(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(0, 8))):
        place = data.draw(st.integers(0, len(file) - 1))
        file[place : place + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=8))
        file = file or bytearray(1)
    found = read_metadata(bytes(file[: data.draw(st.integers(0, len(file)))]))
    for finding in found:
        assert finding.says in ("generated", "edited", "camera", "unknown")
        assert len(finding.value) <= MAX_VALUE
        assert (finding.name + finding.value).isprintable()
