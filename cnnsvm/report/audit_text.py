"""An audit as plain text, for standard output: a table, then what to mend, worst first."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from cnnsvm.audit.check import LEAK, NOT_CHECKED, PASS, WARNING
from cnnsvm.report.text import WIDTH
from cnnsvm.report.wording import format_interval, format_seconds

#: What each check looks at, in words for a table.
LOOKS_AT = {
    "balance": "classes, overall and by source",
    "splits": "sources and copies in two splits",
    "duplicates": "one picture under two sources",
    "histories": "formats, quality, sizes by class",
    "metadata": "headers alone as a classifier",
    "resampling": "resizes of the fakes only",
    "jpeg_past": "fakes only that were JPEGs",
    "outside_mask": "what should be untouched",
    "grid": "8-pixel periodicities",
    "colour": "colours without places",
    "file_size": "bits a pixel",
}
_CONCLUSIONS = {
    LEAK: (
        "A classifier can tell real from fake here without seeing any inpainting. Results on "
        "these data mean nothing until the leaks are mended."
    ),
    WARNING: (
        "No certain leak. What the warnings name may be one, or the engine's own trace: read them "
        "before you trust a result, which has to beat the numbers of the probes."
    ),
    PASS: "None of the checks found a way to cheat, as far as they can see.",
}
_CONCLUSIONS[NOT_CHECKED] = _CONCLUSIONS[PASS] + " Some could not be made."
_BLIND_SPOTS = (
    "Not seen by any check: resizes by 2, 4 or 8 and their fractions, whose traces an engine "
    "leaves too; resizes by a few per cent; a JPEG before a crop or a resize; filters on one "
    "class; what header entries say (their names are compared); and what the pictures show."
)
_TITLES = {LEAK: "Leaks", WARNING: "Warnings", NOT_CHECKED: "Not checked", PASS: "Passed"}
_SHOWN = 5


def format_audit(result: Mapping[str, Any]) -> str:
    """Write the result of an audit as text.

    Parameters
    ----------
    result : mapping
        As `cnnsvm.audit.audit.audit` returns it; ``data`` (a name) and ``left_out`` (a list
        of ``path`` and ``reason``) are told too.

    Returns
    -------
    str
        Lines of at most 98 characters, unless a path is longer, with a final newline.
    """
    checks = result["checks"]
    sections = [
        _header(result),
        _table(checks),
        _fill(_CONCLUSIONS[result["verdict"]]),
        *(_section(verdict, checks) for verdict in (LEAK, WARNING, NOT_CHECKED, PASS)),
        _left_out(result.get("left_out") or []),
        _fill(_BLIND_SPOTS),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _header(result: Mapping[str, Any]) -> str:
    title = f"Audit: {result['verdict']}"
    size = f"{result['n_images']} images from {result['n_sources']} sources"
    probed = f"{result['n_probed_images']} images from {result['n_probed_sources']} sources"
    how = "as many real as fake of each record"
    facts = {
        "data": result.get("data"),
        "size": size,
        "probed": f"{probed}, {how}, {result['n_splits']} folds by source",
        "time": format_seconds(result.get("seconds")),
    }
    lines = [f"{name:9}{value}" for name, value in facts.items() if value]
    return "\n".join([title, "=" * len(title), *lines])


def _table(checks: Sequence[Mapping[str, Any]]) -> str:
    lines = [f"  {'check':14}{'looks at':36}{'verdict':13}ROC AUC [95 % interval]"]
    for check in checks:
        auc = {"value": check["auc"], "low": check["low"], "high": check["high"]}
        shown = format_interval(auc) if check["auc"] is not None else ""
        looks_at = LOOKS_AT.get(check["name"], "")
        lines.append(f"  {check['name']:14}{looks_at:36}{check['verdict']:13}{shown}".rstrip())
    return "\n".join(lines)


def _section(verdict: str, checks: Sequence[Mapping[str, Any]]) -> str:
    chosen = [check for check in checks if check["verdict"] == verdict]
    if not chosen:
        return ""
    names: dict[tuple[str, str], list[str]] = {}
    for check in chosen:  # what holds for several is said once
        names.setdefault((check["summary"], check["remedy"]), []).append(check["name"])
    lines = [f"{_TITLES[verdict]} ({len(chosen)})"]
    for (summary, remedy), found in names.items():
        lines.append(_item(f"{', '.join(found)}: {summary}"))
        if remedy and verdict != PASS:
            lines.append(_item(f"What to do: {remedy}", indent="    "))
    return "\n".join(lines)


def _left_out(items: Sequence[Mapping[str, str]]) -> str:
    if not items:
        return ""
    lines = [_item(f"{item['path']}: {item['reason']}") for item in items[:_SHOWN]]
    more = [f"  and {len(items) - _SHOWN} more."] if len(items) > _SHOWN else []
    return "\n".join([f"Left out ({len(items)})", *lines, *more])


def _fill(text: str) -> str:
    return textwrap.fill(text, WIDTH)


def _item(text: str, indent: str = "  ") -> str:
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
