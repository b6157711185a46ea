import re
from html.parser import HTMLParser

import pytest

from cnnsvm.report.html import render_html

pytestmark = pytest.mark.usefixtures("quick_plots")

HOSTILE = '<script>alert(1)</script>" onerror="alert(2)'
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Collect tags, attributes and text, and check that tags close in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text, self.open = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)


@pytest.fixture
def page(result, predictions, curves, loader):
    return render_html(result, predictions, curves, loader)


def test_the_page_needs_nothing_from_elsewhere(page):
    assert "http://" not in page
    assert "https://" not in page
    assert "@import" not in page
    parsed = Page(page)
    assert not set(parsed.tags) & {"script", "link", "iframe", "object"}
    sources = [value for name, value in parsed.attributes if name in ("src", "href", "srcset")]
    assert len(sources) > 8
    assert all(source.startswith("data:image/") for source in sources)


def test_tags_close_and_every_image_has_words(page):
    parsed = Page(page)
    assert parsed.open == []
    assert all(value for name, value in parsed.attributes if name == "alt")
    assert parsed.tags.count("img") == sum(name == "alt" for name, _ in parsed.attributes)


def test_whatever_users_provide_is_escaped(result, predictions, curves, loader):
    hostile = predictions.assign(path=HOSTILE, mask_schema=HOSTILE, prediction=1)
    for key in ("title", "command", "data"):
        result[key] = HOSTILE
    entry = result["by_engine"].popitem()[1]
    result["by_engine"] = {HOSTILE: entry}
    result["controls"] = {HOSTILE: {"verdict": HOSTILE, "meaning": HOSTILE}}
    result["skipped"] = [{"path": HOSTILE, "reason": HOSTILE}]
    result["settings"] = result["environment"] = {HOSTILE: HOSTILE}
    result["warnings"] = [HOSTILE]
    parsed = Page(render_html(result, hostile, curves, loader))
    assert "script" not in parsed.tags
    assert not any(name.startswith("on") for name, _ in parsed.attributes)
    assert "".join(parsed.text).count(HOSTILE) >= 15


def test_the_headline_comes_first_and_with_its_interval(page, result):
    parsed = Page(page)
    text = " ".join(parsed.text)
    auc = result["metrics"]["roc_auc"]
    assert f"[{auc['low']:.3f}, {auc['high']:.3f}]" in text
    sections = ["How far to trust", "Metrics", "Plots", "By mask schema", "Negative controls"]
    sections += ["Folds", "Most confident mistakes", "Skipped images (1)", "Settings"]
    positions = [text.index(name) for name in sections]
    assert positions == sorted(positions)


def test_a_leak_is_shown_in_words_and_not_in_colour_alone(result, predictions, curves, loader):
    assert 'class="note alarm"' not in render_html(result, predictions, curves, loader)
    result["controls"]["metadata"]["verdict"] = "above chance"
    page = render_html(result, predictions, curves, loader)
    assert 'class="note alarm"' in page
    assert "⚠ above chance" in page
    assert "The data leak" in page


def test_undefined_numbers_say_why(result, predictions, curves, loader):
    result["metrics"]["precision"] = {"value": None, "low": None, "high": None}
    text = " ".join(Page(render_html(result, predictions, curves, loader)).text)
    assert "n/a (nothing was called fake)" in text
    assert not re.search(r"\bnan\b", text)


def test_without_fine_tuning_there_are_no_curves(result, predictions, curves, loader):
    assert "starred epoch" in render_html(result, predictions, curves, loader)
    assert "starred epoch" not in render_html(result, predictions, [], loader)


def test_long_lists_of_skipped_images_are_cut(result, predictions, loader):
    result["skipped"] = [{"path": f"{i}.png", "reason": "gone"} for i in range(250)]
    page = render_html(result, predictions, [], loader)
    assert "Skipped images (250)" in page
    assert "and 150 more" in page
    assert "<code>120.png</code>" not in page


def test_a_bare_result_gives_a_page(predictions, loader):
    text = " ".join(Page(render_html({}, predictions, [], loader)).text)
    assert "No negative controls were run" in text


def test_further_tables_are_shown_and_escaped(result, predictions, curves, loader):
    entry = {
        "title": "Heads",
        "headers": ["head", "n"],
        "rows": [["a < b", "7"]],
        "note": "Paired.",
    }
    shown = render_html(result | {"tables": [entry]}, predictions, curves, loader)
    assert "<h2>Heads</h2>" in shown
    assert "a &lt; b" in shown
    assert "Paired." in shown
