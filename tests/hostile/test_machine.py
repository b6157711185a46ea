import pytest
import torch
from torchvision.models import resnet18, resnet34

from cnnsvm.features.backbones.weights import WeightsError, load_weights
from cnnsvm.features.reading import memory_of_machine
from cnnsvm.io.memory import is_short_of_memory


@pytest.mark.parametrize("text", ["1000\n", "max\n", None])
def test_the_memory_of_a_container_counts(text, tmp_path):
    file = tmp_path / "memory.max"
    if text is not None:
        file.write_text(text)
    found = memory_of_machine([str(file), str(tmp_path / "none")])
    assert found == 1000 if text == "1000\n" else found > 2**28


@pytest.mark.parametrize("wrap", ["module.", "backbone.", "module.model.", "_orig_mod.", "net.0."])
@pytest.mark.parametrize("key", [None, "state_dict", "model", "model_state_dict"])
def test_checkpoints_with_the_usual_prefixes_are_read(wrap, key, tmp_path):
    torch.manual_seed(0)
    source, target = resnet18(), resnet18()
    state = {wrap + name: value for name, value in source.state_dict().items()}
    torch.save({key: state, "epoch": 3} if key else state, tmp_path / "a.pth")
    load_weights(target, "resnet18", tmp_path / "a.pth")
    assert torch.equal(target.layer4[1].conv2.weight, source.layer4[1].conv2.weight)


def test_weights_of_a_larger_network_are_refused(tmp_path):
    torch.save(resnet34().state_dict(), tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="larger network"):
        load_weights(resnet18(), "resnet18", tmp_path / "a.pth")


def test_of_two_networks_in_a_file_none_is_chosen(tmp_path):
    state = {f"encoder_{k}.{name}": v for k in "qk" for name, v in resnet18().state_dict().items()}
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"2 networks, named encoder_q., encoder_k."):
        load_weights(resnet18(), "resnet18", tmp_path / "a.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(value, tmp_path):
    state = resnet18().state_dict()
    state["layer3.0.conv1.weight"][0, 0, 0, 0] = value
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"NaN or infinity, first in layer3.0.conv1.weight"):
        load_weights(resnet18(), "resnet18", tmp_path / "a.pth")


@pytest.mark.parametrize("content", [{"conv1.weight": 3}, {"model": {"state": [1]}}, [1, 2], 7])
def test_what_holds_no_parameters_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(WeightsError):
        load_weights(resnet18(), "resnet18", tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you"), True),
        (RuntimeError("CUDA out of memory. Tried to allocate"), True),
        (RuntimeError("shape mismatch"), False),
    ],
)
def test_memory_that_is_short_is_known_whoever_says_so(error, expected):
    assert is_short_of_memory(error) is expected
