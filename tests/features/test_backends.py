import gc
import sys
import weakref

import numpy as np
import pytest
import torch
from tiny_detector import cnn
from torch import nn

from cnnsvm import CNNEmbedder
from cnnsvm.features import backends
from cnnsvm.features.backbones import build_backbone
from cnnsvm.features.backends import choose_backend
from cnnsvm.features.devices import DeviceError

CPU = torch.device("cpu")
#: An architecture with residual connections, and one whose batch norms stand behind pools.
NETWORKS = {
    "resnet18": {"truncate_at": "layer2"},
    "plain_cnn_7": {"stem": "small"},
}


def network(name="plain_cnn_7", **more):
    """A network whose batch norms have seen something, so that folding them changes weights."""
    made = build_backbone(name, None, "residual", random_state=0, **more).eval()
    made.requires_grad_(False)
    torch.manual_seed(0)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return made


def run(made, batch, dtype=torch.float32, backend="torch"):
    with torch.inference_mode():
        return backends.run(made, batch, dtype, backend)


def crops(n=5, size=64):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("backend", ["torch", "openvino"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_backend_computes_what_the_network_does(name, backend):
    made = network(name, **NETWORKS[name])
    for n in (5, 2, 1):  # the last batch of images is a smaller one
        found = run(made, crops(n), backend=backend)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, made(crops(n)), rtol=1e-4, atol=1e-5)


def test_bfloat16_is_near_and_is_not_float32():
    made = network("resnet18", truncate_at="layer2")
    expected = run(made, crops())
    for backend in ("torch", "openvino"):
        found = run(made, crops(), torch.bfloat16, backend)
        apart = (found - expected).norm() / expected.norm()
        assert 1e-6 < apart < 0.05


def test_batch_norms_are_folded_and_the_network_stays_as_it_was():
    made = network()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    folded = backends._fold(made, torch.float32, None, (3, 64, 64))
    norms = [sum(isinstance(m, nn.BatchNorm2d) for m in each.modules()) for each in (folded, made)]
    assert norms[0] < norms[1]
    for name, value in made.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_weights_that_change_are_seen(backend):
    made = network()
    before = run(made, crops(), backend=backend)
    with torch.no_grad():
        for weight in made.body.parameters():
            weight.mul_(1.5)
    after = run(made, crops(), backend=backend)
    torch.testing.assert_close(after, made(crops()), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(before, after, atol=1e-3)


def test_what_is_made_goes_with_the_network():
    made = network()
    run(made, crops())
    gone = weakref.ref(made)
    del made
    gc.collect()
    assert gone() is None


def test_what_cannot_be_traced_is_run_as_it_is():
    class Moody(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, values):
            return self.norm(values) if values.mean() > 0 else -self.norm(values)

    made = build_backbone(Moody(), None, "imagenet").eval()
    torch.testing.assert_close(run(made, crops()), made(crops()))
    with pytest.raises(DeviceError, match=r"(?s)cannot run this network.*Use 'torch'"):
        run(made, crops(), backend="openvino")


def test_a_wrong_conversion_is_refused(monkeypatch):
    made, other = network(), network(stem="small")
    with torch.no_grad():
        other.body[0].first[0].weight.mul_(2)
    convert = backends._convert
    monkeypatch.setattr(
        backends, "_convert", lambda _, example: convert(backends.NetworkPart(other), example)
    )
    with pytest.raises(DeviceError, match=r"other embeddings.*0\.001 is the most"):
        run(made, crops(), backend="openvino")


def test_auto_takes_the_faster_one_and_times_it_once(monkeypatch):
    seconds, asked = {"torch": 2.0, "openvino": 1.0}, []

    def time(made, batch, dtype, backend):
        asked.append(backend)
        return seconds[backend]

    monkeypatch.setattr(backends, "_time", time)
    made = network()
    for _ in range(2):
        assert choose_backend("auto", made, 64, CPU, torch.float32) == "openvino"
    assert asked == ["torch", "openvino"]
    seconds["openvino"] = 3.0
    assert choose_backend("auto", made, 64, CPU, torch.bfloat16) == "torch"
    assert choose_backend("auto", made, 64, torch.device("cuda"), torch.float32) == "torch"
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    assert choose_backend("auto", network(), 64, CPU, torch.float32) == "torch"


def test_auto_really_times_both(caplog, monkeypatch):
    monkeypatch.setattr(backends, "TRIAL_PIXELS", 4096)
    caplog.set_level("INFO")
    assert choose_backend("auto", network(), 32, CPU, torch.float32) in ("torch", "openvino")
    assert "torch 0." in caplog.text
    assert "openvino 0." in caplog.text


def test_without_the_extra_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ImportError, match=r"cnnsvm\[openvino\]"):
        run(network(), crops(), backend="openvino")


def test_an_embedder_embeds_by_its_backend():
    image = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    made = [cnn(backend=name, random_state=0).fit([image]) for name in ("torch", "openvino")]
    ways = [tuple(each.fitted_way_) for each in made]
    assert ways == [("torch", "float32"), ("openvino", "float32")]
    one, other = (each.transform([image] * 3) for each in made)
    np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="backend"):
        CNNEmbedder(backend="tflite", weights=None, finetune="none").fit([image])


def test_random_numbers_of_others_stay_as_they_were(monkeypatch):
    monkeypatch.setattr(backends, "TRIAL_PIXELS", 4096)
    made = network()
    state = torch.random.get_rng_state()
    choose_backend("auto", made, 32, CPU, torch.float32)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_nobody_is_told_of_an_import():
    run(network(), crops(), backend="openvino")
    assert sys.modules["openvino_telemetry"] is None
