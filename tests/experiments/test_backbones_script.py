import json

import pandas as pd
import pytest


@pytest.fixture(scope="module")
def run(finished):
    found = finished("backbones")
    return found.arguments, found.out


@pytest.fixture(scope="module")
def script(finished):
    return finished("backbones").script


def test_each_variant_has_a_row_with_both_heads(run):
    table = pd.read_csv(run[1] / "backbones.csv").set_index("name")
    kinds = ("no augmentation", "taught objects", "pretrained")
    assert table.index.tolist() == ["plain_cnn", *(f"plain_cnn, {kind}" for kind in kinds)]
    of_two, of_four = 389_410, 389_410 + 2 * 257  # classes of the layer on top
    assert table["parameters"].tolist() == [of_two, of_two, of_four, of_two]
    for head in ("network", "svm"):
        assert table[f"{head}_accuracy"].between(0, 1).all()
        assert (table[f"{head}_accuracy_low"] <= table[f"{head}_accuracy"]).all()
    assert (table["minutes"] > 0).all()
    page = (run[1] / "backbones.html").read_text()
    assert "no augmentation" in page
    assert "Loss, accuracy and AUC" in page


def test_variants_differ_in_what_they_are_named_for(run):
    report = json.loads((run[1] / "backbones.json").read_text())
    losses = [row["history"][0]["train_loss"] for row in report["backbones"]]
    assert len(set(losses)) == 4


def test_weights_may_say_what_they_expect_to_see(script, tmp_path):
    for name in ("plain.pth", "odd,name.pth"):
        (tmp_path / name).touch()
    given = [f"vgg11_bn={tmp_path / 'plain.pth'},caffe", f"resnet18={tmp_path / 'odd,name.pth'}"]
    args = script.parse_arguments(["--train", "x", "--weights", *given, "--backbones", "plain_cnn"])
    found = script.list_variants(args)
    assert found["vgg11_bn, pretrained"]["preprocessing"] == "caffe"
    assert found["vgg11_bn, pretrained"]["weights"] == str(tmp_path / "plain.pth")
    assert found["resnet18, pretrained"]["preprocessing"] == "imagenet"
    assert found["resnet18, pretrained"]["weights"] == str(tmp_path / "odd,name.pth")


def test_networks_without_batch_normalisation_learn_at_a_tenth_of_the_rate(script):
    usual = script.learning_rate("resnet18", pretrained=False)
    for name, share in (("vgg11_bn", 1), ("plain_cnn", 1), ("vgg11", 0.1), ("squeezenet1_0", 0.1)):
        assert script.learning_rate(name, pretrained=False) == pytest.approx(share * usual)
    assert script.learning_rate("resnet18", pretrained=True) < usual
