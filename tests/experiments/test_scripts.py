"""The contract of every script: help, a run, resuming it, no other run's results, mistakes."""

import json

import pandas as pd
import pytest
from script_runs import EXPERIMENTS, RUNS, load_script

from cnnsvm import InpaintDetector

#: Scripts of the study of localisers and others that have suites of their own share the help only.
SCRIPTS = sorted(
    path.stem for path in EXPERIMENTS.glob("*.py") if "def main(" in path.read_text("utf-8")
)
#: Run -> files that a second call must write again as they were.
TABLES = {
    "cv": ["predictions.csv"],
    "benchmark": ["benchmark-predictions.csv"],
    "robustness": ["robustness-predictions.csv"],
    "leave_one_out": ["leave-one-out-predictions.csv"],
    "cifake": ["predictions.csv"],
    "backbones": ["backbones.csv"],
}
MEASURED_AGAIN = ["images_a_second"]
#: Run -> what it says on its images; those that store judgements judge nothing again.
SAID = {
    "cv": "ROC AUC",
    "benchmark": "detector - seed",
    "robustness": "Spliced: 30 fakes against 6 originals",
    "leave_one_out": "Spliced: engines left out of training",
}
PAGES = {name: [table[0].replace("-predictions", "")] for name, table in TABLES.items()}
#: Run -> arguments that make another run of it.
OTHERS = {
    "cv": ["--kernel", "linear"],
    "benchmark": ["--seed", "1"],
    "robustness": ["--kernel", "linear"],
    "leave_one_out": ["--kernel", "linear"],
    "cifake": ["--epochs", "1"],
    "backbones": ["--epochs", "1"],
}
#: Run, arguments that cannot be, and what the message must say.
MISTAKES = [
    *((name, ["--data", "nowhere"], "nowhere: no such file or folder") for name in list(RUNS)[:4]),
    *((name, ["--device", "cuda:77"], "cuda:77") for name in TABLES),
    ("cv", ["--backbone", "resnet19"], "'resnet19'"),
    ("cv", ["--generate", "magic"], "opencv-telea"),
    ("cv", ["--weights", "gone.pth"], "gone.pth"),
    ("cv", ["--threshold", "often"], "often"),
    ("benchmark", ["--only", "best"], "no design 'best'. There is: naive, seed, statistics"),
    ("benchmark", ["--only", "seed", "--folds", "7"], "6 group(s) but 7 folds"),
    ("benchmark", ["--weights-naive", "nowhere.pth"], "nowhere.pth"),
    ("robustness", ["--corruptions", "jpeg-50"], "There is: clean, jpeg-95"),
    ("robustness", ["--model", "nowhere"], "nowhere"),
    ("robustness", ["--backbone", "resnet19"], "'resnet19'"),
    ("robustness", ["--folds", "7"], "6 group(s) but 7 folds"),
    ("robustness", ["--target", "path"], "target='path'"),
    ("leave_one_out", ["--family", "*=one"], "one family only, one"),
    ("leave_one_out", ["--external", "more=nowhere"], "nowhere: no such file or folder"),
    ("leave_one_out", ["--external", "far=FAR"], "far is given twice"),
    ("leave_one_out", ["--rounds", "4"], "between 1 and the 3 folds"),
    ("leave_one_out", ["--target", "seed"], "target="),
    ("leave_one_out", ["--backbone", "resnet18", "--stem", "wide"], "'wide'"),
    ("cifake", ["--train", "nowhere"], "nowhere"),
    ("backbones", ["--train", "nowhere"], "nowhere"),
    *(
        ("backbones", ["--weights", given], f"a file that exists, got '{given}'")
        for given in ("resnet18", "resnet18=no.pth", "resnet18=no.pth,caffe")
    ),
    ("train_bundle", ["--data", "nowhere"], "nowhere: no such file or folder"),
    ("train_bundle", ["--decoders", "nowhere"], "nowhere holds no generators. Make them"),
    ("train_bundle", ["--device", "gpu"], "'gpu'"),
    ("train_bundle", ["--card", "nowhere.json"], "nowhere.json"),
]


def refuse_to_fit(*args, **kwargs):
    raise AssertionError("fitted again")


def read(run, name):
    table = pd.read_csv(run.out / name)
    return table.drop(columns=[column for column in MEASURED_AGAIN if column in table])


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_says_what_the_script_does(name, capsys):
    script = load_script(name)
    with pytest.raises(SystemExit) as caught:
        script.main(["--help"])
    assert caught.value.code == 0
    said = capsys.readouterr().out
    if name == "cv":  # a command of the package
        assert "usage: cnnsvm cv" in said
        return
    assert script.__doc__.splitlines()[0].strip() in said
    assert f"experiments/{name}.py" in said


@pytest.mark.parametrize("name", TABLES)
def test_a_run_leaves_a_report_that_needs_nothing_else(name, finished):
    run = finished(name)
    (stem,) = (file.removesuffix(".csv") for file in PAGES[name])
    stem = "report" if stem == "predictions" else stem
    page = (run.out / f"{stem}.html").read_text("utf-8")
    for foreign in ('src="http', "<script"):
        assert foreign not in page
    assert f"experiments/{name}.py" in page or "python" in page
    assert json.loads((run.out / f"{stem}.json").read_text("utf-8"))


@pytest.mark.parametrize("name", TABLES)
def test_a_second_call_fits_nothing_and_says_the_same(name, finished, monkeypatch, capsys):
    run = finished(name)
    before = {file: read(run, file) for file in TABLES[name]}
    monkeypatch.setattr(InpaintDetector, "fit", refuse_to_fit)
    if name in SAID:
        monkeypatch.setattr(InpaintDetector, "judge", refuse_to_fit)
    assert run.again() == 0
    for file, table in before.items():
        pd.testing.assert_frame_equal(read(run, file), table)
    said = capsys.readouterr().out
    assert str(run.out) in said
    assert SAID.get(name, "") in said


@pytest.mark.parametrize("name", OTHERS)
def test_results_of_another_run_are_not_mixed_in(name, finished, monkeypatch, capsys):
    run = finished(name)
    before = {file: (run.out / file).read_bytes() for file in TABLES[name]}
    monkeypatch.setattr(InpaintDetector, "fit", refuse_to_fit)
    assert run.again(*OTHERS[name]) == 2
    said = capsys.readouterr().err
    assert "Choose another output folder" in said
    assert "Traceback" not in said
    assert {file: (run.out / file).read_bytes() for file in before} == before


@pytest.mark.parametrize(
    ("name", "changes", "message"), MISTAKES, ids=[f"{m[0]} {' '.join(m[1])}" for m in MISTAKES]
)
def test_a_mistake_is_one_message(name, changes, message, finished, tmp_path, capsys):
    run = finished(name)
    far = [text.removeprefix("far=") for text in run.arguments if text.startswith("far=")]
    changes = [text.replace("FAR", *far) if far else text for text in changes]
    arguments = replace_data(run.arguments, changes)
    assert run.script.main([*arguments, *changes, "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("cnnsvm cv: " if name == "cv" else f"{name}.py: ")
    assert "Traceback" not in said


def replace_data(arguments, changes):
    """Leave out ``--data`` and its values, which add up in some scripts, if others are given."""
    if "--data" not in changes:
        return arguments
    kept, is_data = [], False
    for text in arguments:
        is_data = text == "--data" if text.startswith("--") else is_data
        kept += [] if is_data else [text]
    return kept
