import json

import pandas as pd
import pytest

from cifake_study.backbones_report import write_backbones


def interval(value):
    return {"value": value, "low": value - 0.01, "high": value + 0.01}


def row(name, own, svm):
    def head(value, difference):
        metrics = {m: interval(value) for m in ("accuracy", "f1", "roc_auc")}
        return {"metrics": metrics, "difference": difference}

    history = [
        {"epoch": e, "train_loss": 1 / (e + 1), "valid_loss": 1.0, "valid_accuracy": 0.9}
        for e in range(3)
    ]
    return {
        "name": name,
        "parameters": 2_500_000,
        "minutes": 12.5,
        "images_a_second": 1234.5,
        "history": history,
        "network": head(own, interval(own - svm)),
        "svm": head(svm, None),
    }


@pytest.fixture
def written(tmp_path):
    facts = {"title": "Backbones <b>", "command": "python x", "environment": {}}
    facts |= {"n_train": 1000, "n_test": 200}
    rows = [row("resnet18", 0.91, 0.92), row("vgg11_bn, no augmentation", 0.81, 0.85)]
    return tmp_path, *write_backbones(tmp_path, rows, facts)


def test_the_table_has_both_heads_and_what_they_cost(written):
    _, text, _ = written
    for part in ("0.910 [0.900, 0.920]", "0.920 [0.910, 0.930]", "2.50 M", "12.5", "1,23"):
        assert part in text


def test_the_files_say_the_same(written):
    folder, _, files = written
    assert [file.name for file in files] == [
        f"backbones.{kind}" for kind in ("csv", "json", "html")
    ]
    table = pd.read_csv(folder / "backbones.csv").set_index("name")
    assert table.loc["resnet18", "svm_accuracy_low"] == pytest.approx(0.91)
    assert json.loads((folder / "backbones.json").read_text())["n_test"] == 200
    page = (folder / "backbones.html").read_text()
    assert "Backbones &lt;b&gt;" in page
    assert "vgg11_bn, no augmentation" in page
