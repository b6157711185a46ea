import numpy as np
import pandas as pd
import pytest
from PIL import Image
from report_contract import HOSTILE, check_report, is_drawn, words_of

from cnnsvm.audit.exploration import explore
from cnnsvm.data.images import ImageError
from cnnsvm.data.manifest import make_manifest, make_row
from cnnsvm.report import render_html
from cnnsvm.report.examples import choose_examples
from cnnsvm.report.exploration import exploration_report, findings
from cnnsvm.report.exploration_plots import (
    AXES,
    balance_plot,
    coverage_plot,
    histograms_plot,
    mean_masks_plot,
    sizes_plot,
)


def draw_image(path, seed=0, width=40, height=30):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    mask = folder / "mask.png"
    Image.fromarray(np.arange(40)[None].repeat(30, axis=0) < 10).save(mask)
    rows = []
    for i in range(4):
        rows.append(make_row(draw_image(folder / f"{i}.png", i), 0, f"s{i}"))
        for j, schema in enumerate(("left", "top", "left")):
            made = {"engine": "vae:a", "mask_schema": schema, "mask_path": str(mask)}
            rows.append(
                make_row(draw_image(folder / f"{i}_{j}.jpg", 9 * i + j), 1, f"s{i}", **made)
            )
    return make_manifest(rows)


@pytest.fixture(scope="module")
def found(records):
    return explore(records, progress=False)


def section_of(report, title):
    return next(section for section in report.sections if section.title == title)


def test_the_report_keeps_the_contract_and_its_order(found):
    facts = {"title": "My data", "data": "here", "command": "python x", "seconds": 75.0}
    page, text = check_report(exploration_report(found, facts))
    for said in (page.said, " ".join(text.split())):
        for part in (
            *("My data", "here", "1 min 15 s", "python x", "Fakes of a source: 3 (4 sources)."),
            *("regenerated, engine vae:a", "25.0%"),
        ):
            assert part in said
    titles = ["What stands out", "Classes", "Sizes", "Files", "Masks", "Pixels"]
    titles += ["What tells the classes apart", "Images", "Anomalies"]
    places = [page.said.index(title) for title in titles]
    assert places == sorted(places)
    assert page.tags.count("img") > 20


def test_whatever_the_data_say_is_escaped(records, tmp_path):
    hostile = records.copy()
    hostile["source_id"] = [f"{name}{HOSTILE}" for name in hostile["source_id"]]
    fake = hostile["label"] == 1
    hostile.loc[fake, ["engine", "mask_schema"]] = HOSTILE
    hostile["split"] = HOSTILE
    hostile.loc[0, "path"] = f"{tmp_path}/{HOSTILE}.png"
    hostile.attrs["skipped"] = [{"path": HOSTILE, "reason": HOSTILE}]
    facts = dict.fromkeys(("title", "data", "command"), HOSTILE)
    page, _ = check_report(exploration_report(explore(hostile, progress=False), facts))
    assert "".join(page.text).count(HOSTILE) > 20


def test_anomalies_are_listed_without_the_folders_that_all_share(records):
    odd = records.copy()
    gone = f"{records['path'][1].rpartition('/')[0]}/gone.png"
    odd.loc[1, "path"] = gone
    odd.loc[2, "mask_path"] = None
    report = exploration_report(explore(odd, progress=False), {})
    assert report.alarming
    page, text = check_report(report)
    assert "⚠ 1" in page.said
    for said in (page.said, text):
        assert "gone.png" in said
        assert "no such file" in said
        assert gone not in said


def test_sources_alone_make_a_report(records):
    report = exploration_report(explore(records[records["label"] == 0], progress=False), {})
    page, _ = check_report(report)
    assert "sources only" in page.said
    assert not any(section.title == "Masks" for section in report.sections)
    (gallery,) = section_of(report, "Images").blocks
    assert [image.role for e in gallery.exhibits for image in e.thumbnails] == ["original"] * 4


def test_fakes_alone_and_nothing_decodable_make_reports(records, tmp_path):
    found = explore(records[records["label"] == 1], progress=False)
    assert "no real images" in check_report(exploration_report(found, {}))[0].said
    path = draw_image(tmp_path / "a.png")
    path.write_bytes(path.read_bytes()[:500])
    broken = explore(make_manifest([make_row(path, 0, "a")]), progress=False)
    check_report(exploration_report(broken, {}))
    assert len(broken["pixels"]) == 0


def test_a_page_is_the_same_twice(records, found):
    again = explore(records, n_jobs=1, progress=False)
    first, second = (exploration_report(each, {}) for each in (again, found))
    for report in (first, second):
        check_report(report)
    assert render_html(first) == render_html(second)


def test_an_image_that_fails_later_gets_a_placeholder(found):
    def fail(path):
        raise ImageError(f"{path}: truncated")

    page, _ = check_report(exploration_report(found, {}, fail))
    assert "fake of s0: not available" in page.said


def test_examples_show_each_kind_with_its_own_original_and_mask(found):
    left, top = choose_examples(found, 1)
    assert (left["kind"], left["total"]) == ("regenerated · engine vae:a · mask left", 8)
    assert top["total"] == 4
    for record in (*left["records"], *top["records"]):
        number = record["source_id"].removeprefix("s")
        assert record["original"].endswith(f"/{number}.png")
        assert f"/{number}_" in record["fake"]
        assert record["mask"].endswith("mask.png")
    assert {record["source_id"] for record in left["records"][:4]} == {"s0", "s1", "s2", "s3"}
    assert choose_examples(found, 1) == [left, top]


def test_examples_are_few_however_many_kinds_there_are(found):
    pixels = pd.concat([found["pixels"].assign(engine=f"e{i}") for i in range(30)])
    examples = choose_examples({**found, "pixels": pixels.reset_index(drop=True)})
    assert len(examples) == 24
    assert all(len(example["records"]) == 1 for example in examples)


def test_an_original_that_is_not_the_only_one_is_not_guessed(records):
    twice = records.assign(source_id="one")
    examples = choose_examples(explore(twice, progress=False))
    assert {record["original"] for record in examples[0]["records"]} == {None}


def test_the_first_sentences_warn_of_what_tells_the_classes(found):
    said = " ".join(findings(found))
    assert "3 fakes to one real" in said
    assert "real files are PNG (100 %), fake ones JPEG (100 %)" in said
    assert "The classes differ in bits a pixel" in said
    assert "width" not in said
    without = found["files"].assign(mask_path=None)
    assert "No fake comes with a mask" in " ".join(findings({**found, "files": without}))


def test_unpaired_classes_are_told_to_name_their_sources(records):
    loose = records.assign(source_id=records["path"])
    assert "--groups" in " ".join(findings(explore(loose, progress=False)))


def test_plots_are_drawn(found):
    for figure in (
        balance_plot(found["balance"]),
        sizes_plot(found["files"]),
        coverage_plot(found["masks"]),
        mean_masks_plot(found["mean_masks"], {"left": 3, "top": 1}),
        histograms_plot(found["files"], ["aspect", "quality"], "Files"),
    ):
        assert is_drawn(figure)


def test_plots_name_their_counts(found):
    assert "12" in words_of(balance_plot(found["balance"]))
    assert "(1 masks)" in words_of(coverage_plot(found["masks"]))
    assert "left (3)" in words_of(mean_masks_plot(found["mean_masks"], {"left": 3, "top": 1}))


def test_sizes_span_a_readable_scale():
    sizes = pd.DataFrame({"width": [85, 6215], "height": [47, 5850], "label": [0, 1]})
    (axes,) = sizes_plot(sizes).axes
    low, high = axes.get_xlim()
    assert low < 47
    assert high > 6215
    assert 3 <= sum(low <= tick <= high for tick in axes.get_xticks()) <= 8
    (axes,) = sizes_plot(sizes.assign(width=256, height=256)).axes
    assert axes.get_xlim()[1] / axes.get_xlim()[0] == pytest.approx(8)


def test_histograms_are_shares_and_logarithmic_only_over_a_wide_span():
    table = pd.DataFrame({"label": [0] * 30 + [1] * 3, "megapixels": np.geomspace(0.01, 9, 33)})
    (axes,) = histograms_plot(table, ["megapixels"], "x").axes
    assert axes.get_xscale() == "log"
    heights = [patch.get_data().values.sum() for patch in axes.patches]
    np.testing.assert_allclose(heights, 1)
    (axes,) = histograms_plot(table.assign(megapixels=2.0), ["megapixels"], "x").axes
    assert axes.get_xscale() == "linear"


def test_a_column_without_values_says_so():
    table = pd.DataFrame({"label": [0], "quality": [np.nan]})
    assert AXES["quality"][0] in words_of(histograms_plot(table, ["quality"], "x")).replace(
        "\n", " "
    )
