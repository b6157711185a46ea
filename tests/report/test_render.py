import io
import json
import re
from itertools import count

import numpy as np
import pytest
from PIL import Image
from report_contract import HOSTILE, check_report

from cnnsvm.report.model import (
    Card,
    Cell,
    Exhibit,
    Gallery,
    Items,
    Plot,
    Plots,
    Report,
    Section,
    Table,
    Thumbnail,
)
from cnnsvm.report.plots import new_figure
from cnnsvm.report.render import (
    aligned,
    format_cell,
    render_html,
    render_text,
    thumbnail,
    to_json,
    to_svg,
)


def everything(text):
    """Make a report that holds every kind of block, and a call of ``text`` wherever text can be."""
    thumbnails = [Thumbnail(None, text()), Thumbnail(b"x", text())]
    headers = [text(), text()]
    blocks = [
        text(),
        {text(): text()},
        Table(headers, [[text(), Cell(text(), "bad")]], text(), prose=headers[1:]),
        Items([text(), (text(), text())]),
        Items([text()], title=text()),
        Plots([Plot(new_figure()[0], text(), text())], wide=True),
        Gallery([Exhibit(thumbnails, text(), [text()])], text(), text()),
    ]
    facts = {name: text() for name in ("title", "data", "model", "split", "command")}
    facts |= {"warnings": [text()], "skipped": [{"path": text(), "reason": text()}]}
    facts |= {name: {text(): text()} for name in ("settings", "environment")}
    return Report(
        facts,
        "Report",
        findings=[text()],
        notes=[text()],
        notes_title=text(),
        alarming=True,
        cards=[Card(text(), text(), text())],
        sections=[Section(text(), blocks, note=text()), Section(text(), [""])],
    )


def test_every_text_is_escaped_once_and_none_is_lost():
    counted = count()
    page, text = check_report(everything(lambda: f"{HOSTILE}&{next(counted)}."))
    shown = "".join(page.text) + "".join(value or "" for _, value in page.attributes)
    lost = [n for n in range(next(counted)) if f"{HOSTILE}&{n}." not in shown]
    assert len(lost) == 1  # the title of the section without content
    assert text.count(HOSTILE) >= 20


def test_sections_and_blocks_without_content_are_left_out():
    report = Report({}, "x", sections=[Section("y", [Table(["a"], []), Items([]), {}, ""])])
    assert report.sections == []
    assert render_text(report) == "x\n=\n"


def test_what_is_on_the_page_only_is_not_in_the_text():
    plots = Section("Curves", [Plots([Plot(new_figure()[0], "a curve")])])
    hidden = Section("Settings", [{"a": "b"}], page_only=True)
    text = render_text(Report({}, "x", sections=[plots, hidden]))
    assert "Curves" not in text
    assert "Settings" not in text


INTERVAL = {"value": 0.9123, "low": 0.88, "high": 0.9409}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (INTERVAL, "0.912 [0.880, 0.941]"),
        (0.12345, "0.123"),
        (np.float32("nan"), "n/a"),
        (None, "n/a"),
        (12345, "12,345"),
        (np.int64(7), "7"),
        ("as it is", "as it is"),
        (Cell("told", "bad"), "told"),
    ],
)
def test_values_are_written_by_type(value, text):
    assert format_cell(value) == text


def test_columns_are_aligned_under_their_headers():
    table = Table(
        ["name", "AUC", "n", "why"], [["a", 0.5, 1, "so"], ["bc", None, 20, ""]], prose=["why"]
    )
    assert aligned(table).splitlines() == [
        "  name    AUC   n  why",
        "  a     0.500   1  so",
        "  bc      n/a  20",
    ]


def test_a_wide_table_breaks_headers_then_shortens_the_last_intervals_then_loses_prose():
    headers = ["name", *(f"a long header of {i}" for i in "abc"), "prose"]
    table = Table(headers[:4], [["x", 0.5, 0.25, 0.125]] * 2)
    assert len(aligned(table).splitlines()) == 3
    wide = Table([*headers[:4], *headers[1:4]], [["x", *[INTERVAL] * 3, *[0.5] * 3]])
    assert aligned(wide).count("[") == 3
    assert "a long header\n" not in aligned(wide)
    wider = Table(headers, [["x", *[INTERVAL] * 3, "p" * 30]], prose=["prose"])
    assert aligned(wider).count("[") == 2
    assert "ppp" in aligned(wider)
    widest = Table(headers, [["x", *[INTERVAL] * 3, "p" * 80]], prose=["prose"])
    assert aligned(widest).count("[") == 0
    assert "ppp" not in aligned(widest)
    assert "a long header of a" in aligned(widest)  # now that there is room again
    for each in (wide, wider, widest):
        assert max(map(len, aligned(each).splitlines())) <= 98


def test_a_long_name_keeps_its_line_and_its_numbers_their_columns():
    name = "diffusion:" + "x" * 60
    _, long_name, long_row, short_row = aligned(
        Table(["engine", "recall"], [[name, 0.5], ["b", 0.25]])
    ).splitlines()
    assert long_name.strip() == name
    assert len(long_row) == len(short_row)


def test_long_lists_are_cut_and_say_so():
    report = Report({}, "x", sections=[Section("y", [Items([f"{i}.png" for i in range(250)])])])
    text, page = render_text(report), render_html(report)
    assert "9.png" in text
    assert "10.png" not in text
    assert "240 more" in text
    assert "99.png" in page
    assert "100.png" not in page
    assert "150 more" in page


def test_files_below_the_working_directory_are_shown_relative_to_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = render_text(Report({}, "x"), [tmp_path / "runs" / "a.html", tmp_path.parent / "b"])
    assert text.splitlines()[-2:] == ["  runs/a.html", f"  {tmp_path.parent / 'b'}"]


def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")


def test_json_is_strict_and_round_trips(tmp_path):
    values = {"a": float("nan"), "b": np.float64("inf"), "c": [np.int64(3), np.arange(2)]}
    values |= {"d": {"e": np.float32(0.5), "f": (None, tmp_path)}}
    back = json.loads(to_json(values), parse_constant=refuse)
    assert back == {
        "a": None,
        "b": None,
        "c": [3, [0, 1]],
        "d": {"e": 0.5, "f": [None, str(tmp_path)]},
    }
    assert to_json(back) == to_json(values)
    with pytest.raises(TypeError, match="object"):
        to_json({"settings": {"model": object()}})


@pytest.mark.parametrize(("shape", "size"), [((400, 200), (80, 160)), ((20, 30), (30, 20))])
def test_thumbnails_are_small_and_never_enlarged(shape, size):
    data = thumbnail("x.png", lambda path: np.zeros((*shape, 3), dtype=np.uint8))
    assert Image.open(io.BytesIO(data)).size == size


def test_thumbnails_come_from_the_file(tmp_path):
    path = tmp_path / "red.png"
    Image.new("RGB", (50, 50), (250, 10, 10)).save(path)
    shown = Image.open(io.BytesIO(thumbnail(str(path))))
    np.testing.assert_allclose(shown.getpixel((25, 25)), (250, 10, 10), atol=8)
    assert thumbnail(str(tmp_path / "gone.png")) is None


def test_a_figure_follows_the_colours_of_the_page_and_keeps_its_hatching():
    figure, (axes,) = new_figure()
    axes.set_title(HOSTILE)
    axes.bar([0], [1], fc=(0, 0, 1, 0.4), hatch="//")
    drawn = to_svg(figure, HOSTILE)
    assert not {"#000000", "#ffffff"} & set(re.findall("#[0-9a-f]{6}", drawn))
    assert "currentColor" in drawn
    assert "var(--paper)" in drawn
    assert "<script" not in drawn
    assert "<style" not in drawn
    assert 'fill-opacity="0.3"' in drawn
    assert not re.search(r"url\(#h[^)]*\); fill-opacity", drawn)


def test_parameters_that_are_off_are_folded():
    report = Report({"settings": {"cv": 3, "max_error": None}}, "x")
    page = render_html(report)
    assert page.index("<dt>cv</dt>") < page.index("<summary>1 more that are off</summary>")
    assert page.index("<summary>") < page.index("max_error") < page.index("</details>")
