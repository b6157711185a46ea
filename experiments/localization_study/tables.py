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
#: Column of the costs -> its unit.
UNITS = {"parameters": 1e6, "multiply_adds": 1e9}
UNITS |= {"train_images_per_second": 1, "inference_images_per_second": 1}
Costs = Mapping[str, Mapping[str, Any]]
Rows = dict[tuple[Any, ...], Row]


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
    asked, designs = facts["tables"], facts["designs"]
    clean = study.summary[study.summary["quality"].isna()]
    usual = (study.summary[["policy", "judged_policy"]] == facts["policy"]).all(axis=1)
    plain = _by(clean[usual[clean.index]], "design", "trained_on", "judged_on")
    if "matrix" in asked:
        yield from (_matrix(plain, design, facts["kinds"]) for design in designs)
        yield _details(plain, designs)
    if "cross" in asked:
        yield _cross(plain, facts)
    if "masks" in asked:
        yield _masks(clean, facts)
    if "sizes" in asked:
        yield _side_by_side("Sizes of NIX-Net", plain, facts["sizes"], costs, facts["main"])
    if "cost" in asked:
        yield _side_by_side("Side by side", plain, designs, costs, facts["main"])
    if "jpeg" in asked:
        yield from _jpeg(study.summary[usual], facts)
    yield _controls(study.controls, facts)
    yield _fits(study.fits)


def _by(rows: pd.DataFrame, *columns: str) -> Rows:
    """Look rows up by what stands in some columns."""
    return {tuple(row[name] for name in columns): row for row in rows.to_dict("records")}


def _cell(rows: Rows, key: tuple[Any, ...], column: str) -> Any:
    return interval_of(rows[key], column) if key in rows else "-"


def _trained(plain: Rows, design: str, kinds: Sequence[str]) -> list[str]:
    """List the kinds that a design was trained on; some are only judged on."""
    known = {trained_on for name, trained_on, _ in plain if name == design}
    return [kind for kind in kinds if kind in known]


def _matrix(plain: Rows, design: str, kinds: Sequence[str]) -> Section:
    letters = dict(zip(kinds, ascii_uppercase, strict=False))
    rows = []
    for kind in _trained(plain, design, kinds):
        cells = [_cell(plain, (design, kind, judged), "per_image_iou") for judged in kinds]
        alarms = _cell(plain, (design, kind, ORIGINAL), "untouched_false_alarm")
        rows.append([f"{letters[kind]} {kind}", *cells, alarms])
    note, named = MATRIX, ", ".join(f"{letter} {kind}" for kind, letter in letters.items())
    note += "" if len(rows) == len(kinds) else f" Judged on: {named}."
    headers = ["trained on", *(f"on {letter}" for letter in letters.values()), "false alarms"]
    return Section(f"{design}: trained on, judged on", [Table(headers, rows)], note)


def _details(plain: Rows, designs: Sequence[str]) -> Section:
    rows = [
        [f"{design}, {trained_on}", row["n_images"], *localization_cells(row)]
        for (design, trained_on, judged_on), row in plain.items()
        if design in designs and judged_on == trained_on
    ]
    note = "Each localiser on held-out images of the kind that it was trained on."
    headers = ["localiser", "n", *LOCALIZATION_SCORES.values()]
    return Section("All scores", [Table(headers, rows)], note)


def _cross(plain: Rows, facts: Mapping[str, Any]) -> Section:
    kinds = [kind for kind in facts["kinds"] if kind.endswith(SPLICED)]
    rows = [
        [f"{design}, {kind.removesuffix(SPLICED)}"]
        + [_cell(plain, (design, kind, judged), "per_image_iou") for judged in kinds]
        for design in facts["designs"]
        for kind in _trained(plain, design, kinds)
    ]
    headers = ["trained on", *(kind.removesuffix(SPLICED) for kind in kinds)]
    table = Table(headers, rows if len(kinds) > 1 else [])
    return Section("From one engine to another", [table], CROSS)


def _masks(clean: pd.DataFrame, facts: Mapping[str, Any]) -> Section:
    design, main = facts["designs"][0], facts["main"]
    on_main = (clean[["trained_on", "judged_on"]] == main).all(axis=1)
    own = _by(clean[on_main & (clean["design"] == design)], "policy", "judged_policy")
    rows = [
        [f"trained with {p}", *(_cell(own, (p, q), "per_image_iou") for q in POLICIES)]
        for p in POLICIES
        if all((p, q) in own for q in POLICIES)
    ]
    note = MASKS + ("" if facts.get("has_greys", True) else NO_GREYS)
    headers = ["", *(f"judged with {policy}" for policy in POLICIES)]
    return Section(f"Greys of the masks: {design}, {main}", [Table(headers, rows)], note)


def _side_by_side(
    title: str, plain: Rows, designs: Sequence[str], costs: Costs, main: str
) -> Section:
    headers = ["localiser", "parameters, M", "multiply-adds, G", "training, images/s"]
    headers += ["inference, images/s", "IoU", "F1", "false alarms"]
    rows = []
    for design in designs:
        cost = costs.get(design, {})
        cells = [_scaled(cost.get(name), unit) for name, unit in UNITS.items()]
        scores = [_cell(plain, (design, main, main), f"per_image_{n}") for n in ("iou", "f1")]
        alarms = _cell(plain, (design, main, ORIGINAL), "untouched_false_alarm")
        rows.append([design, *cells, *scores, alarms])
    return Section(f"{title}: {main}", [Table(headers, rows)], COST)


def _jpeg(usual: pd.DataFrame, facts: Mapping[str, Any]) -> Iterator[Section]:
    """Make one table a score: rows are qualities, columns are designs."""
    own = usual[usual["trained_on"] == facts["main"]]
    names = own["quality"].map(lambda quality: "none" if pd.isna(quality) else f"{quality:.0f}")
    found = _by(own.assign(name=names), "judged_on", "name", "design")
    qualities = sorted(own["quality"].dropna().unique(), reverse=True)
    for column, judged_on, score in OF_JPEG:
        kind = judged_on or facts["main"]
        rows = [
            [name, *(_cell(found, (kind, name, design), column) for design in facts["designs"])]
            for name in ("none", *(f"{quality:.0f}" for quality in qualities))
        ]
        note = f"Trained on {facts['main']}; the threshold stays as it was."
        yield Section(f"JPEG: {score}", [Table(["JPEG quality", *facts["designs"]], rows)], note)


def _controls(controls: pd.DataFrame, facts: Mapping[str, Any]) -> Section:
    headers = ["images", *(f"{c}: {name}" for c in CONTROLS for name in ("IoU", "F1"))]
    columns = [(c, f"per_image_{name}") for c in CONTROLS for name in ("iou", "f1")]
    found = _by(controls, "judged_policy", "judged_on", "control")
    rows = [
        [kind, *(_cell(found, (facts["policy"], kind, c), column) for c, column in columns)]
        for kind in facts["kinds"]
        if any((facts["policy"], kind, c) in found for c in CONTROLS)
    ]
    return Section("Without looking at an image", [Table(headers, rows)], CONTROL)


def _fits(fits: Sequence[Mapping[str, Any]]) -> Section:
    rows = []
    for fit in fits:
        history = fit["history"]
        best = best_epoch(history)
        used = {"state": "none"} if best is None else history[best]
        n_attempts = history[-1]["attempt"] + 1 if history else 0
        name = f"{fit['design']}, {fit['trained_on']}, {fit['policy']}"
        cells = [fit.get("n_images"), len(history), n_attempts, used["state"]]
        rows.append([name, *cells, used.get("valid_iou"), format_seconds(fit.get("seconds"))])
    headers = ["localiser", "images", "epochs", "attempts", "best epoch", "validation IoU", "time"]
    note = (
        "The time is that of the last uninterrupted part. A best epoch that is not learning is a "
        "localiser of no use."
    )
    return Section("Training", [Table(headers, rows)], note)


def _scaled(value: Any, unit: float) -> str:
    return f"{value / unit:.3g}" if is_number(value) else "n/a"
