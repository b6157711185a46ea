"""How scores of localisation are said in tables: under which names, a row a set of pictures."""

from collections.abc import Mapping

from cnnsvm.report.summaries import Row, interval_of
from cnnsvm.report.wording import format_interval, format_number, is_number, percent

#: Column of a flat summary (`cnnsvm.evaluation.localization_judging.flatten`) -> its heading.
SCORES = {
    "per_image_iou": "IoU",
    "pooled_iou": "pooled IoU",
    "per_image_f1": "F1",
    "per_image_precision": "precision",
    "per_image_recall": "recall",
    "pooled_auc": "pooled AUC",
    "per_image_best_iou": "best IoU",
}
#: Those that have their intervals also where there is little room.
WITH_INTERVAL = ("per_image_iou", "pooled_iou")
MEANINGS = {
    "IoU": "intersection of what is called and what is repainted over their union, mean over the "
    "pictures; that of calling everything is the repainted share",
    "pooled IoU": "the same over the pixels of all pictures",
    "F1": "harmonic mean of precision and recall of the pixels, mean over the pictures",
    "pooled AUC": "chance that a repainted pixel scores above an untouched one; 0.5 is guessing",
    "best IoU": "with each picture's best threshold, chosen with the mask in hand: a bound",
    "false alarms": "share of the pixels of untouched pictures that is called repainted",
}
READINGS = (
    "A spliced picture is repainted inside its mask. A regenerated one went through the engine "
    "whole, so it is read in two ways that are kept apart: (mask) against the mask that the "
    "engine was given, as the earlier study scored its inpainted pictures, although all its pixels "
    "are the engine's; (whole) as repainted everywhere, where calling every pixel is right and a "
    "localiser that marks differences within a picture has nothing to find."
)


def score_cells(summary: Row, *, all_intervals: bool) -> list[str]:
    """Write the scores of one set of pictures, in the order of `SCORES`."""
    return [
        format_interval(interval_of(summary, name))
        if all_intervals or name in WITH_INTERVAL
        else format_number(summary[name])
        for name in SCORES
    ]


def kind_table(summaries: Mapping[str, Row]) -> tuple[list[str], list[list[str]]]:
    """Make headers and rows of the kinds that have something repainted."""
    rows = [
        [kind, str(summary["n_images"]), *score_cells(summary, all_intervals=False)]
        for kind, summary in summaries.items()
        if summary["n_images"] > summary["n_untouched"]
    ]
    return ["pictures", "n", *SCORES.values()], rows


def false_alarm_sentence(summary: Row | None) -> str:
    """Say how much of the untouched pictures is called repainted; empty if there are none."""
    if summary is None or not is_number(summary["untouched_false_alarm"]):
        return ""
    alarm = format_interval(interval_of(summary, "untouched_false_alarm"))
    return (
        f"Of the {summary['n_untouched']} untouched pictures, {alarm} of the pixels are called "
        f"repainted, and in {percent(summary['untouched_clean'])} of the pictures none is."
    )
