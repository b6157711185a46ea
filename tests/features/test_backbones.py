import re

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from cnnsvm.features.backbones import (
    WeightsError,
    build_backbone,
    build_statistics,
    embedding_dim,
)
from cnnsvm.features.backbones.torchvision_source import BACKBONES, PLAIN_CNN, PLAIN_CNN_7
from cnnsvm.features.preprocessing import FILTERS, PREPROCESSING, as_preprocessing, high_pass
from cnnsvm.features.statistics import residual_statistics

DIMS = {
    **{"vgg11": 512, "vgg13": 512, "vgg16": 512, "vgg19": 512},
    **{"resnet18": 512, "resnet34": 512, "resnet50": 2048, "resnet101": 2048},
    **{"densenet121": 1024, "squeezenet1_0": 512, "mobilenet_v2": 1280},
}
CROPS = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)


@pytest.mark.parametrize("name", [n for n in DIMS if not n.startswith("vgg") or n == "vgg11"])
def test_each_backbone_ends_at_its_pooled_embedding(name):
    network = build_backbone(name).eval()
    with torch.inference_mode():
        assert network(CROPS).shape == (2, DIMS[name])


def test_all_named_backbones_exist_in_torchvision():
    known = {*torchvision.models.list_models(), PLAIN_CNN, PLAIN_CNN_7}
    assert set(DIMS) <= set(BACKBONES) <= known


def test_the_embedding_is_what_torchvisions_classifier_sees():
    network = build_backbone("resnet18", random_state=3).eval()
    torch.manual_seed(3)
    reference = torchvision.models.resnet18(weights=None).eval()
    seen = []
    reference.fc.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    mean, std = (
        torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    with torch.inference_mode():
        reference((CROPS.float() / 255 - mean) / std)
        torch.testing.assert_close(network(CROPS), seen[0], rtol=1e-4, atol=1e-5)


def test_random_weights_follow_the_seed_and_leave_torchs_generator_alone():
    state = torch.get_rng_state()
    first, again, other = (build_backbone("squeezenet1_1", random_state=s) for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    a, b, c = (n.state_dict()["body.0.0.weight"] for n in (first, again, other))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_load_from_a_file(tmp_path, suffix):
    reference = torchvision.models.squeezenet1_1(weights=None)
    file = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(reference.state_dict(), file)
    else:
        save_file(reference.state_dict(), file)
    network = build_backbone("squeezenet1_1", file)
    assert torch.equal(network.body[0][0].weight, reference.features[0].weight)


def test_weights_without_a_classifier_will_do(tmp_path):
    state = torchvision.models.resnet18(weights=None).state_dict()
    headless = {key: value for key, value in state.items() if not key.startswith("fc.")}
    torch.save({"state_dict": headless}, tmp_path / "headless.pth")
    network = build_backbone("resnet18", tmp_path / "headless.pth")
    assert torch.equal(network.body.conv1.weight, state["conv1.weight"])


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"resnet18: \d+ parameter\(s\) missing"):
        build_backbone("resnet18", tmp_path / "w.pth")


class Evil:
    def __reduce__(self):
        return (print, ("ran",))


def test_files_that_are_no_weights_are_named_and_run_nothing(tmp_path, capsys):
    for suffix in (".safetensors", ".pth"):
        (tmp_path / f"broken{suffix}").write_bytes(b"not weights at all" * 10)
    torch.save(Evil(), tmp_path / "evil.pth")
    for name in ("broken.safetensors", "broken.pth", "evil.pth", "nowhere.pth"):
        with pytest.raises(WeightsError, match=name):
            build_backbone("resnet18", tmp_path / name)
    assert capsys.readouterr().out == ""


def test_imagenet_without_a_network_names_both_remedies(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", refuse)
    with pytest.raises(WeightsError, match=r"(?s)resnet18.*checkpoints.*weights='/path/to"):
        build_backbone("resnet18", "imagenet")


def test_an_unknown_backbone_lists_the_known():
    with pytest.raises(ValueError, match=r"'resnet19'.*resnet18"):
        build_backbone("resnet19")


def test_crops_too_small_for_a_backbone_are_an_error():
    with pytest.raises(ValueError, match="crop_size=16"):
        embedding_dim(build_backbone("vgg11"), 16)


def test_caffe_preprocessing_is_bgr_minus_the_mean():
    network = build_backbone("squeezenet1_1", preprocessing="caffe")
    network.body = torch.nn.Identity()
    pixels = CROPS.numpy().astype(float)
    expected = pixels[:, ::-1] - np.array([104, 117, 123]).reshape(1, 3, 1, 1)
    np.testing.assert_allclose(network(CROPS).numpy(), expected, rtol=1e-6)


def test_preprocessing_from_json_fields():
    fields = {"mean": [1, 2, 3], "std": [1, 1, 1], "scale": 1.0, "channels": "bgr"}
    assert as_preprocessing(fields).mean == (1, 2, 3)
    with pytest.raises(ValueError, match="'other'"):
        as_preprocessing("other")


def test_the_residual_is_that_of_the_formula():
    pixels = np.random.default_rng(0).integers(0, 12, (1, 3, 9, 10)).astype(np.float32)
    kernel = np.array([[-1, 2, -1], [2, -4, 2], [-1, 2, -1]]) / 4
    padded = np.pad(pixels, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    expected = np.clip((windows * kernel).sum(axis=(-1, -2)), -8, 8)
    np.testing.assert_allclose(
        high_pass(torch.from_numpy(pixels), 8.0).numpy(), expected, atol=1e-5
    )


def test_the_residual_ignores_what_the_image_shows():
    ramp = torch.arange(64.0).view(1, 1, 1, 64).expand(1, 3, 64, 64) * 3 + 7
    residual = high_pass(ramp, PREPROCESSING["residual"].residual)
    assert residual[..., 1:-1].abs().max() == 0


def test_bfloat16_autocast_leaves_the_residual_exact():
    pixels = torch.randint(0, 256, (1, 3, 32, 32)).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = high_pass(pixels, 8.0)
    torch.testing.assert_close(inside, high_pass(pixels, 8.0), rtol=0, atol=0)


def test_densenet_files_with_their_old_names_load(tmp_path):
    state = torchvision.models.densenet121(weights=None).state_dict()
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12]\.)", r"\1.\2", key): value
        for key, value in state.items()
        if not key.endswith("num_batches_tracked")
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "densenet.pth")
    network = build_backbone("densenet121", tmp_path / "densenet.pth")
    name = "denseblock2.denselayer3.conv2.weight"
    loaded = dict(network.body[0].named_parameters())[name]
    assert torch.equal(loaded, state[f"features.{name}"])


@pytest.mark.parametrize(("stem", "factor"), [("native", 8), ("nopool", 4), ("nodown", 2)])
def test_a_stem_says_how_much_is_lost_before_the_second_stage(stem, factor):
    network = build_backbone("resnet18", stem=stem, truncate_at="layer2").eval()
    stages = network.body[:-1]
    with torch.inference_mode():
        assert stages(torch.zeros(1, 3, 64, 64)).shape == (1, 128, 64 // factor, 64 // factor)


@pytest.mark.parametrize(
    ("name", "stage", "channels"),
    [("resnet18", "layer1", 64), ("vgg11", "5", 128), ("densenet121", "transition1", 128)],
)
def test_a_truncated_network_gives_mean_and_deviation_of_its_last_map(name, stage, channels):
    network = build_backbone(name, truncate_at=stage).eval()
    with torch.inference_mode():
        embedding = network(CROPS)
        last = network.body[:-1](network.enter(CROPS))
    assert embedding.shape == (2, 2 * channels)
    torch.testing.assert_close(embedding[:, :channels], last.mean(dim=(2, 3)))
    deviation = last.flatten(2).std(dim=2, unbiased=False)
    torch.testing.assert_close(embedding[:, channels:], deviation, atol=2e-3, rtol=1e-3)


def test_truncation_keeps_the_weights_of_what_it_keeps(tmp_path):
    state = torchvision.models.resnet18(weights=None).state_dict()
    torch.save(state, tmp_path / "whole.pth")
    network = build_backbone("resnet18", tmp_path / "whole.pth", truncate_at="layer1")
    assert torch.equal(network.body.layer1[0].conv1.weight, state["layer1.0.conv1.weight"])
    assert not hasattr(network.body, "layer2")


def test_an_unknown_stem_or_stage_lists_the_known():
    with pytest.raises(ValueError, match=r"native, nopool, nodown, small.*'flat'"):
        build_backbone("resnet18", stem="flat")
    with pytest.raises(ValueError, match=r"truncate_at.*'layer9'.*layer1, layer2"):
        build_backbone("resnet18", truncate_at="layer9")


def test_a_bank_gives_every_channel_every_filter():
    network = build_backbone("resnet18", preprocessing="residual_bank", truncate_at="layer1").eval()
    assert network.body.conv1.in_channels == 3 * len(FILTERS)
    with torch.inference_mode():
        values = network.enter(CROPS)
        one = high_pass(CROPS[:, 1:2].float(), 8.0, ("down",)) / 4
    torch.testing.assert_close(values[:, len(FILTERS) + list(FILTERS).index("down")], one[:, 0])


def test_filters_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match=r"filters.*across.*'round'"):
        as_preprocessing({"residual": 8.0, "filters": ["round"]})


def test_every_kernel_ignores_a_flat_image():
    assert high_pass(torch.full((1, 3, 8, 8), 77.0), 8.0, tuple(FILTERS)).abs().max() == 0


def test_the_class_of_untouched_images_may_stand_anywhere():
    network = build_backbone("resnet18", truncate_at="layer1").eval()
    network.classifier = torch.nn.Linear(128, 2)
    embeddings = torch.randn(5, 128)
    with torch.inference_mode():
        first = network.fake_score(embeddings)
        network.real_class = 1
        torch.testing.assert_close(network.fake_score(embeddings), -first)


@pytest.mark.parametrize(
    ("name", "dim"),
    [("resnet18", 512), ("densenet121", 1024), ("vgg11_bn", 512), ("mobilenet_v2", 1280)],
)
def test_a_small_stem_keeps_images_of_32_pixels_large(name, dim):
    network = build_backbone(name, stem="small").eval()
    sides = []
    for module in network.body.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda _, __, output: sides.append(output.shape[-1]))
    with torch.inference_mode():
        assert network(CROPS[:, :, :32, :32]).shape == (2, dim)
    assert sides[0] == sides[1 if name != "vgg11_bn" else 0] == 32
    assert sides[-1] >= 2


def test_a_small_stem_keeps_the_middle_of_given_kernels(tmp_path):
    reference = torchvision.models.resnet18(weights=None)
    save_file(reference.state_dict(), tmp_path / "weights.safetensors")
    network = build_backbone("resnet18", tmp_path / "weights.safetensors", stem="small")
    first = next(m for m in network.modules() if isinstance(m, torch.nn.Conv2d))
    torch.testing.assert_close(first.weight, reference.conv1.weight[:, :, 2:5, 2:5])
    assert (first.stride, first.padding) == ((1, 1), (1, 1))


def test_a_small_stem_changes_nothing_that_is_small_already():
    as_published, small = (build_backbone("vgg11", stem=stem) for stem in ("native", "small"))
    with torch.inference_mode():
        torch.testing.assert_close(small.eval()(CROPS), as_published.eval()(CROPS))


def test_the_plain_network_takes_any_size_and_learns_in_every_part():
    network = build_backbone("plain_cnn", random_state=1)
    assert embedding_dim(network, 33) == embedding_dim(network, 16) == 256
    network(CROPS).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    assert sum(p.numel() for p in network.parameters()) < 400_000


def test_the_network_of_seven_convolutions_halves_an_image_three_times():
    network = build_backbone("plain_cnn_7", stem="small", truncate_at="stage3", random_state=1)
    maps = []
    for stage in list(network.body)[:-1]:
        stage.register_forward_hook(lambda _, __, output: maps.append(tuple(output.shape[1:])))
    network(CROPS[:, :, :32, :32]).square().sum().backward()
    assert maps == [(24, 32, 32), (48, 16, 16), (128, 8, 8), (192, 4, 4)]
    assert sum(isinstance(m, torch.nn.Conv2d) for m in network.modules()) == 7
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    assert embedding_dim(network, 33) == 2 * 192  # mean and deviation
    assert sum(p.numel() for p in network.parameters()) < 800_000


def test_a_score_of_auxiliary_labels_is_that_of_their_classes():
    network = build_backbone("plain_cnn").eval()
    network.classifier, network.parents = torch.nn.Linear(256, 4), (0, 1, 0, 1)
    embeddings = torch.randn(5, 256)
    with torch.inference_mode():
        fine = network.classifier(embeddings).softmax(dim=1)
        odds = fine[:, [1, 3]].sum(1) / fine[:, [0, 2]].sum(1)
        torch.testing.assert_close(network.fake_score(embeddings), odds.log())


def test_scores_of_more_than_two_classes_are_log_probabilities():
    network = build_backbone("plain_cnn").eval()
    network.classifier, network.parents = torch.nn.Linear(256, 4), (0, 2, 1, 2)
    embeddings = torch.randn(5, 256)
    with torch.inference_mode():
        fine = network.classifier(embeddings).softmax(dim=1)
        wanted = torch.stack([fine[:, 0], fine[:, 2], fine[:, [1, 3]].sum(1)], dim=1).log()
        torch.testing.assert_close(network.class_scores(embeddings), wanted)


@pytest.mark.parametrize("n_threads", [1, 3])
@torch.inference_mode()
def test_statistics_of_many_crops_do_not_depend_on_threads_and_leave_their_number(n_threads):
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (35, 3, 32, 32), np.uint8))
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        found = build_statistics(learnt=False).eval()(pixels)
        assert torch.get_num_threads() == n_threads
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(found, residual_statistics(pixels), rtol=0, atol=1e-6)
