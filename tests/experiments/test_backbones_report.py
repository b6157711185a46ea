import io
import json

import pandas as pd
import pytest
from report_contract import check_report, check_width

from cifake_study.report import backbones_report


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
def report():
    facts = {"title": "Backbones <b>", "command": "python x", "environment": {}}
    facts |= {"n_train": 1000, "n_test": 200}
    rows = [row("resnet18", 0.91, 0.92), row("vgg11_bn, no augmentation", 0.81, 0.85)]
    return backbones_report(rows, facts)


def test_page_and_text_have_both_heads_and_what_they_cost(report):
    page, text = check_report(report)
    check_width(text)
    parts = (
        "0.910 [0.900, 0.920]",
        "0.920 [0.910, 0.930]",
        "2.50 M",
        "12.5",
        "1,23",
        "resnet18, SVM",
    )
    for part in (*parts, "Backbones <b>", "vgg11_bn, no augmentation"):
        assert part in page.said
        assert part in text


def test_the_files_say_the_same(report):
    assert set(report.files) == {"backbones.csv", "backbones.json"}
    table = pd.read_csv(io.StringIO(report.files["backbones.csv"])).set_index("name")
    assert table.loc["resnet18", "svm_accuracy_low"] == pytest.approx(0.91)
    assert json.loads(report.files["backbones.json"])["n_test"] == 200
