import importlib.util
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cnnsvm.data.manifest import make_manifest, make_row
from cnnsvm.generation import build

ROOT = Path(__file__).parents[2]
QUICK = [
    *("--backbone", "statistics", "--finetune", "none", "--pooling", "mean_std"),
    *("--crop-size", "48", "--n-crops", "2", "--trials", "1", "--inner-folds", "2", "--folds", "3"),
]
ENGINES = ("opencv-telea", "opencv-ns", "opencv-telea:7")


@pytest.fixture(scope="module")
def script():
    path = ROOT / "experiments" / "leave_one_out.py"
    spec = importlib.util.spec_from_file_location("leave_one_out_script", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.N_RESAMPLES = 20
    return module


def make_records(folder, engine, sources, variants="both"):
    (folder / "photos").mkdir(parents=True)
    rows = []
    for source in sources:
        pixels = np.random.default_rng(source).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        path = folder / "photos" / f"{source}.png"
        Image.fromarray(pixels).save(path)
        rows.append(make_row(path, 0, str(source)))
    options = {"engine": engine, "variants": variants, "schemas": ["top"]}
    build(make_manifest(rows), folder / "records", **options)
    return str(folder / "records")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Records of the same sources by three engines, and of others that were never trained on."""
    folder = tmp_path_factory.mktemp("data")
    own = [make_records(folder / str(i), name, range(9)) for i, name in enumerate(ENGINES)]
    return own, make_records(folder / "far", "opencv-ns", [3, *range(50, 54)])


@pytest.fixture(scope="module")
def run(script, data, tmp_path_factory):
    """A whole run: records -> a detector an engine -> judgements -> report."""
    own, far = data
    out = tmp_path_factory.mktemp("run")
    arguments = [
        "--data",
        *own[:2],
        "--data",
        own[2],
        "--external",
        f"far={far}",
        "--out",
        str(out),
    ]
    assert script.main([*arguments, "--growth", *QUICK]) == 0
    return arguments, out


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
    assert "data:image/png" in page
    assert "<script" not in page


def test_run_again_it_fits_and_judges_nothing(run, script, monkeypatch, capsys):
    from cnnsvm import InpaintDetector

    def forbidden(*args, **kwargs):
        raise AssertionError("done again")

    arguments, out = run
    before = (out / "leave-one-out-predictions.csv").read_text()
    for method in ("fit", "transform"):
        monkeypatch.setattr(InpaintDetector, method, forbidden)
    assert script.main([*arguments, "--growth", *QUICK]) == 0
    assert (out / "leave-one-out-predictions.csv").read_text() == before
    assert "Spliced: engines left out of training" in capsys.readouterr().out
    assert script.main([*arguments, *QUICK, "--kernel", "linear"]) == 2
    assert "Choose another output folder" in capsys.readouterr().err


def test_families_are_left_out_together(script, data, tmp_path, capsys):
    family = ["--family", "opencv-telea*=telea", "--target", "label", "--rounds", "2"]
    arguments = ["--data", *data[0], "--out", str(tmp_path), *family]
    assert script.main([*arguments, *QUICK]) == 0
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "nowhere: no such file or folder"),
        (["--family", "*=one"], "one family only, one"),
        (["--external", "far=nowhere"], "nowhere: no such file or folder"),
        (["--external", "far=FAR", "far=FAR"], "far is given twice"),
        (["--rounds", "4"], "between 1 and the 3 folds"),
        (["--target", "seed"], "target="),
        (["--stem", "wide"], "--stem"),
    ],
)
def test_mistakes_are_one_message(script, data, tmp_path, capsys, arguments, message):
    arguments = [text.replace("FAR", data[1]) for text in arguments]
    usual = ["--data", *data[0][:2], "--out", str(tmp_path), *QUICK]
    assert script.main([*usual, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
