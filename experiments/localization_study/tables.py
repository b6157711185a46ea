"""The tables of a localisation study, for text and HTML alike."""

from collections.abc import Callable, Mapping, Sequence
from string import ascii_uppercase
from typing import Any

import pandas as pd

from cnnsvm.evaluation.localization_records import ORIGINAL
from cnnsvm.localization.collapse import best_epoch
from cnnsvm.localization.masks import POLICIES
from cnnsvm.report.localization_scores import SCORES, score_cells
from cnnsvm.report.summaries import Row, interval_of
from cnnsvm.report.wording import format_interval, format_number, format_seconds, is_number
from localization_study.controls import CONTROLS
from localization_study.plan import SPLICED
from localization_study.study import Study

#: Turns an interval into a cell.
Form = Callable[[Mapping[str, Any]], str]

MATRIX = (
    "IoU, mean over the pictures of held-out sources. Rows: trained on; columns: judged on the "
    "pictures of that letter. False alarms: share of the pixels of untouched pictures that is "
    "called repainted."
)
CROSS = "IoU on spliced pictures of each engine, by what the localiser was trained on."
MASKS = "IoU. Rows: greys of the masks that counted in training; columns: in judging."
NO_GREYS = " No mask has a grey, so all policies are one and the rows that are missing are equal."
CONTROL = (
    "What any localiser must beat: calling every pixel repainted, and the mean of the training "
    "masks, whatever the picture is."
)
COST = (
    "Multiply-adds are those of one crop: convolutions and matrix products. Images a second are "
    "measured on random crops in batches, without decoding."
)


def long_form(interval: Mapping[str, Any]) -> str:
    """Write a value with its interval."""
    return format_interval(interval)


def short_form(interval: Mapping[str, Any]) -> str:
    """Write a value alone."""
    return format_number(interval.get("value"))


def study_tables(
    study: Study, costs: Mapping[str, Mapping[str, Any]], facts: Mapping[str, Any], form: Form
) -> list[dict[str, Any]]:
    """Make the tables that were asked for.

    Parameters
    ----------
    study : Study
    costs : mapping of str to mapping
        By design, see `localization_study.cost.measure_cost`.
    facts : mapping
        ``tables``, ``kinds``, ``main``, ``policy``, ``designs`` and ``sizes`` of the plan.
    form : callable
        `long_form` or `short_form`.

    Returns
    -------
    list of dict
        ``title``, ``note``, ``headers``, ``rows``; those without rows are left out.
    """
    asked = facts["tables"]
    clean = study.summary[study.summary["quality"].isna()]
    plain = clean[(clean[["policy", "judged_policy"]] == facts["policy"]).all(axis=1)]
    found = []
    if "matrix" in asked:
        found += [_matrix(plain, design, facts["kinds"], form) for design in facts["designs"]]
        found.append(_details(plain, facts))
    if "cross" in asked:
        found.append(_cross(plain, facts, form))
    if "masks" in asked:
        found.append(_masks(clean, facts, form))
    if "sizes" in asked:
        title = "Sizes of NIX-Net"
        found.append(_side_by_side(title, plain, facts["sizes"], costs, facts["main"], form))
    if "cost" in asked:
        title = "Side by side"
        found.append(_side_by_side(title, plain, facts["designs"], costs, facts["main"], form))
    if "jpeg" in asked:
        found += _jpeg(study.summary, facts, form)
    found += [_controls(study.controls, facts, form), _fits(study.fits)]
    return [entry for entry in found if entry["rows"]]


def _matrix(plain: pd.DataFrame, design: str, kinds: Sequence[str], form: Form) -> dict[str, Any]:
    own = plain[plain["design"] == design]
    rows, trained = [], set(own["trained_on"])  # some kinds are only judged on
    for letter, trained_on in zip(ascii_uppercase, kinds, strict=False):
        if trained_on not in trained:
            continue
        cells = [_cell(own, trained_on, kind, "per_image_iou", form) for kind in kinds]
        alarms = _cell(own, trained_on, ORIGINAL, "untouched_false_alarm", form)
        rows.append([f"{letter} {trained_on}", *cells, alarms])
    headers = ["trained on", *(f"on {letter}" for letter in ascii_uppercase[: len(kinds)])]
    letters = ", ".join(f"{a} {kind}" for a, kind in zip(ascii_uppercase, kinds, strict=False))
    note = MATRIX if len(rows) == len(kinds) else f"{MATRIX} Judged on: {letters}."
    return _table(f"{design}: trained on, judged on", note, [*headers, "false alarms"], rows)


def _details(plain: pd.DataFrame, facts: Mapping[str, Any]) -> dict[str, Any]:
    rows = []
    for row in plain.to_dict("records"):
        if row["design"] in facts["designs"] and row["judged_on"] == row["trained_on"]:
            name = f"{row['design']}, {row['trained_on']}"
            rows.append([name, str(row["n_images"]), *score_cells(row, all_intervals=False)])
    note = "Each localiser on held-out pictures of the kind that it was trained on."
    return _table("All scores", note, ["localiser", "n", *SCORES.values()], rows)


def _cross(plain: pd.DataFrame, facts: Mapping[str, Any], form: Form) -> dict[str, Any]:
    kinds = [kind for kind in facts["kinds"] if kind.endswith(SPLICED)]
    rows = []
    for design in facts["designs"] if len(kinds) > 1 else ():
        own = plain[plain["design"] == design]
        trained = set(own["trained_on"])
        for trained_on in [kind for kind in kinds if kind in trained]:
            cells = [_cell(own, trained_on, kind, "per_image_iou", form) for kind in kinds]
            rows.append([f"{design}, {trained_on.removesuffix(SPLICED)}", *cells])
    engines = [kind.removesuffix(SPLICED) for kind in kinds]
    return _table("From one engine to another", CROSS, ["trained on", *engines], rows)


def _masks(clean: pd.DataFrame, facts: Mapping[str, Any], form: Form) -> dict[str, Any]:
    design, main = facts["designs"][0], facts["main"]
    own = clean[(clean["design"] == design) & (clean["judged_on"] == main)]
    rows = []
    for policy in POLICIES:
        trained = own[(own["trained_on"] == main) & (own["policy"] == policy)]
        by_policy = {row["judged_policy"]: row for row in trained.to_dict("records")}
        if len(by_policy) == len(POLICIES):
            cells = [form(interval_of(by_policy[p], "per_image_iou")) for p in POLICIES]
            rows.append([f"trained with {policy}", *cells])
    note = MASKS + ("" if facts.get("has_greys", True) else NO_GREYS)
    headers = ["", *(f"judged with {policy}" for policy in POLICIES)]
    return _table(f"Greys of the masks: {design}, {main}", note, headers, rows)


def _side_by_side(
    title: str,
    plain: pd.DataFrame,
    designs: Sequence[str],
    costs: Mapping[str, Mapping[str, Any]],
    main: str,
    form: Form,
) -> dict[str, Any]:
    headers = ["localiser", "parameters, M", "multiply-adds, G", "training, images/s"]
    headers += ["inference, images/s", "IoU", "F1", "false alarms"]
    rows = []
    for design in designs:
        own, cost = plain[plain["design"] == design], costs.get(design, {})
        cells = [_scaled(cost.get("parameters"), 1e6), _scaled(cost.get("multiply_adds"), 1e9)]
        cells += [_scaled(cost.get(f"{what}_images_per_second"), 1) for what in _SPEEDS]
        cells += [_cell(own, main, main, f"per_image_{name}", form) for name in ("iou", "f1")]
        cells.append(_cell(own, main, ORIGINAL, "untouched_false_alarm", form))
        rows.append([design, *cells])
    return _table(f"{title}: {main}", COST, headers, rows)


_SPEEDS = ("train", "inference")


def _jpeg(summary: pd.DataFrame, facts: Mapping[str, Any], form: Form) -> list[dict[str, Any]]:
    """One table a score: rows are qualities, columns are designs."""
    own = summary[(summary["trained_on"] == facts["main"]) & (summary["policy"] == facts["policy"])]
    own = own[own["judged_policy"] == facts["policy"]]
    found = []
    for column, judged_on, name in _OF_JPEG:
        kind = judged_on or facts["main"]
        part = own[own["judged_on"] == kind]
        rows = []
        for quality in (None, *sorted(part["quality"].dropna().unique(), reverse=True)):
            is_it = part["quality"].isna() if quality is None else part["quality"] == quality
            by_design = {row["design"]: row for row in part[is_it].to_dict("records")}
            cells = [_of_row(by_design.get(design), column, form) for design in facts["designs"]]
            rows.append(["none" if quality is None else f"{quality:.0f}", *cells])
        note = f"Trained on {facts['main']}; the threshold stays as it was."
        found.append(_table(f"JPEG: {name}", note, ["JPEG quality", *facts["designs"]], rows))
    return found


#: Column, the pictures it is of (None: the main ones), and what it is called.
_OF_JPEG = (
    ("per_image_f1", None, "F1"),
    ("per_image_iou", None, "IoU"),
    ("pooled_auc", None, "pooled AUC"),
    ("untouched_false_alarm", ORIGINAL, "false alarms on untouched pictures"),
)


def _controls(controls: pd.DataFrame, facts: Mapping[str, Any], form: Form) -> dict[str, Any]:
    headers = ["pictures", *(f"{c}: {name}" for c in CONTROLS for name in ("IoU", "F1"))]
    rows = []
    for kind in facts["kinds"] if len(controls) else ():
        own = controls[controls["judged_policy"] == facts["policy"]]
        by_control = {r["control"]: r for r in own[own["judged_on"] == kind].to_dict("records")}
        if by_control:
            scores = ("per_image_iou", "per_image_f1")
            cells = [
                _of_row(by_control.get(c), column, form) for c in CONTROLS for column in scores
            ]
            rows.append([kind, *cells])
    return _table("Without looking at a picture", CONTROL, headers, rows)


def _fits(fits: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    rows = []
    for fit in fits:
        history = fit["history"]
        best = best_epoch(history)
        state = "none" if best is None else history[best]["state"]
        n_attempts = history[-1]["attempt"] + 1 if history else 0
        name = f"{fit['design']}, {fit['trained_on']}, {fit['policy']}"
        kept = "n/a" if best is None else format_number(history[best].get("valid_iou"))
        cells = [str(fit.get("n_images", "n/a")), str(len(history)), str(n_attempts)]
        rows.append([name, *cells, state, kept, format_seconds(fit.get("seconds"))])
    headers = ["localiser", "images", "epochs", "attempts", "best epoch", "validation IoU", "time"]
    note = "The time is that of the last uninterrupted part. A best epoch that is not learning is "
    return _table("Training", note + "a localiser of no use.", headers, rows)


def _cell(own: pd.DataFrame, trained_on: str, judged_on: str, column: str, form: Form) -> str:
    is_it = (own["trained_on"] == trained_on) & (own["judged_on"] == judged_on)
    rows = own[is_it].to_dict("records")
    return _of_row(rows[0] if rows else None, column, form)


def _of_row(row: Row | None, column: str, form: Form) -> str:
    return "-" if row is None else form(interval_of(row, column))


def _scaled(value: Any, unit: float) -> str:
    return f"{value / unit:.3g}" if is_number(value) else "n/a"


def _table(title: str, note: str, headers: list[str], rows: list[list[str]]) -> dict[str, Any]:
    return {"title": title, "note": note, "headers": headers, "rows": rows}
