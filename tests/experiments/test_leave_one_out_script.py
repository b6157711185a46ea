import json

import pandas as pd
import pytest
from script_runs import ENGINES


@pytest.fixture(scope="module")
def run(finished):
    found = finished("leave_one_out")
    return found.arguments, found.out


@pytest.fixture(scope="module")
def script(finished):
    return finished("leave_one_out").script


def test_every_engine_was_left_out_and_judged(run):
    table = pd.read_csv(run[1] / "leave-one-out-predictions.csv", keep_default_na=False)
    assert set(table["held_out"]) == {"", *ENGINES}
    left = table[(table["fit"] == "held out") & (table["data"] == "")]
    fakes = left[left["variant"] != "original"]
    assert (fakes["family"] == fakes["held_out"]).all()
    assert set(fakes["variant"]) == {"regenerated", "spliced"}
    own = table[table["data"] == ""]
    assert own["source_id"].nunique() == 3  # joined by name: a third of nine


def test_data_sets_are_judged_but_for_sources_that_were_trained_on(run):
    table = pd.read_csv(run[1] / "leave-one-out-predictions.csv", keep_default_na=False)
    far, own = (table[(table["data"] == name)] for name in ("far", ""))
    tested = set(own["source_id"].astype(str))
    judged = set(far["source_id"].astype(str))
    assert judged - {"3"} == {f"far:{i}" for i in range(50, 54)}
    assert ("3" in judged) == ("3" in tested)
    report = json.loads((run[1] / "leave-one-out.json").read_text())
    assert any("of far look like sources of the data" in text for text in report["warnings"])


def test_the_report_is_that_of_the_predictions(run):
    report = json.loads((run[1] / "leave-one-out.json").read_text())
    assert (report["n_sources"], report["n_images"]) == (9, 9 * 3 * 3)
    assert report["split"] == "1 of 3 folds as test part"
    table = pd.read_csv(run[1] / "leave-one-out-predictions.csv", keep_default_na=False)
    for entry in report["summary"]:
        if entry["fit"] == "held out" and entry["judged"] == entry["held_out"]:
            rows = table[(table["held_out"] == entry["held_out"]) & (table["data"] == "")]
            originals = rows[rows["variant"] == "original"]
            records = set(rows.loc[rows["variant"] != "original", "record"])
            called = originals.loc[originals["record"].isin(records), "prediction"].astype(int)
            assert entry["false_alarm_rate"]["value"] == pytest.approx(called.mean())
            assert entry["n_originals"] == 3  # those of its own records
    page = (run[1] / "leave-one-out.html").read_text()
    assert "<svg" in page
    assert "<script" not in page


def test_families_are_left_out_together(run, script, tmp_path, capsys):
    family = ["--family", "opencv-telea*=telea", "--target", "label", "--rounds", "2"]
    arguments = [text for text in run[0] if not text.startswith(("--growth", "--external", "far="))]
    assert script.main([*arguments, "--out", str(tmp_path), *family]) == 0
    assert {path.name.rpartition("-")[0] for path in (tmp_path / "fits").glob("round_1/*")} == {
        *("2_families", "without_telea", "without_opencv-ns")
    }
    assert "2 of 3 folds as test part" in capsys.readouterr().out


def test_signs_are_split_where_they_belong(script):
    arguments = script.parse_arguments(["--family", "x?a=1&b=2=z", "--external", "far=a=b.zip"])
    assert arguments.family == [("x?a=1&b=2", "z")]
    assert arguments.external == [("far", "a=b.zip")]
    for wrong in (["--family", "nothing"], ["--external", "=path"]):
        with pytest.raises(SystemExit):
            script.parse_arguments(wrong)
