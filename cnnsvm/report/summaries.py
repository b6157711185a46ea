"""What reports on tables of intervals have in common: heads, cards, sentences, warnings."""

import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cnnsvm.report.markup import Html, element, html, join, paragraph
from cnnsvm.report.text import WIDTH
from cnnsvm.report.wording import format_interval, format_seconds, is_number, percent

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


def trust(text: str, *, alarming: bool = False) -> Html:
    """Write the paragraph that says what the numbers rest on."""
    content = element("strong", "How far to trust this. ") + html(text)
    return paragraph(Html(content), class_="note alarm" if alarming else "note")


def wrapped(text: str) -> str:
    """Break prose into lines as wide as the tables are."""
    return textwrap.fill(text, WIDTH, break_long_words=False)


def outcome(subject: str, row: Row) -> str:
    """Say in a sentence how well fakes are ranked, how many are found, and the false alarms."""
    sentence = f"{subject}: ROC AUC {format_interval(interval_of(row, 'roc_auc'))}"
    rates = [row["detection_rate"], row["false_alarm_rate"]]
    if not all(map(is_number, rates)):
        return f"{sentence}."
    found, alarms = map(percent, rates)
    return f"{sentence}; {found} of the fakes and {alarms} of the originals are called fake."


def card(label: str, interval: Mapping[str, Any]) -> Html:
    """Show a number large, with its interval beneath if it has one."""
    value, _, bounds = format_interval(interval).partition(" ")
    spans = [element("span", label), element("strong", value)]
    return element("li", *spans, element("span", "" if bounds == "[n/a]" else bounds))
