"""What every embedder keeps to, whichever library its backbone comes from."""

import json
import sys

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from tiny_detector import cnn, statistics, tuning
from torch import nn

from cnnsvm import CNNEmbedder, FineTuning
from cnnsvm.features.backbones import SOURCES, WeightsError, build_backbone, source_of
from cnnsvm.features.cache import network_arrays
from cnnsvm.features.crops import POOLINGS
from cnnsvm.features.reading import resize_short_side
from cnnsvm.features.state import from_state, to_state

FROZEN = {"weights": None, "finetune": "none"}


class Small(nn.Module):
    """Somebody's module: (N, 3, H, W) to a map of 5 channels."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)

    def forward(self, values):
        return self.conv(values)


def vit_folder(folder):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=8,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=8,
    )
    torch.manual_seed(0)
    transformers.ViTModel(config).save_pretrained(folder)
    said = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    return folder


def clip_folder(folder):
    transformers = pytest.importorskip("transformers")
    tower = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    tower |= {"intermediate_size": 16}
    config = transformers.CLIPConfig(
        text_config=tower | {"vocab_size": 20},
        vision_config=tower | {"image_size": 32, "patch_size": 8},
        projection_dim=8,
    )
    torch.manual_seed(0)
    transformers.CLIPModel(config).save_pretrained(folder)
    return folder


def onnx_file(file):
    """A network of one convolution, described by hand."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    weight = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    dims = ["n", 3, "h", "w"]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Conv", ["x", "w"], ["y"])],
        "one convolution",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, dims)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 4, None, None])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), file)
    return file


@pytest.fixture(scope="module")
def embedders(tmp_path_factory):
    """Name -> an unfitted embedder, and the length of its embedding of one crop."""
    pytest.importorskip("timm")
    folder = tmp_path_factory.mktemp("backbones")
    vit, clip = f"hf:{vit_folder(folder / 'vit')}", f"hf:{clip_folder(folder / 'clip')}"
    published = {"weights": "imagenet", "preprocessing": "auto"}
    plain = {"preprocessing": "imagenet"}
    return {
        "torchvision": (cnn("squeezenet1_1"), 512),
        "torchvision, cut": (cnn("resnet18", truncate_at="layer1", stem="nopool"), 128),
        "plain": (cnn("plain_cnn"), 256),
        "timm": (cnn("timm:test_resnet.r160_in1k"), 96),
        "timm, level": (cnn("timm:test_resnet.r160_in1k", truncate_at=1), 64),
        "hf": (cnn(vit, **published), 8),
        "hf, layers": (cnn(vit, truncate_at=(1, -1), **published), 16),
        "hf, random": (cnn(vit, **plain), 8),
        "clip": (cnn(clip, **published), 8),
        "onnx": (cnn(f"onnx:{onnx_file(folder / 'net.onnx')}", **plain), 4),
        "module": (cnn(Small(), **plain), 5),
        "statistics": (statistics(), 627),
    }


NAMES = (
    *("torchvision", "torchvision, cut", "plain", "timm", "timm, level", "hf", "hf, layers"),
    *("hf, random", "clip", "onnx", "module", "statistics"),
)
EVERY = pytest.mark.parametrize("name", NAMES)
TRAINABLE = pytest.mark.parametrize("name", [name for name in NAMES if name != "onnx"])


def test_every_source_of_backbones_has_a_case(embedders):
    assert set(NAMES) == set(embedders)
    names = [embedder.get_params().get("backbone") for embedder, _ in embedders.values()]
    assert {source_of(name)[0] for name in names if isinstance(name, str)} == set(SOURCES)


def trained(embedder, **more):
    return clone(embedder).set_params(finetune=tuning(epochs=1, **more), random_state=0)


@pytest.mark.parametrize("layers", [1, (1,), (0, 1)])
def test_layers_above_the_last_one_wanted_are_left_out(embedders, labelled_images, layers):
    images = labelled_images[0][:3]
    embedder = clone(embedders["hf"][0]).set_params(truncate_at=layers, pooling="mean")
    found = embedder.fit(images).transform(images)
    whole = clone(embedder).set_params(truncate_at=(0, 1, 2)).fit(images)
    dim = whole.transform(images).shape[1] // 3
    wanted = np.concatenate([range(dim * k, dim * (k + 1)) for k in np.atleast_1d(layers)])
    np.testing.assert_allclose(found, whole.transform(images)[:, wanted], rtol=1e-5, atol=1e-6)
    sizes = [sum(p.numel() for p in each.network_.parameters()) for each in (embedder, whole)]
    assert sizes[0] < sizes[1]


@EVERY
def test_frozen_it_maps_images_to_rows(embedders, labelled_images, name):
    embedder, dim = embedders[name]
    images = labelled_images[0][:6]
    assert clone(embedder).fit(images) is not None  # no labels are needed
    fitted = clone(embedder).set_params(random_state=3).fit(images)
    rows = fitted.transform(images)
    assert rows.shape == (6, 2 * dim)
    assert rows.dtype == np.float32
    assert fitted.embedding_dim_ == 2 * dim == len(fitted.get_feature_names_out())
    np.testing.assert_allclose(fitted.transform(images[::-1])[::-1], rows, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(fitted.transform(images[2]), rows[2:3], rtol=1e-4, atol=1e-4)
    again = clone(fitted).fit(images)
    np.testing.assert_array_equal(again.transform(images), rows)
    assert not fitted.has_classifier


@TRAINABLE
def test_trained_it_keeps_whole_sources_from_the_network(embedders, labelled_images, name):
    images, y, groups = labelled_images
    fitted = trained(embedders[name][0]).fit(images, y, groups)
    held_out = fitted.validation_rows_
    assert 0 < held_out.sum() < len(images)
    assert set(groups[held_out]).isdisjoint(groups[~held_out])
    np.testing.assert_array_equal(np.flatnonzero(held_out), fitted.held_out(y, groups))
    assert fitted.history_
    assert fitted.has_classifier
    crops = np.stack([image[:32, :32] for image in images[:3]])
    assert fitted.score_crops(crops).shape == (3,)
    again = trained(embedders[name][0]).fit(images, y, groups)
    np.testing.assert_array_equal(again.transform(images[:3]), fitted.transform(images[:3]))


@EVERY
def test_saved_state_comes_back_without_files_or_hub(embedders, labelled_images, name, monkeypatch):
    embedder, images = embedders[name][0], labelled_images[0][:4]
    fitted = clone(embedder).set_params(random_state=3).fit(images)
    if name == "module":  # refused now, not when it is loaded
        with pytest.raises(TypeError, match="backbone=Small"):
            to_state(fitted)
        return
    config, arrays = to_state(fitted)
    config = json.loads(json.dumps(config))
    monkeypatch.chdir("/")
    if fitted.get_params().get("backbone", "").startswith(("hf:", "onnx:")):
        config["params"]["backbone"] = "hf:/gone" if name != "onnx" else "onnx:/gone"
    again = from_state(type(embedder), config, arrays)
    again.set_params(device="cpu")
    if "precision" in again.get_params():
        again.set_params(precision="float32")
    np.testing.assert_allclose(again.transform(images), fitted.transform(images), atol=1e-6)


@pytest.mark.parametrize("name", ["torchvision, cut", "statistics"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_poolings_and_scores(embedders, labelled_images, name, pooling):
    images, y, groups = (part[:12] for part in labelled_images)
    embedder = trained(embedders[name][0]).set_params(pooling=pooling, n_crops=4)
    fitted = embedder.fit(images, y, groups)
    n_parts = len(POOLINGS[pooling])
    assert fitted.transform(images).shape[1] == fitted.embedding_dim_
    scores = clone(embedder).set_params(output="scores").fit(images, y, groups)
    assert scores.transform(images).shape == (12, n_parts)
    three = clone(embedder).set_params(output="scores").fit(images, np.arange(12) % 3)
    assert three.transform(images).shape == (12, 3 * n_parts)


def test_scores_are_what_the_classifier_says_of_the_crops(labelled_images):
    images, y, groups = labelled_images
    both = trained(cnn(pooling="mean", n_crops=1)).fit(images, y, groups)
    scores = trained(cnn(pooling="mean", n_crops=1, output="scores")).fit(images, y, groups)
    with torch.inference_mode():
        rows = torch.from_numpy(both.transform(images))
        expected = both.network_.fake_score(rows).numpy()
    np.testing.assert_allclose(scores.transform(images)[:, 0], expected, atol=1e-5)


def test_the_librarys_own_normalisation_is_used(embedders, labelled_images):
    published = clone(embedders["hf"][0]).fit(labelled_images[0][:1])
    assert published.network_.preprocessing.mean == (0.4, 0.5, 0.6)
    random = cnn().fit(labelled_images[0][:1])
    assert random.network_.preprocessing.residual is not None


def test_the_layers_of_a_tower_are_its_class_tokens(embedders, labelled_images):
    image = labelled_images[0][0][:32, :32]
    fitted = clone(embedders["hf, layers"][0]).set_params(n_crops=1, pooling="mean").fit([image])
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]
    with torch.inference_mode():
        values = fitted.network_.enter(pixels)
        states = fitted.network_.body.model(values, output_hidden_states=True).hidden_states
    expected = torch.cat([states[1][:, 0], states[-1][:, 0]], dim=1).numpy()
    np.testing.assert_allclose(fitted.transform([image]), expected, atol=1e-5)


def test_an_image_is_resized_only_when_that_is_asked_for(labelled_images):
    image = labelled_images[0][0]
    whole = cnn(resize=32, n_crops=1, random_state=0).fit([image])
    native = cnn(n_crops=1, random_state=0).fit([image])
    small = resize_short_side(image, 32)
    assert min(small.shape[:2]) == 32
    np.testing.assert_array_equal(whole.transform([image]), native.transform([small]))
    assert np.abs(whole.transform([image]) - native.transform([image])).max() > 1e-3


def test_a_head_trains_a_projection_on_a_frozen_body(labelled_images):
    images, y, groups = labelled_images
    body = build_backbone("plain_cnn", None, "residual", random_state=0)
    fitted = cnn(finetune=tuning("head"), random_state=0).fit(images, y, groups)
    assert fitted.network_.body[0][0].weight.equal(body.body[0][0].weight)
    assert fitted.transform(images[:2]).shape == (2, 2 * 256)


@pytest.mark.parametrize("mode", ["full", "head"])
def test_an_interrupted_fine_tuning_resumes(labelled_images, tmp_path, monkeypatch, mode):
    from cnnsvm.features.finetuning import FineTuner

    images, y, groups = labelled_images
    embedder = cnn(finetune=tuning(mode, epochs=3), random_state=0)
    expected = clone(embedder).fit(images, y, groups).transform(images)
    validate, calls = FineTuner.validate, []

    def interrupt(self):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return validate(self)

    embedder.set_params(cache_dir=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(FineTuner, "validate", interrupt)
        with pytest.raises(KeyboardInterrupt):
            embedder.fit(images, y, groups)
    with pytest.raises(NotFittedError):
        embedder.transform(images)
    resumed = embedder.fit(images, y, groups)
    assert len(resumed.history_) == 3
    np.testing.assert_array_equal(resumed.transform(images), expected)


@pytest.mark.parametrize(
    ("module", "backbone", "extra"),
    [
        ("timm", "timm:resnet18", "timm"),
        ("onnxruntime", "onnx:FILE", "onnx"),
    ],
)
def test_a_missing_library_names_its_extra(module, backbone, extra, monkeypatch, tmp_path):
    file = tmp_path / "net.onnx"
    if extra == "onnx":
        backbone = f"onnx:{onnx_file(file)}"
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"{module}.*pip install 'cnnsvm\[{extra}\]'"):
        CNNEmbedder(backbone, **FROZEN | {"preprocessing": "imagenet"}).fit(["never opened"])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"backbone": "timm:resnet19x"}, ValueError, "timm has no model 'resnet19x'"),
        ({"backbone": "hf:/no/folder"}, WeightsError, "'hf:/no/folder' cannot be had"),
        ({"backbone": "onnx:/no/file.onnx"}, WeightsError, "no such file"),
        ({"backbone": "timm:test_resnet", "stem": "nopool"}, ValueError, "stem='nopool'"),
        ({"backbone": "timm:test_resnet", "weights": "nowhere.pth"}, WeightsError, "no such file"),
    ],
)
def test_backbones_that_cannot_be_had_say_why(change, error, message, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(error, match=message):
        CNNEmbedder(**FROZEN | {"preprocessing": "imagenet"} | change).fit(["never opened"])


def test_onnx_networks_cannot_be_trained(embedders, labelled_images):
    embedder = trained(embedders["onnx"][0])
    with pytest.raises(ValueError, match="cannot be trained"):
        embedder.fit(*labelled_images)


def test_crops_of_a_size_that_a_tower_does_not_take(embedders, labelled_images):
    embedder = clone(embedders["hf"][0]).set_params(crop_size=64)
    with pytest.raises(ValueError, match="crop_size=64 does not fit"):
        embedder.fit(labelled_images[0])


# the networks of saved detectors


@pytest.fixture(scope="module")
def saved(labelled_images, tmp_path_factory):
    """The folder of a detector with a CNN and statistics, both trained."""
    from tiny_detector import detector

    images, y, groups = labelled_images
    names = np.array(["untouched", "faked"])[y]
    parts = [trained(cnn(pooling="mean_top")), trained(statistics(pooling="mean_top"))]
    folder = tmp_path_factory.mktemp("saved") / "model"
    model = detector(*parts).fit(images, names, groups)
    return model, model.save_pretrained(folder, bits=32)


@pytest.mark.parametrize("number", [0, 1])
def test_a_frozen_saved_network_embeds_as_it_did(saved, labelled_images, number):
    model, folder = saved
    first = model.embedder_[number]
    second = clone(first).set_params(weights=folder, finetune="none").fit(labelled_images[0])
    for name, value in network_arrays(first.network_).items():
        np.testing.assert_array_equal(network_arrays(second.network_)[name], value)
    assert second.network_.real_class == first.network_.real_class == 1
    assert second.has_classifier
    images = labelled_images[0][:4]
    np.testing.assert_array_equal(second.transform(images), first.transform(images))
    np.testing.assert_array_equal(second.trained_on_, model.trained_on_)


@pytest.mark.parametrize("number", [0, 1])
def test_fine_tuning_starts_from_a_saved_network(saved, labelled_images, number):
    model, folder = saved
    images, y, groups = labelled_images
    small = {"weights": folder, "finetune": tuning(epochs=1, learning_rate=1e-6)}
    second = clone(model.embedder_[number]).set_params(**small).fit(images, y, groups)
    before, after = (network_arrays(e.network_) for e in (model.embedder_[number], second))
    learnt = [name for name in before if name.endswith("weight") and "classifier" not in name]
    moved = [np.abs(after[name] - before[name]).max() for name in learnt]
    assert 0 < max(moved) < 0.01
    assert second.network_.real_class == 0  # a new classifier, of the new classes


@pytest.mark.parametrize(
    ("number", "change", "message"),
    [
        (0, {"stem": "nopool"}, "stem='native', not 'nopool'"),
        (0, {"truncate_at": "0"}, "truncate_at=None, not '0'"),
        (0, {"backbone": "plain_cnn_7"}, "backbone='plain_cnn', not 'plain_cnn_7'"),
        (0, {"preprocessing": "imagenet"}, "preprocessing=.*not 'imagenet'"),
        (0, {"finetune": FineTuning("head")}, "have no projection"),
    ],
)
def test_saved_networks_of_another_architecture_are_refused(
    saved, labelled_images, number, change, message
):
    embedder = clone(saved[0].embedder_[number]).set_params(weights=saved[1], **change)
    with pytest.raises(WeightsError, match=message):
        embedder.fit(*labelled_images)


def test_a_changed_byte_is_refused(saved, labelled_images, tmp_path):
    folder = saved[0].save_pretrained(tmp_path / "model")
    file = folder / "embedder_0.safetensors"
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    with pytest.raises(WeightsError, match="cannot be read"):
        cnn(weights=folder).fit(labelled_images[0])


def test_statistics_take_saved_layers_only_from_detectors(labelled_images, tmp_path):
    from tiny_detector import detector

    with pytest.raises(ValueError, match="is no saved detector"):
        statistics(weights=tmp_path / "gone").fit(labelled_images[0])
    raw = detector(statistics()).fit(*labelled_images).save_pretrained(tmp_path / "raw")
    with pytest.raises(WeightsError, match="nothing to train"):
        statistics(weights=raw, finetune=tuning()).fit(*labelled_images)
