from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from cifake_study.heads import (
    compare_heads,
    fit_exact_head,
    fit_subset_head,
    network_head,
    network_heads,
    peak_memory,
    svm_head,
)
from cnnsvm import InpaintDetector
from cnnsvm.features.backbones import build_backbone

DIM = 6


def rows(n, seed):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    embeddings = rng.normal(size=(n, DIM)).astype(np.float32)
    radius = np.where(labels == 1, 3.0, 1.0)[:, None]  # no plane can tell them apart
    embeddings *= radius / np.linalg.norm(embeddings, axis=1, keepdims=True)
    embeddings += rng.normal(scale=0.2, size=embeddings.shape).astype(np.float32)
    return embeddings.astype(np.float32), labels, np.arange(n)


def frame_of(labels):
    return pd.DataFrame(
        {
            "path": [f"{i}.png" for i in range(len(labels))],
            "source_id": [f"s{i}" for i in range(len(labels))],
            "label": labels,
            "variant": np.where(labels == 1, "regenerated", "original"),
            "engine": None,
            "mask_schema": None,
        }
    )


class Fitted:
    """A detector whose network's own layer is a plane, which cannot follow the ring."""

    pooling, nystroem, fusion = "mean", None, "embeddings"

    def __init__(self, svm):
        self.svm_ = svm
        weight = torch.ones(DIM, 1)
        network = {"fake_scores": lambda _, e: e @ weight, "ensemble": ()}
        self.network_ = type("Network", (), network)()


@pytest.fixture(scope="module")
def heads():
    fitted, (judged, truth, _) = rows(300, 0), rows(200, 1)
    frame = frame_of(truth)
    detector = InpaintDetector("precomputed", n_trials=3, random_state=0).fit(*fitted)
    model = Fitted(detector.svm_)
    subset, params = fit_subset_head(fitted, judged, frame, 60, n_trials=3)
    return {
        "own": network_head(model, judged, frame),
        "subset": subset,
        "exact": fit_exact_head(fitted, judged, frame, params),
        "svm": svm_head(model, judged, frame),
        "params": params,
    }


def test_each_head_judges_what_it_should(heads):
    accuracy = {
        name: (h.predictions["prediction"] == h.predictions["label"]).mean()
        for name, h in heads.items()
        if name != "params"
    }
    assert accuracy["own"] < 0.65
    assert min(accuracy[name] for name in ("subset", "exact", "svm")) > 0.85


def test_the_exact_machine_is_scikit_learns(heads):
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    (X, y, _), (judged, _, _) = rows(300, 0), rows(200, 1)
    scaled = StandardScaler().fit_transform(X.astype(float))
    gamma = heads["params"]["gamma_factor"] / (DIM * scaled.var())
    svc = SVC(C=heads["params"]["C"], gamma=gamma, class_weight=heads["params"]["class_weight"])
    reference = make_pipeline(StandardScaler(), svc).fit(X.astype(float), y)
    expected = reference.decision_function(judged.astype(float))
    np.testing.assert_allclose(heads["exact"].predictions["score"], expected, atol=5e-3)
    assert heads["exact"].n_vectors == svc.n_support_.sum()


def test_heads_are_compared_with_the_last(heads):
    table = compare_heads([heads[name] for name in ("own", "exact", "svm")])
    assert [row["head"] for row in table][2] == "SVM (the detector)"
    assert table[2]["difference"] is None
    assert table[0]["difference"]["high"] < 0  # the plane is clearly worse
    value = table[1]["metrics"]["accuracy"]["value"] - table[2]["metrics"]["accuracy"]["value"]
    assert table[1]["difference"]["value"] == pytest.approx(value)


def test_another_pooling_has_no_layer_of_its_own(heads):
    model = Fitted(None)
    model.pooling = "mean_std"
    with pytest.raises(ValueError, match="pooling='mean_std'"):
        network_head(model, np.zeros((2, DIM), np.float32), frame_of(np.array([0, 1])))


def test_memory_is_in_bytes():
    assert 2**26 < peak_memory() < 2**37  # more than 64 MB, less than 128 GB


def test_each_network_of_an_ensemble_judges_alone_and_all_together():
    network, member = (build_backbone("plain_cnn", random_state=s).eval() for s in (0, 1))
    for part in (network, member):
        part.classifier = torch.nn.Linear(256, 2)
    member.description = {"params": {"backbone": "plain_cnn"}}
    network.ensemble.append(member)
    own = {"network_": network, "pooling": "mean", "backbone": "plain_cnn"}
    detector = SimpleNamespace(**own, fusion="embeddings")
    embeddings = np.random.default_rng(0).normal(size=(8, 512)).astype(np.float32)
    frame = frame_of(np.arange(8) % 2)
    parts = network_heads(detector, embeddings, frame)
    together = network_head(detector, embeddings, frame)
    assert [part.name for part in parts] == ["plain_cnn alone, its own layer"] * 2
    assert together.name == "networks' own layers, averaged"
    scores = np.stack([part.predictions["score"] for part in parts])
    np.testing.assert_allclose(together.predictions["score"], scores.mean(axis=0), atol=1e-6)
    assert np.abs(scores[0] - scores[1]).max() > 0.01


def test_a_network_without_an_ensemble_is_judged_once(heads):
    embeddings, truth, _ = rows(20, 1)
    assert network_heads(Fitted(None), embeddings, frame_of(truth)) == []


def test_scores_instead_of_embeddings_are_judged_alike():
    networks = [build_backbone("plain_cnn", random_state=seed).eval() for seed in range(3)]
    for network in networks:
        network.classifier = torch.nn.Linear(256, 2)
        network.description = {"params": {"backbone": "plain_cnn"}}
    first, second, third = networks
    second.ensemble.append(third)  # an ensemble in an ensemble
    first.ensemble.append(second)
    embeddings = torch.randn(8, 768, generator=torch.Generator().manual_seed(0))
    seen = {"embeddings": embeddings, "scores": first.class_scores(embeddings).detach()}
    own = {"network_": first, "pooling": "mean", "backbone": "plain_cnn"}
    frame = frame_of(np.arange(8) % 2)
    found = {}
    for fusion, said in seen.items():
        detector = SimpleNamespace(**own, fusion=fusion)
        heads = [*network_heads(detector, said.numpy(), frame)]
        heads.append(network_head(detector, said.numpy(), frame))
        found[fusion] = np.stack([head.predictions["score"] for head in heads])
    assert seen["scores"].shape == (8, 3)
    assert found["scores"].shape == (3, 8)  # two networks, and both together
    np.testing.assert_allclose(found["scores"], found["embeddings"], atol=1e-5)
