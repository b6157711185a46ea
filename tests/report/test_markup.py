import base64

from cnnsvm.report.markup import Html, element, html, image, section, table

HOSTILE = "<script>alert('1')</script>\" onerror=\"x"


def test_text_is_escaped_everywhere_and_only_once():
    for written in (
        html(HOSTILE),
        element("p", HOSTILE),
        element("p", "x", title=HOSTILE),
        section(HOSTILE, "x"),
        table([HOSTILE], [[HOSTILE]]),
        image(b"", "png", HOSTILE),
    ):
        assert "<script" not in written
        assert '" onerror' not in written
    assert html(html("a & b")) == "a &amp; b"
    assert element("p", element("b", "x")) == "<p><b>x</b></p>"


def test_absent_attributes_are_left_out():
    assert element("p", "x", class_=None) == "<p>x</p>"
    assert element("p", "x", class_="soft") == '<p class="soft">x</p>'


def test_images_carry_their_bytes():
    written = image(b"pixels", "png", "a plot")
    assert base64.b64decode(written.split("base64,")[1].split('"')[0]) == b"pixels"
    assert 'alt="a plot"' in written


def test_nothing_to_say_is_said_without_a_heading():
    assert section("Title", "", Html("")) == ""
    assert table(["a"], []) == ""
