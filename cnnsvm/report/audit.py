"""The report on an audit: a verdict, a table of checks, then what to mend, worst first."""

from collections.abc import Mapping, Sequence
from typing import Any

from cnnsvm.audit.check import Verdict
from cnnsvm.report.model import Items, Report, Section, Table
from cnnsvm.report.wording import is_number

#: What each check looks at, in words for a table.
LOOKS_AT = {
    "balance": "classes, overall and by source",
    "splits": "sources and copies in two splits",
    "duplicates": "one image under two sources",
    "labels": "fakes that are their original",
    "post-processing": "formats, quality, sizes by class",
    "metadata": "headers alone as a classifier",
    "resampling": "resizes of the fakes only",
    "double_compression": "fakes only that were JPEGs",
    "outside_mask": "what should be untouched",
    "grid": "8-pixel periodicities",
    "colour": "colours without places",
    "file_size": "bits per pixel",
}
_CONCLUSIONS = {
    Verdict.LEAK: (
        "A classifier can tell real from fake here without seeing any inpainting. Results on "
        "these data mean nothing until the leaks are mended."
    ),
    Verdict.WARNING: (
        "No certain leak. What the warnings name may be one, or the engine's own trace: read them "
        "before you trust a result, which has to beat the numbers of the probes."
    ),
    Verdict.PASS: "None of the checks found a way to cheat, as far as they can see.",
}
_CONCLUSIONS[Verdict.NOT_CHECKED] = _CONCLUSIONS[Verdict.PASS] + " Some could not be made."
_BLIND_SPOTS = (
    "Not seen by any check: resizes by 2, 4 or 8 and their fractions, whose traces an "
    "engine leaves too; resizes by a few per cent; a JPEG before a crop or a resize; "
    "filters on one class; what header entries say (their names are compared); "
    "and what the images show."
)
_TITLES = {
    Verdict.LEAK: "Leaks",
    Verdict.WARNING: "Warnings",
    Verdict.NOT_CHECKED: "Not checked",
    Verdict.PASS: "Passed",
}


def audit_report(result: Mapping[str, Any]) -> Report:
    """Make the report on what `cnnsvm.audit.audit.audit` returned.

    Its ``data`` (a name) and ``left_out`` (a list of ``path`` and ``reason``) are reported too.
    """
    checks = result["checks"]
    probed = f"{result['n_probed_images']:,} images from {result['n_probed_sources']:,} sources"
    headers = ["check", "looks at", "verdict", "ROC AUC [95 % interval]"]
    rows = [_row(check) for check in checks]
    return Report(
        {**result, "skipped": result.get("left_out")},
        f"Audit: {result['verdict']}",
        findings=[_CONCLUSIONS[result["verdict"]]],
        notes=[
            f"The probes looked at {probed}, as many real as fake of each record, in "
            f"{result['n_splits']} folds by source.",
            _BLIND_SPOTS,
        ],
        sections=[
            Section("Checks", [Table(headers, rows, prose=("looks at", "verdict"))]),
            *(_of_verdict(verdict, checks) for verdict in _TITLES),
        ],
        name="audit",
    )


def _row(check: Mapping[str, Any]) -> list[Any]:
    auc = {"value": check["auc"], "low": check["low"], "high": check["high"]}
    looks_at = LOOKS_AT.get(check["name"], "")
    return [check["name"], looks_at, check["verdict"], auc if is_number(check["auc"]) else ""]


def _of_verdict(verdict: Verdict, checks: Sequence[Mapping[str, Any]]) -> Section:
    chosen = [check for check in checks if check["verdict"] == verdict]
    names: dict[str, list[str]] = {}
    for check in chosen:  # what holds for several is said once
        has_remedy = check["remedy"] and verdict != Verdict.PASS
        remedy = f" What to do: {check['remedy']}" if has_remedy else ""
        names.setdefault(f"{check['summary']}{remedy}", []).append(check["name"])
    items = [(", ".join(found), said) for said, found in names.items()]
    return Section(f"{_TITLES[verdict]} ({len(chosen)})", [Items(items)])
