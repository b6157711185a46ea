import pytest
import torch
from torchvision.models import resnet18, resnet34

from cnnsvm.features.backbones.weights import WeightsError, load_weights
from cnnsvm.features.reading import memory_of_machine


@pytest.mark.parametrize("text", ["1000\n", "max\n", None])
def test_the_memory_of_a_container_counts(text, tmp_path):
    file = tmp_path / "memory.max"
    if text is not None:
        file.write_text(text)
    found = memory_of_machine([str(file), str(tmp_path / "none")])
    assert found == 1000 if text == "1000\n" else found > 2**28


@pytest.mark.parametrize("wrap", ["module.", "backbone.", "module.model.", "encoder."])
@pytest.mark.parametrize("key", [None, "state_dict", "model"])
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
