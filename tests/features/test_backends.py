import gc
import logging
import sys
import weakref
from importlib.util import find_spec

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
from cnnsvm.io.machine import user_cache

CPU = torch.device("cpu")
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="the extra openvino")
BACKENDS = ["torch", pytest.param("openvino", marks=needs_openvino)]
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


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_backend_computes_what_the_network_does(name, backend):
    made = network(name, **NETWORKS[name])
    for n in (5, 2, 1):  # the last batch of images is a smaller one
        found = run(made, crops(n), backend=backend)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, made(crops(n)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_bfloat16_is_near_and_is_not_float32(backend):
    made = network("resnet18", truncate_at="layer2")
    expected = run(made, crops())
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


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_that_change_are_seen(backend):
    made = network()
    before = run(made, crops(), backend=backend)
    with torch.no_grad():
        for weight in made.body.parameters():
            weight.mul_(1.5)
    after = run(made, crops(), backend=backend)
    torch.testing.assert_close(after, made(crops()), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(before, after, atol=1e-3)


def test_of_the_states_of_a_network_the_last_is_kept():
    made = network()
    for _ in range(3):
        run(made, crops(2))
        with torch.no_grad():
            made.body[0].first[0].weight.mul_(1.5)
    assert len(backends._MADE[made][1]) == 1
    run(made, crops(2))
    run(made, crops(2, 32))
    assert len(backends._MADE[made][1]) == 2  # two shapes of one state


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
    if find_spec("openvino") is None:  # importing it here would tell its makers
        pytest.skip("the rest needs the extra openvino")
    with pytest.raises(DeviceError, match=r"(?s)cannot run this network.*Use 'torch'"):
        run(made, crops(), backend="openvino")


@needs_openvino
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


@pytest.fixture
def seconds(monkeypatch, tmp_path):
    """What timing finds of each backend; ``asked`` lists what was timed."""
    found, asked = {"torch": 2.0, "openvino": 1.0}, []

    def time(made, batch, dtype, backend):
        asked.append(backend)
        return found[backend]

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(backends, "_time", time)
    monkeypatch.setattr(backends, "find_spec", lambda name: True)
    monkeypatch.setattr(backends, "version", lambda name: "1.0")
    return found | {"asked": asked}


def choose(made=None, dtype=torch.float32, device=CPU):
    return choose_backend("auto", made or network(), 64, device, dtype)


def test_auto_takes_the_faster_one_and_times_it_once(seconds, monkeypatch):
    made = network()
    assert [choose(made), choose(made)] == ["openvino"] * 2
    assert seconds["asked"] == ["torch", "openvino"]
    monkeypatch.setattr(backends, "_time", lambda *_: float(_[-1] == "openvino"))
    assert choose(made, torch.bfloat16) == "torch"
    assert choose(made, device=torch.device("cuda")) == "torch"
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    assert choose() == "torch"


def test_another_process_takes_what_one_has_found(seconds, monkeypatch):
    for _ in range(2):  # networks, which know nothing of each other
        assert choose() == "openvino"
    assert seconds["asked"] == ["torch", "openvino"]
    monkeypatch.setattr(backends, "version", lambda name: "2.0")
    choose()
    assert len(seconds["asked"]) == 4


@pytest.mark.parametrize("content", ["{", "[1]", None])
def test_a_choice_that_is_spoilt_is_made_again(seconds, content):
    choose()
    file = user_cache() / backends.CHOICES
    kept = file.read_text()
    file.write_text(kept.replace("openvino", "nonsense") if content is None else content)
    assert choose() == "openvino"
    assert len(seconds["asked"]) == 4
    assert file.read_text() == kept


def test_without_a_home_nothing_is_kept_and_a_choice_is_made(seconds, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert choose() == "openvino"


@needs_openvino
def test_auto_really_times_both(caplog, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(backends, "TRIAL_PIXELS", 4096)
    caplog.set_level("INFO")
    assert choose_backend("auto", network(), 32, CPU, torch.float32) in ("torch", "openvino")
    assert "torch 0." in caplog.text
    assert "openvino 0." in caplog.text


def test_without_the_extra_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ImportError, match=r"cnnsvm\[openvino\]"):
        run(network(), crops(), backend="openvino")


@needs_openvino
def test_an_embedder_embeds_by_its_backend():
    image = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    made = [cnn(backend=name, random_state=0).fit([image]) for name in ("torch", "openvino")]
    ways = [tuple(each.fitted_way_) for each in made]
    assert ways == [("torch", "float32"), ("openvino", "float32")]
    one, other = (each.transform([image] * 3) for each in made)
    np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="backend"):
        CNNEmbedder(backend="tflite", weights=None, finetune="none").fit([image])


def test_random_numbers_of_others_stay_as_they_were(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(backends, "TRIAL_PIXELS", 4096)
    made = network()
    state = torch.random.get_rng_state()
    choose_backend("auto", made, 32, CPU, torch.float32)
    assert torch.equal(torch.random.get_rng_state(), state)


@needs_openvino
def test_nobody_is_told_of_an_import():
    run(network(), crops(), backend="openvino")
    assert sys.modules["openvino_telemetry"] is None


@needs_openvino
def test_a_conversion_leaves_the_logging_of_others_as_it_is(caplog):
    made, root = network(), logging.getLogger()
    before = (list(root.handlers), list(root.filters), root.manager.disable)
    run(made, crops(), backend="openvino")
    assert (root.handlers, root.filters, root.manager.disable) == before
    caplog.clear()
    with backends._unsaid("fx_decoder"):
        logging.getLogger("other").warning("said")
    assert caplog.messages == ["said"]
