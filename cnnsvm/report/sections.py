"""Parts of the pages of studies."""

from collections.abc import Mapping, Sequence
from typing import Any

from cnnsvm.report.markup import Html, definitions, element, join, paragraph, section, table
from cnnsvm.report.wording import format_value

_MAX_LISTED = 100


def tables(result: Mapping[str, Any]) -> Html:
    """Show what else was counted or compared, each table with its note."""
    return join(
        section(
            entry["title"],
            paragraph(entry["note"], class_="soft") if entry.get("note") else "",
            table(entry["headers"], entry["rows"]),
        )
        for entry in result.get("tables") or []
    )


def provenance(result: Mapping[str, Any]) -> Html:
    """List warnings, skipped images, settings and environment."""
    skipped = [
        element("li", element("code", entry["path"]), f": {entry['reason']}")
        for entry in result.get("skipped") or []
    ]
    warned = [element("li", warning) for warning in result.get("warnings") or []]
    return join(
        [
            section("Warnings", _bullets(warned)),
            section(f"Skipped images ({len(skipped)})", _bullets(skipped)),
            section("Settings", _values(result.get("settings"))),
            section("Environment", _values(result.get("environment"))),
        ]
    )


def _bullets(items: Sequence[Html]) -> Html:
    """List items, up to a number that a reader would still read."""
    if not items:
        return Html("")
    more = len(items) - _MAX_LISTED
    rest = [element("li", f"and {more} more, all in report.json")] if more > 0 else []
    return element("ul", *items[:_MAX_LISTED], *rest, class_="plain")


def _values(values: Mapping[str, Any] | None) -> Html:
    return definitions({name: format_value(value) for name, value in (values or {}).items()})
