from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from cifake_study.heads import (
    compare_heads,
    fit_exact_head,
    fit_subset_head,
    network_head,
    network_heads,
    peak_memory,
    svm_head,
)
from cnnsvm import TunedSVC

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


def embedder(fake_score, **more):
    """What stands for a fitted embedder: a layer that judges its mean embeddings."""
    network = SimpleNamespace(fake_score=fake_score)
    own = {"network_": network, "pooling": "mean", "output": "embedding", "embedding_dim_": DIM}
    return SimpleNamespace(**own | {"backbone": "plain_cnn"} | more)


def plane(embeddings):
    """A layer that cannot follow the ring."""
    return embeddings.sum(dim=1)


@pytest.fixture(scope="module")
def heads():
    fitted, (judged, truth, _) = rows(300, 0), rows(200, 1)
    frame = frame_of(truth)
    svm = TunedSVC(n_trials=3, random_state=0).fit(*fitted)
    model = SimpleNamespace(embedder_=[embedder(plane)], classifier_=svm)
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
    model = SimpleNamespace(embedder_=[embedder(plane, pooling="mean_std")])
    with pytest.raises(ValueError, match="pooling='mean_std'"):
        network_head(model, np.zeros((2, DIM), np.float32), frame_of(np.array([0, 1])))


def test_memory_is_in_bytes():
    assert 2**26 < peak_memory() < 2**37  # more than 64 MB, less than 128 GB


@pytest.mark.parametrize("output", ["embedding", "scores"])
def test_each_of_several_networks_judges_alone_and_all_together(output):
    parts = [
        embedder(lambda rows, k=k: rows[:, k], output=output, backbone=f"net{k}") for k in (0, 1)
    ]
    rng = np.random.default_rng(0)
    n_columns = 2 if output == "scores" else 2 * DIM
    embeddings = rng.normal(size=(8, n_columns)).astype(np.float32)
    expected = embeddings if output == "scores" else embeddings[:, [0, DIM + 1]]
    model, frame = SimpleNamespace(embedder_=parts), frame_of(np.arange(8) % 2)
    alone, together = (
        network_heads(model, embeddings, frame),
        network_head(model, embeddings, frame),
    )
    assert [head.name for head in alone] == [f"net{k} alone, its own layer" for k in (0, 1)]
    assert together.name == "networks' own layers, averaged"
    for k, head in enumerate(alone):
        np.testing.assert_allclose(head.predictions["score"], expected[:, k], rtol=1e-6)
    np.testing.assert_allclose(together.predictions["score"], expected.mean(axis=1), rtol=1e-5)


def test_a_single_network_is_judged_once():
    embeddings, truth, _ = rows(20, 1)
    model = SimpleNamespace(embedder_=[embedder(plane)])
    assert network_heads(model, embeddings, frame_of(truth)) == []
