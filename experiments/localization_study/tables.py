"""The tables of a localisation study: on the page with intervals, in text without."""

from collections.abc import Iterator, Mapping, Sequence
from string import ascii_uppercase
from typing import Any

import pandas as pd

from cnnsvm.evaluation.localization_records import ORIGINAL
from cnnsvm.localization.collapse import best_epoch
from cnnsvm.localization.masks import POLICIES
from cnnsvm.report.model import Section, Table
from cnnsvm.report.wording import (
    LOCALIZATION_SCORES,
    Row,
    format_seconds,
    interval_of,
    is_number,
    localization_cells,
)
from localization_study.controls import CONTROLS
from localization_study.plan import SPLICED
from localization_study.study import Study

MATRIX = (
    "IoU, mean over the images of held-out sources. Rows: trained on; columns: judged on the "
    "images of that letter. False alarms: share of the pixels of untouched images that is "
    "called repainted."
)
CROSS = "IoU on spliced images of each engine, by what the localiser was trained on."
MASKS = "IoU. Rows: greys of the masks that counted in training; columns: in judging."
NO_GREYS = " No mask has a grey, so all policies are one and the rows that are missing are equal."
CONTROL = (
    "What any localiser must beat: calling every pixel repainted, and the mean of the training "
    "masks, whatever the image is."
)
COST = (
    "Multiply-adds are those of one crop: convolutions and matrix products. Images a second are "
    "measured on random crops in batches, without decoding."
)


#: Column, the images it is of (None: the main ones), and what it is called.
OF_JPEG = (
    ("per_image_f1", None, "F1"),
    ("per_image_iou", None, "IoU"),
    ("pooled_auc", None, "pooled AUC"),
    ("untouched_false_alarm", ORIGINAL, "false alarms on untouched images"),
)
Costs = Mapping[str, Mapping[str, Any]]


def study_tables(study: Study, costs: Costs, facts: Mapping[str, Any]) -> Iterator[Section]:
    """Make the tables that were asked for, a section each.

    Parameters
    ----------
    study : Study
    costs : mapping of str to mapping
        By design, see `localization_study.cost.measure_cost`.
    facts : mapping
        ``tables``, ``kinds``, ``main``, ``policy``, ``designs`` and ``sizes`` of the plan.
    """
    asked = facts["tables"]
    clean = study.summary[study.summary["quality"].isna()]
    plain = clean[(clean[["policy", "judged_policy"]] == facts["policy"]).all(axis=1)]
    if "matrix" in asked:
        for design in facts["designs"]:
            yield _matrix(plain, design, facts["kinds"])
        yield _details(plain, facts)
    if "cross" in asked:
        yield _cross(plain, facts)
    if "masks" in asked:
        yield _masks(clean, facts)
    if "sizes" in asked:
        yield _side_by_side("Sizes of NIX-Net", plain, facts["sizes"], costs, facts["main"])
    if "cost" in asked:
        yield _side_by_side("Side by side", plain, facts["designs"], costs, facts["main"])
    if "jpeg" in asked:
        yield from _jpeg(study.summary, facts)
    yield _controls(study.controls, facts)
    yield _fits(study.fits)


def _matrix(plain: pd.DataFrame, design: str, kinds: Sequence[str]) -> Section:
    own = plain[plain["design"] == design]
    rows, trained = [], set(own["trained_on"])  # some kinds are only judged on
    for letter, trained_on in zip(ascii_uppercase, kinds, strict=False):
        if trained_on in trained:
            cells = [_cell(own, trained_on, kind, "per_image_iou") for kind in kinds]
            alarms = _cell(own, trained_on, ORIGINAL, "untouched_false_alarm")
            rows.append([f"{letter} {trained_on}", *cells, alarms])
    headers = ["trained on", *(f"on {letter}" for letter in ascii_uppercase[: len(kinds)])]
    letters = ", ".join(f"{a} {kind}" for a, kind in zip(ascii_uppercase, kinds, strict=False))
    note = MATRIX if len(rows) == len(kinds) else f"{MATRIX} Judged on: {letters}."
    return Section(
        f"{design}: trained on, judged on", [Table([*headers, "false alarms"], rows)], note
    )


def _details(plain: pd.DataFrame, facts: Mapping[str, Any]) -> Section:
    rows = [
        [f"{row['design']}, {row['trained_on']}", row["n_images"], *localization_cells(row)]
        for row in plain.to_dict("records")
        if row["design"] in facts["designs"] and row["judged_on"] == row["trained_on"]
    ]
    note = "Each localiser on held-out images of the kind that it was trained on."
    headers = ["localiser", "n", *LOCALIZATION_SCORES.values()]
    return Section("All scores", [Table(headers, rows)], note)


def _cross(plain: pd.DataFrame, facts: Mapping[str, Any]) -> Section:
    kinds = [kind for kind in facts["kinds"] if kind.endswith(SPLICED)]
    rows = []
    for design in facts["designs"] if len(kinds) > 1 else ():
        own = plain[plain["design"] == design]
        trained = set(own["trained_on"])
        for trained_on in [kind for kind in kinds if kind in trained]:
            cells = [_cell(own, trained_on, kind, "per_image_iou") for kind in kinds]
            rows.append([f"{design}, {trained_on.removesuffix(SPLICED)}", *cells])
    engines = [kind.removesuffix(SPLICED) for kind in kinds]
    return Section("From one engine to another", [Table(["trained on", *engines], rows)], CROSS)


def _masks(clean: pd.DataFrame, facts: Mapping[str, Any]) -> Section:
    design, main = facts["designs"][0], facts["main"]
    own = clean[(clean["design"] == design) & (clean["judged_on"] == main)]
    rows = []
    for policy in POLICIES:
        trained = own[(own["trained_on"] == main) & (own["policy"] == policy)]
        by_policy = {row["judged_policy"]: row for row in trained.to_dict("records")}
        if len(by_policy) == len(POLICIES):
            cells = [interval_of(by_policy[p], "per_image_iou") for p in POLICIES]
            rows.append([f"trained with {policy}", *cells])
    note = MASKS + ("" if facts.get("has_greys", True) else NO_GREYS)
    headers = ["", *(f"judged with {policy}" for policy in POLICIES)]
    return Section(f"Greys of the masks: {design}, {main}", [Table(headers, rows)], note)


def _side_by_side(
    title: str, plain: pd.DataFrame, designs: Sequence[str], costs: Costs, main: str
) -> Section:
    headers = ["localiser", "parameters, M", "multiply-adds, G", "training, images/s"]
    headers += ["inference, images/s", "IoU", "F1", "false alarms"]
    rows = []
    for design in designs:
        own, cost = plain[plain["design"] == design], costs.get(design, {})
        cells = [_scaled(cost.get("parameters"), 1e6), _scaled(cost.get("multiply_adds"), 1e9)]
        for part in ("train", "inference"):
            cells.append(_scaled(cost.get(f"{part}_images_per_second"), 1))
        scores = [_cell(own, main, main, f"per_image_{name}") for name in ("iou", "f1")]
        alarms = _cell(own, main, ORIGINAL, "untouched_false_alarm")
        rows.append([design, *cells, *scores, alarms])
    return Section(f"{title}: {main}", [Table(headers, rows)], COST)


def _jpeg(summary: pd.DataFrame, facts: Mapping[str, Any]) -> Iterator[Section]:
    """Make one table a score: rows are qualities, columns are designs."""
    own = summary[(summary[["policy", "judged_policy"]] == facts["policy"]).all(axis=1)]
    own = own[own["trained_on"] == facts["main"]]
    for column, judged_on, name in OF_JPEG:
        part = own[own["judged_on"] == (judged_on or facts["main"])]
        rows = []
        for quality in (None, *sorted(part["quality"].dropna().unique(), reverse=True)):
            is_it = part["quality"].isna() if quality is None else part["quality"] == quality
            by_design = {row["design"]: row for row in part[is_it].to_dict("records")}
            cells = [_of_row(by_design.get(design), column) for design in facts["designs"]]
            rows.append(["none" if quality is None else f"{quality:.0f}", *cells])
        note = f"Trained on {facts['main']}; the threshold stays as it was."
        yield Section(f"JPEG: {name}", [Table(["JPEG quality", *facts["designs"]], rows)], note)


def _controls(controls: pd.DataFrame, facts: Mapping[str, Any]) -> Section:
    headers = ["images", *(f"{c}: {name}" for c in CONTROLS for name in ("IoU", "F1"))]
    rows = []
    for kind in facts["kinds"] if len(controls) else ():
        own = controls[controls["judged_policy"] == facts["policy"]]
        by_control = {r["control"]: r for r in own[own["judged_on"] == kind].to_dict("records")}
        if by_control:
            scores = ("per_image_iou", "per_image_f1")
            rows.append([kind, *(_of_row(by_control.get(c), s) for c in CONTROLS for s in scores)])
    return Section("Without looking at an image", [Table(headers, rows)], CONTROL)


def _fits(fits: Sequence[Mapping[str, Any]]) -> Section:
    rows = []
    for fit in fits:
        history = fit["history"]
        best = best_epoch(history)
        state = "none" if best is None else history[best]["state"]
        n_attempts = history[-1]["attempt"] + 1 if history else 0
        name = f"{fit['design']}, {fit['trained_on']}, {fit['policy']}"
        iou = None if best is None else history[best].get("valid_iou")
        rows.append(
            [
                name,
                fit.get("n_images"),
                len(history),
                n_attempts,
                state,
                iou,
                format_seconds(fit.get("seconds")),
            ]
        )
    headers = ["localiser", "images", "epochs", "attempts", "best epoch", "validation IoU"]
    note = (
        "The time is that of the last uninterrupted part. A best epoch that is not learning is a "
        "localiser of no use."
    )
    return Section("Training", [Table([*headers, "time"], rows)], note)


def _cell(own: pd.DataFrame, trained_on: str, judged_on: str, column: str) -> Any:
    is_it = (own["trained_on"] == trained_on) & (own["judged_on"] == judged_on)
    rows = own[is_it].to_dict("records")
    return _of_row(rows[0] if rows else None, column)


def _of_row(row: Row | None, column: str) -> Any:
    return "-" if row is None else interval_of(row, column)


def _scaled(value: Any, unit: float) -> str:
    return f"{value / unit:.3g}" if is_number(value) else "n/a"
