"""The exploratory report of a data set: one HTML file that needs nothing from elsewhere."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from cnnsvm.audit.anomalies import CHECKS
from cnnsvm.audit.exploration import FILE_FEATURES
from cnnsvm.audit.image_facts import PIXEL_FEATURES
from cnnsvm.data.images import load_image
from cnnsvm.report import explore_plots as plots
from cnnsvm.report.contact_sheet import choose_examples, contact_sheet
from cnnsvm.report.findings import differs, findings, format_findings, spaced
from cnnsvm.report.markup import (
    Html,
    definitions,
    element,
    html,
    image,
    join,
    paragraph,
    section,
    table,
)
from cnnsvm.report.render import Loader, to_png
from cnnsvm.report.style import CSS, PAGE, SHEET_CSS
from cnnsvm.report.wording import format_number, format_seconds, percent

_MAX_LISTED = 50
_QUANTILES = {"min": 0.0, "5 %": 0.05, "median": 0.5, "95 %": 0.95, "max": 1.0}
_CLASSES = ((0, "real"), (1, "fake"))


def render_exploration(
    found: Mapping[str, Any], facts: Mapping[str, Any], loader: Loader = load_image
) -> str:
    """Write what was found about a data set as a page.

    Parameters
    ----------
    found : mapping
        As :func:`cnnsvm.audit.exploration.explore` returns it.
    facts : mapping
        ``title``, ``data``, ``command``, ``seconds``, and ``random_state`` of the examples; all
        of them optional.
    loader : callable
        Turns a path into uint8 pixels of shape (H, W, 3) for the thumbnails; a picture that it
        cannot read gets a placeholder.

    Returns
    -------
    str
        HTML with inline style and embedded images; paths and names in it are escaped.
    """
    title = str(facts.get("title") or "Data set")
    body = [
        _header(found, facts, title),
        _classes(found),
        _sizes(found["files"]),
        _files(found["files"]),
        _masks(found),
        _pixels(found),
        _separation(found["separation"]),
        contact_sheet(choose_examples(found, facts.get("random_state", 0)), loader),
        _oddities(found),
    ]
    return PAGE.format(title=html(title), css=CSS + SHEET_CSS, body=join(body))


def _header(found: Mapping[str, Any], facts: Mapping[str, Any], title: str) -> Html:
    files, sample = found["files"], found["sample"]
    sides = files[["width", "height"]].to_numpy()
    span = f"{sides.min()}-{sides.max()}" if sides.min() < sides.max() else str(sides.min())
    cards = {name: f"{found[f'n_{name}']:,}" for name in ("images", "sources", "real", "fake")}
    cards |= {"fakes a source": f"{found['n_fake'] / found['n_sources']:.3g}", "sides": span}
    decoded = "Headers and pixels of all images were read."
    if sample["n_images"] < len(files):
        decoded = (
            f"Headers of all images were read; pixels of {sample['n_images']:,} images only, those "
            f"of {sample['n_sources']:,} sources drawn at random."
        )
    seconds = format_seconds(facts["seconds"]) if "seconds" in facts else None
    line = " · ".join(str(part) for part in (facts.get("data"), seconds) if part)
    command = facts.get("command")
    notes = element("ul", *(element("li", text) for text in findings(found)), class_="plain")
    look = "note alarm" if found["odd"] or format_findings(files) else "note"
    return join(
        [
            element("h1", title),
            paragraph(line, class_="soft"),
            paragraph(element("code", command), class_="command") if command else "",
            element("ul", *(_card(*card) for card in cards.items()), class_="cards"),
            paragraph(decoded),
            element("div", element("strong", "What stands out"), notes, class_=look),
        ]
    )


def _classes(found: Mapping[str, Any]) -> Html:
    balance = found["balance"]
    rows = [[name, *(f"{n:,}" for n in row)] for name, *row in balance.itertuples()]
    plot = _figure(plots.balance_plot(balance), "Real and fake images by split, as in the table")
    return section(
        "Classes",
        table(["split", "real", "fake", "sources"], rows),
        paragraph(_fakes_a_source(found["fakes_a_source"])) if found["n_fake"] else "",
        _gallery(plot),
        _kinds(found["kinds"]),
    )


def _fakes_a_source(counts: Mapping[int, int]) -> str:
    if len(counts) > 6:
        return f"A source has from {min(counts)} to {max(counts)} fakes."
    parts = [f"{n} ({many:,} sources)" for n, many in counts.items()]
    return f"Fakes of a source: {', '.join(parts)}."


def _kinds(kinds: pd.DataFrame) -> Html:
    """Cross mask schemas with how and by what was repainted."""
    if kinds.empty:
        return Html("")
    made = kinds["variant"] + ", engine " + kinds["engine"]
    cells = kinds.assign(made=made).pivot(index="mask_schema", columns="made", values="images")
    cells = cells.fillna(0).astype(int)
    cells = cells.loc[cells.sum(axis=1).sort_values(ascending=False, kind="stable").index]
    rows = [[name, *(f"{n:,}" for n in row), f"{sum(row):,}"] for name, *row in cells.itertuples()]
    title = element("h3", "How the fakes were made")
    return join([title, table(["mask schema", *cells.columns, "all"], rows)])


def _sizes(files: pd.DataFrame) -> Html:
    shapes = plots.histograms_plot(files, ["aspect", "megapixels"], "Shape and area")
    note = "Area of a mark: share of the class. Dotted: squares, and megapixels."
    rows = [
        [f"{label}, {name}", *(f"{part[name].quantile(q):{style}}" for q in _QUANTILES.values())]
        for name, style in (("width", ",.0f"), ("height", ",.0f"), ("megapixels", ".3f"))
        for value, label in _CLASSES
        if len(part := files[files["label"] == value])
    ]
    return section(
        "Sizes",
        table(["", *_QUANTILES], rows),
        _gallery(
            _figure(plots.sizes_plot(files), "Width against height of the images", note),
            _figure(shapes, "Aspect ratios and megapixels of each class"),
        ),
    )


def _files(files: pd.DataFrame) -> Html:
    rows = [
        [f"{label}, {name}", f"{len(part):,}", percent(len(part) / len(own)), *_compression(part)]
        for value, label in _CLASSES
        for own in [files[files["label"] == value]]
        for name, part in own.groupby("format")
    ]
    bits = plots.histograms_plot(files, ["bits_a_pixel"], "Length of the files")
    figures = [_figure(bits, "Bits a pixel of each class")]
    if files["quality"].notna().any():
        quality = plots.histograms_plot(files, ["quality"], "JPEG files")
        note = "Of libjpeg, by the nearest table; encoders with tables of their own only resemble."
        figures.append(_figure(quality, "Estimated JPEG quality of each class", note))
    headers = ["format", "images", "share", "bits a pixel", "JPEG quality"]
    note = "Shares are of the class; bits a pixel and quality are medians, the latter with range."
    return section(
        "Files", table(headers, rows), paragraph(note, class_="soft"), _gallery(*figures)
    )


def _compression(part: pd.DataFrame) -> tuple[str, str]:
    known = part["quality"].dropna()
    span = f"{known.median():g} ({known.min():g}-{known.max():g})" if len(known) else "no JPEG"
    return f"{part['bits_a_pixel'].median():.2f}", span


def _masks(found: Mapping[str, Any]) -> Html:
    masks = found["masks"]
    if masks.empty:
        return Html("")
    groups = masks.groupby("mask_schema")["coverage"]
    rows = [
        [
            name,
            f"{len(part):,}",
            *(f"{value:.1%}" for value in (part.mean(), part.min(), part.max())),
        ]
        for name, part in groups
    ]
    means = plots.mean_masks_plot(found["mean_masks"], groups.size().to_dict())
    note = "Every mask is stretched to a square first."
    return section(
        "Masks",
        table(["mask schema", "masks read", "mean coverage", "min", "max"], rows),
        _gallery(
            _figure(plots.coverage_plot(masks), "Coverage of the masks of each schema"),
            _figure(means, "Mean mask of each schema", note),
        ),
    )


def _pixels(found: Mapping[str, Any]) -> Html:
    if found["pixels"].empty:
        return Html("")
    names = list(PIXEL_FEATURES)
    figures = [
        _figure(plots.histograms_plot(found["pixels"], part, title), f"{title} of each class")
        for part, title in ((names[:2], "Light"), (names[2:], "Colour and detail"))
    ]
    return section("Pixels", _gallery(*figures))


def _separation(separation: Mapping[str, Mapping[str, float]]) -> Html:
    rows = [
        [spaced(name), _verdict(entry)]
        + [format_number(entry[key]) for key in ("gap", "roc_auc")]
        + [f"{entry[label]:.4g}" for _, label in _CLASSES]
        for name, entry in separation.items()
    ]
    intro = (
        "Largest gap: between the shares of the classes below any one value, 0 if they are "
        "distributed alike and 1 if a threshold parts them; alike is below 0.1, or what chance "
        "brings among so many images. ROC AUC: the chance that a fake has "
        "the higher value. Inpainting may change detail and, in lossless files, bits a pixel; any "
        "other difference comes from how the data were made."
    )
    headers = ["feature", "classes", "largest gap", "ROC AUC", "real (median)", "fake (median)"]
    meanings = FILE_FEATURES | PIXEL_FEATURES
    return section(
        "What tells the classes apart",
        paragraph(intro, class_="soft") if rows else "",
        table(headers, rows, words=["classes"]),
        definitions({spaced(name): meanings[name] for name in separation}),
    )


def _verdict(entry: Mapping[str, float]) -> Html:
    auc, grade = entry["roc_auc"], differs(entry)
    side = "differ" if abs(auc - 0.5) < 0.1 else ("fakes higher" if auc > 0.5 else "fakes lower")
    text = ("✓ alike", f"~ {side}", f"⚠ {side}")[grade]
    return element("span", text, class_=("good", None, "bad")[grade])


def _oddities(found: Mapping[str, Any]) -> Html:
    odd = found["odd"]
    root = os.path.commonpath([os.path.dirname(path) for path in found["files"]["path"]])
    rows, lists = [], []
    for check, meaning in CHECKS.items():
        entries = [entry for entry in odd if entry["check"] == check]
        count = element("span", f"⚠ {len(entries):,}", class_="bad") if entries else "none"
        rows.append([check, count, meaning])
        lists.append(_details(check, entries, root))
    return section(
        "What is odd", table(["check", "found", "what it means"], rows, ["what it means"]), *lists
    )


def _details(check: str, entries: Sequence[Mapping[str, str]], root: str) -> Html:
    if not entries:
        return Html("")
    items = []
    for entry in entries[:_MAX_LISTED]:
        path, reason = (entry[key].replace(root + os.sep, "") for key in ("path", "reason"))
        items.append(element("li", element("code", path or entry["source_id"]), f": {reason}"))
    if len(entries) > _MAX_LISTED:
        items.append(element("li", f"and {len(entries) - _MAX_LISTED:,} more"))
    heading = element("summary", f"{check} ({len(entries):,})")
    return element("details", heading, element("ul", *items, class_="plain"))


def _card(name: str, value: str) -> Html:
    return element("li", element("span", name), element("strong", value))


def _figure(figure: Figure, alt: str, note: str = "") -> Html:
    caption = element("figcaption", note) if note else ""
    return element("figure", image(to_png(figure), "png", alt), caption)


def _gallery(*figures: Html) -> Html:
    return element("div", *figures, class_="plots")
