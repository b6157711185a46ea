import pytest
import torch
import torchvision

from cnnsvm.features.backbones.weights import WeightsError
from cnnsvm.localization.architectures import build_network

RNG = torch.Generator().manual_seed(0)
PIXELS = torch.randint(0, 256, (1, 3, 64, 40), dtype=torch.uint8, generator=RNG)


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory):
    torch.manual_seed(8)
    file = tmp_path_factory.mktemp("weights") / "resnet50.pth"
    torch.save(torchvision.models.resnet50(weights=None).state_dict(), file)
    return file


def test_on_colours_it_is_torchvisions_network():
    network = build_network("fcn_resnet50", preprocessing="imagenet", random_state=3).eval()
    torch.manual_seed(3)
    reference = torchvision.models.segmentation.fcn_resnet50(
        weights=None, weights_backbone=None, num_classes=1, aux_loss=False
    ).eval()
    mean, std = (
        torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    scales = [name for name in reference.backbone.state_dict() if name.endswith("bn3.weight")]
    own = network.body.network.backbone.state_dict()
    assert len(scales) == 3 + 4 + 6 + 3
    for name in scales:  # blocks that begin close to the identity
        assert torch.unique(own[name]).tolist() == [pytest.approx(0.01)]
        reference.backbone.state_dict()[name].copy_(own[name])
    with torch.inference_mode():
        wanted = reference((PIXELS.float() / 255 - mean) / std)["out"]
        torch.testing.assert_close(network(PIXELS), wanted, rtol=1e-3, atol=1e-4)


def test_on_residuals_it_does_not_see_brightness():
    network = build_network("fcn_resnet50").eval()
    dark = PIXELS // 2
    with torch.inference_mode():
        torch.testing.assert_close(network(dark), network(dark + 100), rtol=1e-3, atol=1e-4)


def test_the_backbones_weights_come_from_a_file(weights_file, caplog):
    network = build_network("fcn_resnet50", weights=weights_file, preprocessing="imagenet")
    state = torch.load(weights_file, weights_only=True)
    backbone = network.body.network.backbone.state_dict()
    assert set(state) - set(backbone) == {"fc.weight", "fc.bias"}
    assert all(torch.equal(value, state[key]) for key, value in backbone.items())
    assert not caplog.records


def test_weights_of_colours_do_not_fit_residuals(weights_file):
    with pytest.raises(ValueError, match=r"residual_bank.*Use preprocessing='imagenet'"):
        build_network("fcn_resnet50", weights=weights_file)


def test_weights_that_cannot_be_had_are_named(tmp_path):
    with pytest.raises(WeightsError, match="no such file"):
        build_network("fcn_resnet50", weights=tmp_path / "no.pth", preprocessing="imagenet")


def test_unknown_preprocessing_is_named():
    with pytest.raises(ValueError, match=r"'sepia' is not known.*residual_bank"):
        build_network("fcn_resnet50", preprocessing="sepia")
