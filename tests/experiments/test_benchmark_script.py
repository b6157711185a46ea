import importlib.util
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from PIL import Image

ROOT = Path(__file__).parents[2]
QUICK = ["--folds", "2", "--generate", "opencv-telea"]
NAIVE = ["--backbone-naive", "squeezenet1_1", "--weights-naive", "none"]


def load_script():
    path = ROOT / "experiments" / "benchmark.py"
    spec = importlib.util.spec_from_file_location("benchmark_script", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def script():
    """The script, its designs as small as they may be."""
    module = load_script()
    module.N_RESAMPLES = 50
    module.SEARCH |= {"n_trials": 1, "cv": 2}
    module.CROPS |= {"crop_size": 32, "n_crops": 1}
    module.TUNING |= {"epochs": 1}
    module.N_VIEWS = 1
    made = module.make_embedders

    def smaller(name, args):
        size = {"size": 32, "epochs": 1} if name == "seed" else {"size": 32}
        found = made(name, args)
        return [e.set_params(**size) if "size" in e.get_params() else e for e in found]

    module.make_embedders = smaller
    return module


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for i in range(6):
        pixels = np.random.default_rng(i).integers(0, 256, (48, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def run(script, photos, tmp_path_factory):
    """A whole run: sources -> inpaintings -> four designs in each fold -> report."""
    out = tmp_path_factory.mktemp("run")
    arguments = ["--data", str(photos), "--out", str(out), *QUICK, *NAIVE]
    assert script.main([*arguments, "--codec", "png", "jpeg:75"]) == 0
    return arguments, out


def test_the_four_designs_are_judged_on_the_same_folds(run):
    table = pd.read_csv(run[1] / "benchmark-predictions.csv")
    assert table["design"].unique().tolist() == ["naive", "seed", "statistics", "detector"]
    assert table["codec"].unique().tolist() == ["png", "jpeg:75"]
    assert (table.groupby(["codec", "design"])["path"].nunique() == 36).all()
    assert (table.groupby(["codec", "path"])["fold"].nunique() == 1).all()
    assert (table.groupby("source_id")["fold"].nunique() == 1).all()
    jpegs = table.loc[table["codec"] == "jpeg:75", "path"]
    assert jpegs.map(lambda path: Image.open(path).format == "JPEG").all()


def test_the_report_is_that_of_the_predictions(run):
    report = json.loads((run[1] / "benchmark.json").read_text())
    assert (report["n_images"], report["n_sources"], report["n_folds"]) == (36, 6, 2)
    table = pd.read_csv(run[1] / "benchmark-predictions.csv")
    for codec, result in report["results"].items():
        assert len(result["differences"]) == 12
        for entry in result["summary"]:
            own = table[(table["codec"] == codec) & (table["design"] == entry["design"])]
            rate = own.loc[own["label"] == 0, "prediction"].mean()
            assert entry["false_alarm_rate"] == pytest.approx(rate)
    page = (run[1] / "benchmark.html").read_text()
    assert "detector - seed" in page
    assert "<script" not in page


def test_run_again_it_fits_nothing(run, script, monkeypatch, capsys):
    from cnnsvm import InpaintDetector

    def forbidden(*args, **kwargs):
        raise AssertionError("done again")

    monkeypatch.setattr(InpaintDetector, "fit", forbidden)
    arguments, out = run
    before = (out / "benchmark-predictions.csv").read_text()
    assert script.main([*arguments, "--codec", "png", "jpeg:75"]) == 0
    assert (out / "benchmark-predictions.csv").read_text() == before
    assert script.main([*arguments, "--codec", "png", "--only", "seed", "detector"]) == 0
    assert "detector - seed" in capsys.readouterr().out


def test_the_ablation_takes_up_the_full_detector(run, script, monkeypatch, capsys):
    from cnnsvm import InpaintDetector

    fits, fit = [], InpaintDetector.fit

    def watch(self, *args, **kwargs):
        fits.append(self.get_params())
        return fit(self, *args, **kwargs)

    monkeypatch.setattr(InpaintDetector, "fit", watch)
    arguments, out = run
    assert script.main([*arguments, "--codec", "png", "--ablation"]) == 0
    names = list(script.ABLATION)
    assert len(fits) == 2 * (len(names) - 1)
    report = json.loads((out / "ablation.json").read_text())
    pairs = {(e["design"], e["against"]) for e in report["results"]["png"]["differences"]}
    assert pairs == {(name, "detector") for name in names[:-1]}
    assert "no-statistics - detector" in capsys.readouterr().out


def parts_of(design):
    """List (kind of embedder, parameter, value) of a design, and its views."""
    found = {("views", design.n_views)}
    for embedder in design.embedder:
        params = embedder.get_params()
        kind = type(embedder).__name__
        found.add((kind, "there"))
        found |= {(kind, k, str(v)) for k, v in params.items() if not hasattr(v, "get_params")}
    return found


def test_each_ablation_changes_what_its_name_says():
    script = load_script()
    designs = script.make_designs(script.parse_arguments(["--ablation"]))
    plain = script.make_designs(script.parse_arguments([]))
    full = parts_of(designs["detector"])
    assert parts_of(plain["detector"]) == full
    assert parts_of(designs["nothing-learnt"]) == parts_of(plain["statistics"])
    gone = {"no-cnn": "CNNEmbedder", "no-statistics": "ResidualStatistics"}
    for name, kind in gone.items():
        rest = {entry for entry in full if entry[0] != kind}
        assert parts_of(designs[name]) == rest, name
    changed = {
        "no-filter-bank": {("CNNEmbedder", "preprocessing")},
        "no-residuals": {("CNNEmbedder", "preprocessing")},
        "native-stem": {("CNNEmbedder", "stem")},
        "whole-network": {("CNNEmbedder", "truncate_at")},
        "mean-pooling": {("CNNEmbedder", "pooling"), ("ResidualStatistics", "pooling")},
        "no-views": {("views",)},
        "no-degradations": {  # views of what is not degraded would be copies
            ("views",),
            ("CNNEmbedder", "finetune__augmentation"),
            ("ResidualStatistics", "finetune__augmentation"),
        },
    }
    for name, parameters in changed.items():
        assert {entry[:-1] for entry in parts_of(designs[name]) ^ full} == parameters, name


def test_the_designs_as_written_are_valid():
    script = load_script()
    for table in ([], ["--ablation"]):
        for design in script.make_designs(script.parse_arguments(table)).values():
            design.check_params()
            assert design.threshold == script.THRESHOLD
    (naive,) = script.make_designs(script.parse_arguments([]))["naive"].embedder
    assert (naive.size, naive.weights) == (224, "imagenet")


def test_the_naive_design_takes_a_weights_file(script, photos, tmp_path):
    torch.manual_seed(0)
    file = tmp_path / "weights.pth"
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), file)
    naive = ["--backbone-naive", "squeezenet1_1", "--weights-naive", str(file)]
    usual = ["--data", str(photos), "--out", str(tmp_path / "out"), *QUICK, "--only", "naive"]
    assert script.main([*usual, *naive, "--preprocessing-naive", "caffe"]) == 0
    report = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert "weights.pth" in report["settings"]["naive"]
    assert "caffe" in report["settings"]["naive"]
    assert report["results"]["as given"]["differences"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "nowhere: no such file or folder"),
        (["--only", "best"], "no design 'best'. There is: naive, seed, statistics, detector"),
        (["--only", "seed", "--folds", "7"], "6 group(s) but 7 folds"),
        (["--weights-naive", "nowhere.pth"], "no such file"),
        (["--device", "cuda:99"], "cuda:99"),
    ],
)
def test_mistakes_are_one_message(script, photos, tmp_path, capsys, arguments, message):
    usual = ["--data", str(photos), "--out", str(tmp_path), *QUICK, *NAIVE]
    assert script.main([*usual, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
