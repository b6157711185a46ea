import json
import subprocess
import sys

import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel

from cnnsvm.features.backbones.clip_vision import ClipVision, is_clip_vision
from cnnsvm.features.backbones.hf_source import build
from cnnsvm.features.backbones.weights import UndrawnWeights

SIZES = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "image_size": 32}
MORE = {"num_attention_heads": 4, "patch_size": 8}


@pytest.fixture(params=["quick_gelu", "gelu"])
def both(request):
    torch.manual_seed(0)
    theirs = CLIPVisionModel(CLIPVisionConfig(hidden_act=request.param, **SIZES, **MORE)).eval()
    ours = ClipVision(theirs.config.to_dict()).eval()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


@torch.inference_mode()
def test_all_layers_are_those_of_transformers(both):
    ours, theirs = both
    images = torch.randn(2, 3, 32, 32)
    expected = theirs(images, output_hidden_states=True)
    found = ours(images)
    for own, other in zip(found.hidden_states, expected.hidden_states, strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.pooler_output, expected.pooler_output, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_patches_of_a_layer_need_none_behind_it(both):
    ours, theirs = both
    config = ours.config.__dict__
    tower = build(json.dumps(config), None, n_channels=3, stem="native", truncate_at=3).module
    tower.model.load_state_dict(ours.state_dict())
    for value in tower.model.encoder.layers[1].state_dict().values():
        value.fill_(torch.nan)
    images = torch.randn(1, 3, 32, 32)
    expected = theirs(images, output_hidden_states=True).hidden_states[1][:, 1:]
    found = tower.patches(images, 1).flatten(1, 2)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_images_of_another_size_are_refused(both):
    with pytest.raises(ValueError, match=r"32x32 pixels, got 40x48\. Set crop_size=32"):
        both[0](torch.zeros(1, 3, 48, 40))


@pytest.mark.parametrize(
    "other",
    [
        {"model_type": "siglip_vision_model"},
        {"hidden_act": "relu"},
        {"attention_dropout": 0.1},
        {"hidden_size": "24"},
        {"hidden_size": 25},
        {"num_hidden_layers": 0},
        {"layer_norm_eps": None},
    ],
)
def test_only_what_it_builds_is_taken(other):
    config = CLIPVisionConfig(**SIZES, **MORE).to_dict()
    assert is_clip_vision(config)
    assert not is_clip_vision(config | other)


def test_weights_are_not_drawn_but_for_random_ones():
    with UndrawnWeights():
        state = torch.get_rng_state()
        torch.nn.Linear(4, 4)
        torch.nn.Conv2d(2, 2, 3)
        torch.nn.Embedding(3, 3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.nn.Linear(4, 4)
    assert not torch.equal(torch.get_rng_state(), state)


def test_a_shipped_detector_loads_without_the_libraries_that_it_does_not_need():
    code = (
        "import sys; from cnnsvm import InpaintDetector as D; D.from_pretrained('generated')"
        "; print({'transformers', 'torchvision', 'torch._dynamo', 'matplotlib', 'numba',"
        " 'sqlalchemy'}"
        " & sys.modules.keys())"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "set()"
