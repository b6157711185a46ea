import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from report_contract import check_report

from cnnsvm.evaluation.localization_judging import flatten
from cnnsvm.evaluation.localization_metrics import count_pixels, summarise
from cnnsvm.report import write_report
from cnnsvm.report.model import Report, Section
from cnnsvm.report.render import format_cell
from cnnsvm.report.wording import LOCALIZATION_SCORES, false_alarm_sentence, localization_cells
from localization_study.controls import CONTROLS
from localization_study.plan import Wanted, plan_study
from localization_study.report import (
    _f1_of_every_pixel,
    draw_example,
    example_galleries,
    jpeg_plot,
    localization_report,
    matrix_plot,
)
from localization_study.study import Study
from localization_study.tables import study_tables

KINDS = ("a<b> spliced", "b spliced", "b regenerated (whole)")
WANTED = Wanted(
    tables=("matrix", "cross", "masks", "sizes", "jpeg", "cost"),
    kinds=KINDS,
    main=KINDS[0],
    designs=("fcn", "iid"),
    sizes=("nix:2m",),
)
COSTS = {
    name: {
        "parameters": 2_500_000,
        "multiply_adds": 3_000_000_000,
        "train_images_per_second": 12.5,
        "inference_images_per_second": 40,
    }
    for name in ("fcn", "iid", "nix:2m")
}


def scored(kind, share):
    """Score six images of which ``share`` of what is repainted is found."""
    masks, maps = [], []
    for _ in range(6):
        mask = np.zeros((10, 20), dtype=bool)
        mask[:, :10] = kind != "original"
        found = np.zeros((10, 20))
        found[:, : round(10 * share)] = 1
        masks.append(mask)
        maps.append(found)
    return flatten(summarise(count_pixels(masks, maps, list("aabbcc")), 20))


@pytest.fixture(scope="module")
def study():
    rows, fits = [], []
    for number, (fit, conditions) in enumerate(plan_study(WANTED).items()):
        named = {"design": fit.design, "trained_on": fit.kind, "policy": fit.policy}
        entry = {"epoch": 0, "attempt": 0, "state": "learning"}
        history = [entry | {"valid_iou": 0.5, "valid_loss": 1.0}]
        fits.append({**named, "n_images": 9, "seconds": 61.0, "history": history})
        for condition in conditions:
            share = 0.9 - 0.1 * (number % 5) - 0.3 * (condition.quality is not None)
            judged = {"judged_on": condition.kind, "judged_policy": condition.policy}
            judged["quality"] = condition.quality
            rows.append({**named, **judged, **scored(condition.kind, share)})
    images = pd.DataFrame({"path": ["x"], "iou": [0.5]})
    return Study(pd.DataFrame(rows), images, fits, [])


def facts(**more):
    return asdict(WANTED) | {"title": "Where <it> was", "n_images": 9, "n_sources": 3, **more}


def by_title(study):
    """Return the tables that have rows: headers, rows as written in text, and the note."""
    found = {}
    for section in study_tables(study, COSTS, facts()):
        for table in section.blocks:
            rows = [[format_cell(value, short=True) for value in row] for row in table.rows]
            found[section.title] = {"headers": table.headers, "rows": rows, "note": section.note}
    return found


def test_a_cell_is_what_was_trained_on_the_row_and_judged_on_the_column(study):
    table = by_title(study)["iid: trained on, judged on"]
    assert table["headers"] == ["trained on", "on A", "on B", "on C", "false alarms"]
    assert [row[0] for row in table["rows"]] == [
        f"{c} {k}" for c, k in zip("ABC", KINDS, strict=True)
    ]
    rows = study.summary
    for row, trained_on in zip(table["rows"], KINDS, strict=True):
        for cell, judged_on in zip(row[1:4], KINDS, strict=True):
            own = rows[(rows["design"] == "iid") & (rows["trained_on"] == trained_on)]
            own = own[(own["judged_on"] == judged_on) & own["quality"].isna()]
            own = own[own[["policy", "judged_policy"]].eq("half").all(axis=1)]
            assert cell == f"{own['per_image_iou'].iloc[0]:.3f}"


def test_kinds_that_were_only_judged_on_have_no_row_but_a_letter(study):
    summary = study.summary[study.summary["trained_on"] != KINDS[0]]
    assert set(summary["judged_on"]) >= set(KINDS)
    part = replace(study, summary=summary)
    table = by_title(part)["iid: trained on, judged on"]
    assert [row[0] for row in table["rows"]] == [f"B {KINDS[1]}", f"C {KINDS[2]}"]
    assert table["note"].endswith(f"A {KINDS[0]}, B {KINDS[1]}, C {KINDS[2]}.")
    assert [row[0] for row in by_title(part)["From one engine to another"]["rows"]] == [
        "fcn, b",
        "iid, b",
    ]
    plot = matrix_plot(summary[summary["quality"].isna()], "iid", KINDS)
    assert len(plot.axes[0].get_yticks()) == 2
    assert len(plot.axes[0].get_xticks()) == 3


def test_what_needs_no_image_has_a_row_a_kind(study):
    rows = [
        {"control": name, "judged_on": kind, "judged_policy": policy} | scored(kind, share)
        for name, share in zip(CONTROLS, (1.0, 0.5), strict=True)
        for kind in KINDS[:2]
        for policy in ("any", "half")
    ]
    part = replace(study, controls=pd.DataFrame(rows))
    table = by_title(part)["Without looking at an image"]
    assert [row[0] for row in table["rows"]] == list(KINDS[:2])
    assert table["rows"][0][1:] == ["1.000", "1.000", "0.500", "0.667"]
    assert _f1_of_every_pixel(part, facts()) == 1
    assert _f1_of_every_pixel(study, facts()) is None
    assert "Without looking" not in str(by_title(study))


def test_there_is_every_table_that_was_asked_for(study):
    titles = list(by_title(study))
    for part in ("fcn: trained on", "All scores", "From one engine", "Greys of the masks: fcn"):
        assert any(part in title for title in titles)
    for part in ("Sizes of NIX-Net", "Side by side", "JPEG: F1", "JPEG: false alarms", "Training"):
        assert any(part in title for title in titles)


def test_policies_are_rows_and_columns(study):
    table = by_title(study)[f"Greys of the masks: fcn, {KINDS[0]}"]
    assert [row[0] for row in table["rows"]] == [
        f"trained with {p}" for p in ("any", "half", "full")
    ]
    assert "No mask has a grey" not in table["note"]


def test_jpeg_goes_from_none_to_strong(study):
    table = by_title(study)["JPEG: F1"]
    qualities = ["none", "95", "90", "80", "75", "60", "50", "40"]
    assert [row[0] for row in table["rows"]] == qualities
    assert float(table["rows"][0][1]) > float(table["rows"][1][1])
    assert "JPEG: pooled AUC" in by_title(study)


def test_costs_are_said_in_millions_and_billions(study):
    row = by_title(study)[f"Side by side: {KINDS[0]}"]["rows"][0]
    assert row[:5] == ["fcn", "2.5", "3", "12.5", "40"]


def test_page_and_text_have_every_number(study):
    page, text = check_report(localization_report(study, COSTS, facts(warnings=["<bad>"])))
    for said in (page.said, text):
        for part in ("Where <it> was", "a<b> spliced", "<bad>", "A regenerated one went through"):
            assert part in said
    (row,) = [r for r in study.summary.to_dict("records") if is_main(r, "iid")]
    low, high = row["per_image_iou_low"], row["per_image_iou_high"]
    assert f"{row['per_image_iou']:.3f} [{low:.3f}, {high:.3f}]" in page.cells
    assert page.tags.count("svg") == 3


def is_main(row, design):
    plain = row["policy"] == row["judged_policy"] == "half" and np.isnan(row["quality"])
    return plain and row["design"] == design and row["trained_on"] == row["judged_on"] == KINDS[0]


@pytest.mark.parametrize("tables", [WANTED.tables, ("cost",)])
def test_each_design_has_a_card_with_and_without_jpeg(study, tables):
    table = study.summary if "jpeg" in tables else study.summary[study.summary["quality"].isna()]
    # without JPEG the column has no number in it
    only = replace(study, summary=table.astype({"quality": object}).replace({np.nan: None}))
    report = localization_report(only, COSTS, facts(tables=tables))
    labels = [card.label for card in report.cards]
    assert labels == [f"IoU, {name}, {KINDS[0]}" for name in (*WANTED.designs, *WANTED.sizes)]
    best = max(report.cards, key=lambda card: float(card.value))
    assert best.value in report.findings[0]


def test_files_hold_what_was_found(study, tmp_path):
    files = write_report(tmp_path / "new", localization_report(study, COSTS, facts()))
    names = {f"localization{end}" for end in (".html", ".json", ".csv", "-images.csv")}
    assert set(files) == names
    report = json.loads(files["localization.json"].read_text())
    assert len(report["summary"]) == len(study.summary)
    assert report["summary"][0]["quality"] is None
    assert report["costs"]["fcn"]["parameters"] == 2_500_000
    table = pd.read_csv(files["localization.csv"])
    np.testing.assert_allclose(table["per_image_iou"], study.summary["per_image_iou"].astype(float))


def test_the_plot_has_a_line_a_design(study):
    rows = study.summary[study.summary["judged_on"] == KINDS[0]]
    rows = rows[(rows["trained_on"] == KINDS[0]) & rows["policy"].eq("half")]
    figure = jpeg_plot(rows[rows["judged_policy"] == "half"], ["fcn", "iid"])
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["fcn", "iid"]
    line = figure.axes[0].get_lines()[0]
    assert len(line.get_xdata()) == 8
    figure = jpeg_plot(rows[rows["judged_policy"] == "half"], ["fcn", "iid"], every_pixel=0.6)
    assert figure.axes[0].get_lines()[-1].get_ydata()[0] == 0.6
    assert len(figure.axes[0].get_legend().get_texts()) == 3


def test_scores_and_false_alarms_in_words():
    cells = localization_cells(scored("a", 0.5))
    by_name = dict(zip(LOCALIZATION_SCORES.values(), cells, strict=True))
    assert by_name["IoU"]["value"] == 0.5
    assert isinstance(by_name["F1"], float)
    said = false_alarm_sentence(scored("original", 0.2))
    assert "6 untouched images, 0.100 [0.100, 0.100] of the pixels" in said
    assert false_alarm_sentence(None) == ""


@pytest.fixture
def example(tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (30, 20, 3), dtype=np.uint8)).save(tmp_path / "p.png")
    mask = np.zeros((30, 20), np.uint8)
    mask[:10] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    Image.fromarray(255 - mask).save(tmp_path / "map.png")
    row = {"path": str(tmp_path / "p.png"), "mask_path": str(tmp_path / "m.png"), "reading": "mask"}
    more = {"design": "iid", "kind": "a<b>", "policy": "half", "iou": 0.25, "threshold": 0.5}
    return {"row": row, "map": tmp_path / "map.png", **more}


def test_an_example_shows_truth_beside_prediction(example):
    drawn = draw_example(example)
    assert (drawn["mask"][:10] == 255).all()
    assert (drawn["mask"][10:] == 0).all()
    assert (drawn["map"][:10] == 0).all()
    overlay = drawn["overlay"].astype(int)
    assert (overlay[15:-3, 3:-3, 0] - overlay[15:-3, 3:-3, 2]).min() > 100
    assert np.ptp(overlay[:8], axis=2).max() < 30
    page, _ = check_report(Report({}, "x", sections=[Section("y", example_galleries([example]))]))
    assert page.tags.count("img") == 4
    assert "a<b>" in page.said
    assert "IoU 0.250" in page.said


def test_an_example_that_is_gone_is_said(example, tmp_path):
    (tmp_path / "p.png").unlink()
    page, _ = check_report(Report({}, "x", sections=[Section("y", example_galleries([example]))]))
    assert page.said.count("not available") == 4
    assert example_galleries([]) == []
