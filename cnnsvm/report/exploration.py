"""The report on a data set: what is in it, and what to look at before anything is fitted."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from cnnsvm.audit.anomalies import CHECKS
from cnnsvm.audit.exploration import FILE_FEATURES, PIXEL_FEATURES
from cnnsvm.data.images import load_image
from cnnsvm.report import exploration_plots as plots
from cnnsvm.report.examples import choose_examples, examples_section
from cnnsvm.report.model import (
    Block,
    Card,
    Cell,
    Items,
    Plot,
    Plots,
    Report,
    Section,
    Table,
)
from cnnsvm.report.render import Loader
from cnnsvm.report.wording import common_folder, percent

#: Largest gap between the distributions of the classes from which on they differ, and much.
DIFFERS, DIFFERS_MUCH = 0.1, 0.3
_MOST_DIFFERENCE = 0.05  # in the share of a format between the classes
_QUANTILES = {"min": 0.0, "5 %": 0.05, "median": 0.5, "95 %": 0.95, "max": 1.0}
_CLASSES = ((0, "real"), (1, "fake"))


def exploration_report(
    found: Mapping[str, Any], facts: Mapping[str, Any], loader: Loader = load_image
) -> Report:
    """Make the report on a data set.

    Parameters
    ----------
    found : mapping
        As `exploration.explore.explore` returns it.
    facts : mapping
        Those of a `Report`, and ``random_state`` of the examples.
    loader : callable
        Turns a path into uint8 pixels of shape (H, W, 3) for the thumbnails.
    """
    files, pixels = found["files"], found["pixels"]
    alarming = bool(found["anomalies"] or format_findings(files))
    sizes = {"n_images": len(files), "n_sources": found["n_sources"]}
    return Report(
        {**facts, **sizes},
        "Data set",
        notes=[*findings(found), _what_was_read(found)],
        notes_title="What stands out",
        alarming=alarming,
        cards=_cards(found),
        sections=[
            _classes(found),
            _sizes(files),
            _files(files),
            _masks(found),
            Section("Pixels", [Plots(list(_pixel_plots(pixels)))]),
            _separation(found["separation"]),
            examples_section(choose_examples(found, facts.get("random_state", 0)), loader),
            _anomalies(found),
        ],
        name="explore",
    )


def findings(found: Mapping[str, Any]) -> list[str]:
    """Say in plain words what a reader should know first; ``found`` as of `exploration_report`."""
    counts = Counter(entry["check"] for entry in found["anomalies"])
    listed = ", ".join(f"{name} ({n:,})" for name, n in counts.items())
    sentences = [_balance_finding(found), *format_findings(found["files"])]
    telling = [_spaced(name) for name, entry in found["separation"].items() if differs(entry) > 1]
    if telling:
        named = ", ".join(telling)
        sentences.append(f"The classes differ in {named}: a detector may find no more than that.")
    if found["n_fake"] and found["files"]["mask_path"].isna().all():
        sentences.append("No fake comes with a mask: where it was repainted is not known.")
    if counts["one class only"] == found["n_sources"]:
        sentences.append(
            "No source has both classes. If fakes were made from these real images, say from "
            "which (--groups), or they will be trained on one and tested on the other."
        )
    said = f"Anomalies, listed at the end: {listed}." if listed else "No anomalies were found."
    return [*sentences, said]


def format_findings(files: pd.DataFrame) -> list[str]:
    """Say how the formats of real and fake files differ; nothing if they do not."""
    if files["label"].nunique() < 2:
        return []
    shares = pd.crosstab(files["format"], files["label"], normalize="columns")
    if (shares[0] - shares[1]).abs().max() <= _MOST_DIFFERENCE:
        return []
    real, fake = (
        ", ".join(f"{name} ({percent(share)})" for name, share in shares[label].items() if share)
        for label in (0, 1)
    )
    return [f"The format of a file tells its class: real files are {real}, fake ones {fake}."]


def differs(entry: Mapping[str, float]) -> int:
    """Grade a difference: 0 none, or within chance; 1 some; 2 much."""
    if entry["gap"] < max(DIFFERS, entry["chance"]):
        return 0
    return 2 if entry["gap"] >= DIFFERS_MUCH else 1


def _what_was_read(found: Mapping[str, Any]) -> str:
    sample = found["sample"]
    if sample["n_images"] >= len(found["files"]):
        return "Headers and pixels of all images were read."
    return (
        f"Headers of all images were read; pixels of {sample['n_images']:,} images only, those "
        f"of {sample['n_sources']:,} sources drawn at random."
    )


def _cards(found: Mapping[str, Any]) -> list[Card]:
    sides = found["files"][["width", "height"]].to_numpy()
    span = f"{sides.min()}-{sides.max()}" if sides.min() < sides.max() else str(sides.min())
    counted = ("images", "sources", "real", "fake")
    cards = [Card(name, f"{found[f'n_{name}']:,}") for name in counted]
    ratio = f"{found['n_fake'] / found['n_sources']:.3g}"
    return [*cards, Card("fakes per source", ratio), Card("sides", span, "pixels")]


def _balance_finding(found: Mapping[str, Any]) -> str:
    n_real, n_fake = found["n_real"], found["n_fake"]
    if not n_fake:
        return "These are sources only: real images to make fakes from."
    if not n_real:
        return "There are no real images: a detector needs their originals too."
    ratio = n_fake / n_real
    if 2 / 3 < ratio < 1.5:
        return "Both classes are about equally large."
    larger = f"{ratio:.3g} fakes to one real" if ratio > 1 else f"{1 / ratio:.3g} reals to one fake"
    return f"There are {larger} image: accuracy flatters, so read balanced accuracy."


def _classes(found: Mapping[str, Any]) -> Section:
    balance, counts = found["balance"], found["fakes_a_source"]
    if len(counts) > 6:
        fakes = f"A source has from {min(counts)} to {max(counts)} fakes."
    else:
        parts = [f"{n} ({many:,} sources)" for n, many in counts.items()]
        fakes = f"Fakes of a source: {', '.join(parts)}."
    rows = [[str(name), *map(int, row)] for name, *row in balance.itertuples()]
    alt = "Real and fake images by split, as in the table"
    blocks: list[Block] = [
        Table(["split", "real", "fake", "sources"], rows),
        fakes if found["n_fake"] else "",
        Plots([Plot(plots.balance_plot(balance), alt)]),
        _kinds(found["kinds"]),
    ]
    return Section("Classes", blocks)


def _kinds(kinds: pd.DataFrame) -> Table:
    """Cross mask schemas with how and by what was repainted."""
    made = kinds["variant"] + ", engine " + kinds["engine"]
    cells = kinds.assign(made=made).pivot(index="mask_schema", columns="made", values="images")
    cells = cells.fillna(0).astype(int)
    cells = cells.loc[cells.sum(axis=1).sort_values(ascending=False, kind="stable").index]
    rows = [[name, *map(int, row), int(sum(row))] for name, *row in cells.itertuples()]
    return Table(["mask schema", *cells.columns, "all"], rows, "How the fakes were made")


def _sizes(files: pd.DataFrame) -> Section:
    rows = [
        [f"{label}, {name}", *(f"{part[name].quantile(q):{style}}" for q in _QUANTILES.values())]
        for name, style in (("width", ",.0f"), ("height", ",.0f"), ("megapixels", ".3f"))
        for value, label in _CLASSES
        if len(part := files[files["label"] == value])
    ]
    note = "Area of a mark: share of the class. Dotted: squares, and megapixels."
    shapes = plots.histograms_plot(files, ["aspect", "megapixels"], "Shape and area")
    drawn = [
        Plot(plots.sizes_plot(files), "Width against height of the images", note),
        Plot(shapes, "Aspect ratios and megapixels of each class"),
    ]
    return Section("Sizes", [Table(["", *_QUANTILES], rows), Plots(drawn)])


def _files(files: pd.DataFrame) -> Section:
    rows = []
    for value, label in _CLASSES:
        own = files[files["label"] == value]
        for name, part in own.groupby("format"):
            known = part["quality"].dropna()
            span = f"{known.median():g} ({known.min():g}-{known.max():g})"
            cells = [len(part), percent(len(part) / len(own))]
            bits = f"{part['bits_a_pixel'].median():.2f}"
            rows.append([f"{label}, {name}", *cells, bits, span if len(known) else "no JPEG"])
    lengths = plots.histograms_plot(files, ["bits_a_pixel"], "Length of the files")
    drawn = [Plot(lengths, "Bits per pixel of each class")]
    if files["quality"].notna().any():
        quality = plots.histograms_plot(files, ["quality"], "JPEG files")
        note = "Of libjpeg, by the nearest table; encoders with tables of their own only resemble."
        drawn.append(Plot(quality, "Estimated JPEG quality of each class", note))
    table = Table(["format", "images", "share", "bits per pixel", "JPEG quality"], rows)
    note = "Shares are of the class; bits per pixel and quality are medians, the latter with range."
    return Section("Files", [table, Plots(drawn)], note)


def _masks(found: Mapping[str, Any]) -> Section:
    masks = found["masks"]
    if masks.empty:
        return Section("Masks", [])
    groups = masks.groupby("mask_schema")["coverage"]
    rows = [
        [str(name), len(part), *(f"{v:.1%}" for v in (part.mean(), part.min(), part.max()))]
        for name, part in groups
    ]
    means = plots.mean_masks_plot(found["mean_masks"], groups.size().to_dict())
    drawn = [
        Plot(plots.coverage_plot(masks), "Coverage of the masks of each schema"),
        Plot(means, "Mean mask of each schema", "Every mask is stretched to a square first."),
    ]
    headers = ["mask schema", "masks read", "mean coverage", "min", "max"]
    return Section("Masks", [Table(headers, rows), Plots(drawn)])


def _pixel_plots(pixels: pd.DataFrame) -> Iterator[Plot]:
    names = list(PIXEL_FEATURES) if len(pixels) else []
    for part, title in ((names[:2], "Light"), (names[2:], "Colour and detail")):
        if part:
            yield Plot(plots.histograms_plot(pixels, part, title), f"{title} of each class")


def _separation(separation: Mapping[str, Mapping[str, float]]) -> Section:
    rows = [
        [_spaced(name), _verdict(entry), entry["gap"], entry["roc_auc"]]
        + [f"{entry[label]:.4g}" for _, label in _CLASSES]
        for name, entry in separation.items()
    ]
    note = (
        "Largest gap: between the shares of the classes below any one value, 0 if they are "
        "distributed alike and 1 if a threshold parts them; alike is below 0.1, or what chance "
        "brings among so many images. ROC AUC: the chance that a fake has "
        "the higher value. Inpainting may change detail and, in lossless files, bits per pixel; "
        "any other difference comes from how the data were made."
    )
    headers = ["feature", "classes", "largest gap", "ROC AUC", "real (median)", "fake (median)"]
    meanings = FILE_FEATURES | PIXEL_FEATURES
    defined = {_spaced(name): meanings[name] for name in separation}
    table = Table(headers, rows, prose=["classes"])
    return Section("What tells the classes apart", [table, defined], note)


def _verdict(entry: Mapping[str, float]) -> Cell:
    auc, grade = entry["roc_auc"], differs(entry)
    side = "differ" if abs(auc - 0.5) < 0.1 else ("fakes higher" if auc > 0.5 else "fakes lower")
    return Cell(side if grade else "alike", ("good", "some", "bad")[grade])


def _anomalies(found: Mapping[str, Any]) -> Section:
    folder = common_folder(found["files"]["path"])
    rows: list[list[Any]] = []
    lists: list[Block] = []
    for check, meaning in CHECKS.items():
        entries = [entry for entry in found["anomalies"] if entry["check"] == check]
        count = Cell(f"{len(entries):,}", "bad") if entries else "none"
        rows.append([check, count, meaning])
        shown = [(e["path"] or e["source_id"], e["reason"].replace(folder, "")) for e in entries]
        listed = [(path.replace(folder, ""), reason) for path, reason in shown]
        lists.append(Items(listed, f"{check} ({len(entries):,})"))
    headers = ["check", "found", "what it means"]
    return Section("Anomalies", [Table(headers, rows, prose=["what it means"]), *lists])


def _spaced(name: str) -> str:
    return name.replace("_", " ")
