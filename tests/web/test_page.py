"""The page, in a real browser: what is dropped, typed and kept, and that nothing leaves it."""

import json
import shutil
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from cnnsvm.web.app import make_app  # noqa: E402
from cnnsvm.web.limits import Limits  # noqa: E402

ROOT = Path(__file__).parents[2]
#: Where .ci/run puts what checks accessibility.
AXE = ROOT / ".ci/node_modules/axe-core/axe.min.js"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
HOSTILE = "<img src=x onerror=document.title='caught'>.png"
POLICY = "Content Security Policy"
DROP = """async ([name, bytes]) => {
    const carried = new DataTransfer();
    carried.items.add(new File([new Uint8Array(bytes)], name));
    for (const kind of ["dragover", "drop"])
        document.body.dispatchEvent(new DragEvent(kind, {dataTransfer: carried, bubbles: true}));
}"""
PASTE = """([name, bytes]) => {
    const carried = new DataTransfer();
    carried.items.add(new File([new Uint8Array(bytes)], name));
    document.dispatchEvent(new ClipboardEvent("paste", {clipboardData: carried}));
}"""
LOOKS = {
    "light": {"viewport": {"width": 1000, "height": 800}},
    "dark": {"viewport": {"width": 1000, "height": 800}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 375, "height": 760}, "is_mobile": True, "has_touch": True},
}


@contextmanager
def served(app):
    """Serve on a free port of this machine."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + 10
    while not (server.started and app.state.service.judge):
        assert time.monotonic() < end, "the server did not start"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.fixture(scope="module")
def address(judge):
    with served(make_app(lambda: judge, limits=Limits(max_bytes=50_000))) as url:
        yield url


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium: apt-get install chromium")
    with playwright.sync_playwright() as runner:
        opened = runner.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser, address):
    """Open the page; at the end, nothing was asked of another origin, or failed or was refused."""
    contexts, asked, failed = [], [], []

    def make(url=address, **look):
        context = browser.new_context(**look)
        contexts.append(context)
        context.on("request", lambda request: asked.append((url, request.url)))
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: failed.append(str(error)))
        page.on("console", lambda said: failed.extend([said.text] * (POLICY in said.text)))
        page.goto(url)
        return page

    yield make
    for context in contexts:
        context.close()
    outside = [it for url, it in asked if not it.startswith((url, f"blob:{url}", "data:"))]
    assert asked
    assert outside == []
    assert failed == []


def drop(page, name, data):
    page.evaluate(DROP, [name, list(data)])


def is_done(page):
    playwright.expect(page.locator("#status")).to_contain_text("done", timeout=15_000)


def test_dropped_images_are_judged_shown_and_kept(open_page, browser, judge, named, tmp_path):
    page = open_page()
    drop(page, HOSTILE, named)
    is_done(page)
    article = page.locator("article")
    assert article.locator("h3").inner_text() == HOSTILE
    assert page.evaluate("document.activeElement.tagName") == "H3"
    assert article.locator("tr").count() == 2
    assert "its metadata name a generator" in article.locator(".claim").inner_text()
    article.get_by_role("button", name="Show where").click()
    overlay = article.locator(".overlay")
    overlay.wait_for()
    article.locator(".slider input").fill("25")
    assert overlay.evaluate("image => image.style.opacity") == "0.25"
    with page.expect_download() as found:
        article.get_by_role("button", name="JSON").click()
    said = json.loads(Path(found.value.path()).read_text())
    assert said["model"] == judge.model
    assert said["files"][0]["of_pixels"] in article.locator(".words").inner_text().lower()
    with page.expect_download() as found:
        article.get_by_role("button", name="HTML").click()
    report = tmp_path / "report.html"
    found.value.save_as(report)
    kept = browser.new_page()
    asked = []
    kept.on("request", lambda request: asked.append(request.url))
    kept.goto(report.as_uri())
    assert kept.title().startswith(HOSTILE)
    assert kept.locator("h1").inner_text() == HOSTILE
    assert "never means authentic" in kept.locator(".note").inner_text()
    images = kept.locator("img")
    assert images.count() == 2
    assert all(images.nth(i).evaluate("image => image.naturalWidth > 0") for i in range(2))
    assert kept.locator("script").count() == 0
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    kept.close()


def test_everything_is_done_by_keyboard(open_page, png):
    page = open_page()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "files"
    assert page.evaluate("getComputedStyle(document.querySelector('label.main')).outlineStyle") != (
        "none"
    )
    with page.expect_file_chooser(timeout=20_000) as chooser:
        page.wait_for_timeout(200)  # until it listens
        page.keyboard.press("Enter")
    files = [{"name": f"{n}.png", "mimeType": "image/png", "buffer": png(n)} for n in range(2)]
    chooser.value.set_files(files)
    is_done(page)
    assert page.evaluate("document.activeElement.textContent") == "0.png"
    for _ in range(2):  # the first is "More about the file"
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Show where"
    page.keyboard.press("Enter")
    page.locator(".overlay").first.wait_for()
    assert page.evaluate("document.activeElement.type") == "range"
    page.keyboard.press("Home")
    assert page.locator(".overlay").first.evaluate("image => image.style.opacity") == "0"
    for _ in range(2):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Keep report (HTML)"
    page.get_by_role("button", name="Remove", exact=True).first.press("Enter")
    assert page.evaluate("document.activeElement.textContent") == "1.png"


def test_what_cannot_be_judged_is_told(open_page, png):
    page = open_page()
    page.evaluate(PASTE, ["notes.txt", list(b"text and no image")])
    is_done(page)
    assert "Not judged: not an image" in page.locator("article").inner_text()
    drop(page, "large.png", bytes(60_000))
    playwright.expect(page.locator("article")).to_have_count(2)
    is_done(page)
    assert "60.0 kB, more than the 50.0 kB" in page.locator("article").nth(1).inner_text()
    page.context.set_offline(True)
    drop(page, "a.png", png())
    playwright.expect(page.locator("article")).to_have_count(3)
    is_done(page)
    assert "does not answer" in page.locator("article").nth(2).inner_text()


def test_a_token_is_asked_for_and_kept_by_the_page_alone(open_page, judge, png):
    with served(make_app(lambda: judge, token="right")) as url:
        page = open_page(url)
        token = page.get_by_label("This server asks for a token")
        token.fill("wrong")
        token.press("Enter")
        playwright.expect(page.locator("#status")).to_contain_text("wrong")
        drop(page, "a.png", png())
        token.fill("right")
        token.press("Enter")
        is_done(page)
        assert page.locator("article").count() == 1
        assert page.locator("tr").count() == 2
        assert page.evaluate("[localStorage.length, sessionStorage.length]") == [0, 0]
        page.close()


@pytest.mark.parametrize("look", LOOKS)
def test_it_is_accessible_and_fits(open_page, png, tmp_path, look):
    page = open_page(**LOOKS[look])
    drop(page, "a.png", png())
    is_done(page)
    page.get_by_role("button", name="Show where").click()
    page.locator(".overlay").wait_for()
    drop(page, "notes.txt", b"text and no image")
    playwright.expect(page.locator("article")).to_have_count(2)
    is_done(page)
    for details in page.locator("summary:visible").all():
        details.click()
    page.screenshot(path=tmp_path / f"{look}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    if not AXE.is_file():
        pytest.skip(f"no {AXE.relative_to(ROOT)}: npm install --prefix .ci axe-core")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")["violations"]
    serious = [each for each in found if each["impact"] in ("serious", "critical")]
    assert serious == [], [(each["id"], each["nodes"][0]["html"]) for each in serious]
