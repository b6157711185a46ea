"""What the documentation names must exist: files, headings, commands, options, Python names."""

import ast
import contextlib
import importlib
import io
import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from cnnsvm.cli import SUBCOMMANDS, main

ROOT = Path(__file__).parents[1]
NAMES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "data/README.md", "examples/README.md")
TOP = [ROOT / name for name in NAMES]
PAGES = [*TOP, *sorted((ROOT / "docs").rglob("*.md"))]
REFERENCE = ROOT / "docs/reference"
COMMAND = re.compile(
    r"(?:^|[\s/`])(?:cnnsvm (?P<sub>[a-z][a-z-]*)|experiments/(?P<script>\w+)\.py)(?=\s|$|`)"
)
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def anchors(page):
    """Return the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in headings}


def commands(page):
    """Yield (subcommand or None, script or None, options) of each command of a page."""
    text = re.sub(r"\\\n\s+", "", page.read_text(encoding="utf-8"))
    indented = [line for line in text.splitlines() if line.startswith("    ")]
    for line in indented + re.findall(r"`([^`\n]+)`", text):
        found = COMMAND.search(line)
        if found:
            yield found["sub"], found["script"], OPTION.findall(line[found.end() :].split("#")[0])


def command_lines(page):
    """Yield the words of each whole call of ``cnnsvm`` in an indented block, up to a pipe."""
    text = re.sub(r"\\\n\s+", "", page.read_text(encoding="utf-8"))
    for line in re.findall(r"^    .*?\bcnnsvm ([a-z][a-z-]*(?: .*)?)$", text, re.MULTILINE):
        words = shlex.split(line, comments=True)
        if not {"...", "|", "--like"} & set(words):  # --like reads what cv has written
            yield words


@cache
def help_of(subcommand, script):
    text = io.StringIO()
    run = importlib.import_module(script).main if script else main
    with contextlib.redirect_stdout(text), pytest.raises(SystemExit):
        run(["--help"] if script else [subcommand, "--help"])
    return text.getvalue()


@pages
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name} links to {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name} links to {link}"


@pages
def test_commands_and_their_options_exist(page):
    for subcommand, script, options in commands(page):
        assert subcommand is None or subcommand in SUBCOMMANDS, f"cnnsvm {subcommand}"
        assert script is None or (ROOT / "experiments" / f"{script}.py").is_file(), script
        known = set(OPTION.findall(help_of(subcommand, script)))
        assert set(options) <= known, f"{subcommand or script}: {set(options) - known}"


@pages
def test_command_lines_are_understood(page, monkeypatch):
    seen = []
    for module in SUBCOMMANDS.values():
        monkeypatch.setattr(module, "main", lambda args: seen.append(args) or 0)
    lines = list(command_lines(page))
    assert all(main(words) == 0 for words in lines)
    assert len(seen) == len(lines)


@pages
def test_python_snippets_import_what_exists(page):
    for code in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("cnnsvm"):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), node.module


def test_the_documentation_has_commands_to_check():
    found = [command for page in PAGES for command in commands(page)]
    assert len(found) > 20
    assert any(options for _, _, options in found)


def test_every_subcommand_is_in_the_reference():
    text = (REFERENCE / "command-line.md").read_text(encoding="utf-8")
    for name in SUBCOMMANDS:
        assert f"`cnnsvm {name}" in text


def documented():
    """Return the objects that the reference documents; each must exist."""
    found = []
    for page in REFERENCE.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        for name in re.findall(r"^\.\. auto(?!module)\w+:: (\S+)$", text, re.MULTILINE):
            module, _, last = name.rpartition(".")
            found.append(getattr(importlib.import_module(module), last))
        listed = r"^\.\. automodule:: (\S+)\n   :members:(.*)$"
        for name, chosen in re.findall(listed, text, re.MULTILINE):
            module = importlib.import_module(name)
            names = chosen.split(",") if chosen else getattr(module, "__all__", [])
            found += [getattr(module, each.strip()) for each in names]
    return found


@pytest.mark.parametrize("package", ["cnnsvm", "cnnsvm.generation", "cnnsvm.report", "cnnsvm.svm"])
def test_every_public_name_is_in_the_reference(package):
    known = documented()
    module = importlib.import_module(package)
    for name in set(module.__all__) - {"__version__"}:
        assert any(getattr(module, name) is value for value in known), f"{package}.{name}"


def test_every_page_is_listed_in_the_index():
    text = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").rglob("*"):
        if page.suffix in (".md", ".ipynb") and page.name != "README.md":
            assert f"]({page.relative_to(ROOT / 'docs')})" in text, page.name


def test_the_readme_is_short_and_its_image_small():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
    assert (ROOT / "docs/images/heatmap.jpg").stat().st_size < 300_000
