"""What the reports on tables of intervals have in common: heads, cards, warnings."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cnnsvm.report.markup import Html, element, join, paragraph
from cnnsvm.report.text import WIDTH
from cnnsvm.report.wording import format_interval, format_seconds

Row = Mapping[Any, Any]  # of a summary

#: The page's style where plots take a whole line.
WIDE = ".plots.wide { grid-template-columns: minmax(0, 40rem); }"


def interval_of(row: Row, name: str) -> dict[str, Any]:
    """Collect ``name``, ``name_low`` and ``name_high`` of a row."""
    return {"value": row[name], "low": row[f"{name}_low"], "high": row[f"{name}_high"]}


def size_of(facts: Mapping[str, Any]) -> str:
    """Say how many images and sources there were, and in how many folds or what ``split``."""
    size = f"{facts.get('n_images', '?')} images from {facts.get('n_sources', '?')} sources"
    split = f"{facts['n_folds']} folds" if facts.get("n_folds") else facts.get("split")
    return f"{size}, {split}" if split else size


def warnings_of(facts: Mapping[str, Any], file: str) -> list[str]:
    """List warnings, and what was left out in one line that names the file that lists it."""
    skipped = facts.get("skipped") or []
    warned = [str(text) for text in facts.get("warnings") or []]
    if skipped:
        first = f"{skipped[0]['path']}: {skipped[0]['reason']}"
        warned.append(f"{len(skipped)} image(s) left out, all in {file}; first {first}")
    return warned


def text_head(title: str, facts: Mapping[str, Any]) -> str:
    """Write title, data, size and command as text."""
    lines = {"data": facts.get("data"), "size": size_of(facts), "command": facts.get("command")}
    head = [f"{name:9}{value}" for name, value in lines.items() if value]
    return "\n".join([title, "=" * min(len(title), WIDTH), *head])


def text_tail(files: Iterable[Path]) -> list[str]:
    """List the files that were written, as a block of text; no block without any."""
    paths = [f"  {path}" for path in files]
    return ["\n".join(["Written to", *paths])] if paths else []


def page_head(title: str, facts: Mapping[str, Any]) -> Html:
    """Write title, data, size, time and command as HTML."""
    parts = [facts.get("data"), size_of(facts)]
    parts += [format_seconds(facts["seconds"])] if "seconds" in facts else []
    command = facts.get("command")
    return join(
        [
            element("h1", title),
            paragraph(" · ".join(str(part) for part in parts if part), class_="soft"),
            paragraph(element("code", command), class_="command") if command else "",
        ]
    )


def card(label: str, interval: Mapping[str, Any]) -> Html:
    """Show a number large, with its interval beneath if it has one."""
    value, _, bounds = format_interval(interval).partition(" ")
    spans = [element("span", label), element("strong", value)]
    return element("li", *spans, element("span", "" if bounds == "[n/a]" else bounds))
