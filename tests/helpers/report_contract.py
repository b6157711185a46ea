"""What holds for every report: text and page say the same, the page needs nothing else."""

import json
import re
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
from matplotlib.figure import Figure

from cnnsvm.report import render_html, render_text
from cnnsvm.report.model import Plots, Table
from cnnsvm.report.render import WIDTH, format_cell

HOSTILE = '<script>alert(1)</script>" onerror="alert(2)'
_VOID = {"meta", "img"}


class Page(HTMLParser):
    """Collect tags, attributes, text and the cells of tables; check that tags close in order."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text, self.cells, self.open = [], [], [], [], []
        self.feed(page)
        self.said = " ".join(" ".join(self.text).split())
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag in ("td", "th"):
            self.cells.append("")
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag in ("td", "th"):
            self.cells[-1] = self.cells[-1].strip()

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.text.append(data)
        if {"td", "th"} & set(self.open):
            self.cells[-1] += data


def check_report(report):
    """Render a report both ways, check what every report promises, and return page and text.

    Figures are left out, which is what takes the time.
    """
    _leave_figures_out(report)
    page, text = Page(render_html(report)), render_text(report)
    _check_page(page, report)
    assert text.endswith("\n")
    assert "\n\n\n" not in text
    assert not any(line != line.rstrip() for line in text.splitlines())
    for words in (page.said, " ".join(text.split())):
        assert not re.search(r"\bnan\b", words)
        assert all(" ".join(sentence.split()) in words for sentence in report.findings)
    for section in report.sections:
        assert section.title in page.said
        assert section.page_only or section.title in text
        for table in section.blocks:
            if isinstance(table, Table):
                _check_table(table, page, "" if section.page_only else text)
    for name, content in report.files.items():
        if name.endswith(".json"):
            json.loads(content, parse_constant=_refuse)
    return page, text


def words_of(figure):
    """Collect what a figure says: titles, labels, ticks, legends and free text."""
    return " | ".join(t.get_text() for t in figure.findobj(match=lambda a: hasattr(a, "get_text")))


def is_drawn(figure):
    """Tell whether a figure has something in it."""
    figure.canvas.draw()
    drawn = np.asarray(figure.canvas.buffer_rgba())[:, :, :3].mean(axis=2)
    return drawn.std() > 5


def check_width(text):
    """Check that the lines of a text fit a screen."""
    assert max(map(len, text.splitlines())) <= WIDTH


def _leave_figures_out(report):
    blocks = [block for section in report.sections for block in section.blocks]
    for plots in blocks:
        for plot in plots.plots if isinstance(plots, Plots) else ():
            plot.figure = Figure(figsize=(0.1, 0.1))


def _check_page(page, report):
    assert not set(page.tags) & {"script", "link", "iframe", "object"}
    assert not any(name.startswith("on") for name, _ in page.attributes)
    assert page.tags.count("img") == sum(name == "alt" for name, _ in page.attributes)
    assert page.tags.count("svg") == page.attributes.count(("role", "img"))
    assert all(value for name, value in page.attributes if name in ("alt", "aria-label"))
    sources = [value for name, value in page.attributes if name in ("src", "srcset")]
    assert all(source.startswith("data:image/") for source in sources)
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(set(ids)) == len(ids)
    places = [value for name, value in page.attributes if name == "href"]
    beside = set(report.files) | {f"#{name}" for name in ids}
    assert all(unquote(place) in beside for place in places)


def _check_table(table, page, text):
    for row in table.rows:
        for value, header in zip(row, table.headers, strict=True):
            assert any(format_cell(value) in cell for cell in page.cells)
            if text and header not in table.prose:
                assert format_cell(value, short=True) in text


def _refuse(constant):
    raise AssertionError(f"{constant} is not JSON")
