import json

import pandas as pd
import pytest
import torch
import torchvision
from PIL import Image
from script_runs import load_script


@pytest.fixture(scope="module")
def run(finished):
    found = finished("benchmark")
    return found.arguments, found.out


@pytest.fixture(scope="module")
def script(finished):
    return finished("benchmark").script


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


def test_some_designs_of_a_run_are_compared_without_fitting_any(run, script, monkeypatch, capsys):
    from cnnsvm import InpaintDetector

    monkeypatch.setattr(InpaintDetector, "fit", lambda *_, **__: pytest.fail("fitted again"))
    out = run[1] / "benchmark-predictions.csv"
    before = out.read_bytes()
    assert script.main([*run[0], "--codec", "png", "--only", "seed", "detector"]) == 0
    said = capsys.readouterr().out
    assert "detector - seed" in said
    assert "naive" not in said.partition("detector - seed")[2].partition("\n")[0]
    out.write_bytes(before)  # other tests read the whole table


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
    script = load_script("benchmark")
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
    script = load_script("benchmark")
    for table in ([], ["--ablation"]):
        for design in script.make_designs(script.parse_arguments(table)).values():
            design.check_params()
            assert design.threshold == script.THRESHOLD
    (naive,) = script.make_designs(script.parse_arguments([]))["naive"].embedder
    assert (naive.size, naive.weights) == (224, "imagenet")


def test_the_naive_design_takes_a_weights_file(run, script, tmp_path):
    torch.manual_seed(0)
    file = tmp_path / "weights.pth"
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), file)
    own = ["--weights-naive", str(file), "--preprocessing-naive", "caffe", "--only", "naive"]
    assert script.main([*run[0], "--codec", "png", *own, "--out", str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert "weights.pth" in report["settings"]["naive"]
    assert "caffe" in report["settings"]["naive"]
    assert report["results"]["png"]["differences"] == []
