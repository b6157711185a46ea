import hashlib
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.error import URLError

import cv2
import numpy as np
import pytest
import torch
from generation_helpers import draw_image
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torchvision import models
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator

from cnnsvm.generation.masks import (
    MaskError,
    Scene,
    SchemaError,
    get_schema,
    objects,
)
from cnnsvm.generation.masks.objects import FoundObject, load_network, pick_object

SMALL_DETECTOR = "ssdlite320_mobilenet_v3_large"
SMALL_SEGMENTER = "lraspp_mobilenet_v3_large"


class Detector(nn.Module):
    """Find what it is told to, in shares of the image, and keep what it was shown."""

    def __init__(self, boxes, scores, masks=None):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.boxes, self.scores, self.masks = torch.tensor(boxes), torch.tensor(scores), masks
        self.shown = []

    def forward(self, images):
        assert not self.training
        assert torch.is_inference_mode_enabled()
        (image,) = images
        self.shown.append(image)
        _, height, width = image.shape
        output = {"boxes": self.boxes * torch.tensor([width, height] * 2), "scores": self.scores}
        if self.masks is not None:
            output["masks"] = torch.stack([mask(height, width) for mask in self.masks])[:, None]
        return [output]


class Segmenter(nn.Module):
    """Give each pixel the class that a small map says, with a probability for all of them."""

    def __init__(self, labels, probability=0.9):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.labels, self.probability, self.shown = torch.tensor(labels), probability, []

    def forward(self, batch):
        self.shown.append(batch)
        one_hot = nn.functional.one_hot(self.labels, 21).permute(2, 0, 1)[None].float()
        one_hot = nn.functional.interpolate(one_hot, batch.shape[2:], mode="nearest")
        shares = torch.where(one_hot > 0, self.probability, (1 - self.probability) / 20)
        return {"out": shares.log()}


@pytest.fixture
def use(monkeypatch):
    """Let a schema have this network in place of torchvision's."""

    def use(network):
        monkeypatch.setattr(objects, "load_network", lambda model, weights: network.eval())
        return network

    return use


def scene(height=60, width=80, path=None):
    return Scene(draw_image(0, height, width), path)


def draw(name, where, seed=0):
    return get_schema(name)(where, np.random.default_rng(seed))


def disc(height, width, x=0.5, y=0.4, radius=0.3):
    """A round mask, sizes in shares of the sides; float as Mask R-CNN's."""
    down = (torch.arange(height) + 0.5)[:, None] / height - y
    right = (torch.arange(width) + 0.5)[None] / width - x
    return 1 / (1 + torch.exp(40 * (torch.sqrt(down**2 + right**2) / radius - 1)))


def true_disc(height, width):
    return (disc(height, width) >= 0.5).numpy()


def overlap(one, other):
    return (one & other).sum() / (one | other).sum()


def random_state(model, seed=0, **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = models.get_model(model, weights=None, weights_backbone=None, **options)
    return network.state_dict()


@pytest.fixture(scope="module")
def detector_file(tmp_path_factory):
    """A real SSD that calls every one of its random boxes class 7."""
    state = random_state(SMALL_DETECTOR)
    for key, value in state.items():
        if "classification_head" in key and key.endswith(".1.bias"):
            value[7::91] += 9
    path = tmp_path_factory.mktemp("weights") / "net.pth"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def segmenter_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "net.pt"
    torch.save({"state_dict": random_state(SMALL_SEGMENTER)}, path)
    return path


def test_box_is_that_of_the_detector_at_the_native_size(use):
    use(Detector([[0.25, 0.1, 0.5, 0.7]], [0.9]))
    for height, width in ((60, 80), (1600, 3200), (20, 8)):
        expected = np.zeros((height, width), dtype=bool)
        expected[round(0.1 * height) : round(0.7 * height), width // 4 : width // 2] = True
        mask = draw("object:fcos_resnet50_fpn", scene(height, width))
        assert mask.dtype == np.bool_
        assert overlap(mask, expected) > (0.995 if height > 100 else 0.999)


@pytest.mark.parametrize("size", [(60, 80), (2400, 1800), (900, 3000)])
def test_instance_is_that_of_the_detector_at_the_native_size(use, size):
    network = use(Detector([[0.2, 0.1, 0.8, 0.7]], [0.9], [disc]))
    mask = draw("object", scene(*size))
    assert mask.shape == size
    assert overlap(mask, true_disc(*size)) > 0.98
    # what is beyond the sides that torchvision's networks work at is not sent through them
    shown = network.shown[0].shape[1:]
    assert shown == size if max(size) < 800 else min(shown) == 800 or max(shown) == 1333
    assert overlap(draw("object:box", scene(*size)), true_disc(*size)) < 0.85


def test_pixels_go_to_the_detector_as_rgb_from_0_to_1(use):
    network = use(Detector([[0.2, 0.1, 0.8, 0.7]], [0.9]))
    where = scene()
    draw("object:box", where)
    expected = where.image.transpose(2, 0, 1).astype(np.float32) / 255
    np.testing.assert_allclose(network.shown[0].numpy(), expected, rtol=1e-6)


def test_pixels_go_to_the_segmentation_network_as_to_torchvisions_own(use):
    labels = np.zeros((10, 10), dtype=int)
    labels[2:6, 3:8] = 4
    network = use(Segmenter(labels))
    official = models.get_model_weights("fcn_resnet50").DEFAULT.transforms()
    for height, width in ((60, 80), (613, 527), (700, 1111)):
        where = scene(height, width)
        draw("object:fcn_resnet50", where)
        expected = official(Image.fromarray(where.image))
        np.testing.assert_allclose(network.shown[-1][0], expected, rtol=1e-5, atol=1e-5)


def test_long_strip_does_not_become_a_giant(use):
    labels = np.zeros((10, 10), dtype=int)
    labels[:, 3:8] = 4
    network = use(Segmenter(labels))
    assert draw("object:fcn_resnet50", scene(2, 900)).any()
    assert max(network.shown[0].shape) == 4 * 520


def test_instance_of_a_segmentation_is_one_piece_of_one_class(use):
    labels = np.zeros((12, 16), dtype=int)
    labels[1:4, 1:5] = 3  # 12 cells
    labels[4:6, 5:7] = 3  # 4 that touch it at a corner: one piece
    labels[4:6, 1:5] = 5  # 8 of another class beside it
    labels[8:11, 1:4] = 3  # 9 apart
    use(Segmenter(labels))
    where = scene(48, 64)
    for name, sizes in (
        ("object:fcn_resnet50", {16, 8, 9}),
        ("object:fcn_resnet50,box", {30, 8, 9}),
    ):
        schema = get_schema(name)
        shares = [schema(where, np.random.default_rng(seed)).mean() for seed in range(30)]
        assert {round(192 * share, 6) for share in shares} == sizes


@pytest.mark.parametrize(("score", "is_found"), [(0.55, True), (0.65, False)])
def test_score_of_a_segmentation_is_the_probability_of_the_pixels(use, score, is_found):
    labels = np.zeros((10, 10), dtype=int)
    labels[2:6, 3:8] = 4
    use(Segmenter(labels, probability=0.6))
    name = f"object:fcn_resnet50,score={score}"
    if is_found:
        assert draw(name, scene()).mean() == pytest.approx(0.2)
    else:
        with pytest.raises(MaskError, match="objects found: 0"):
            draw(name, scene())


def test_only_objects_within_the_limits_are_drawn_and_all_of_them(use):
    boxes = [[0.0, 0.0, 0.2, 0.2], [0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0], [0.0, 0.0, 0.9, 0.9]]
    use(Detector(boxes, [0.9] * 4))
    schema = get_schema("object:box,0.1-0.5")
    where = scene()
    corners = [schema(where, np.random.default_rng(seed))[0, 0] for seed in range(200)]
    assert 70 < sum(corners) < 130  # either quarter as often as the other
    with pytest.raises(
        MaskError, match=r"cat.png: objects found: 4, none of which covers 30.0% to"
    ):
        draw("object:box,0.3-0.5", scene(path="cat.png"))


def test_object_that_fills_the_image_is_left_out(use):
    use(Detector([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.001, 0.001]], [0.9, 0.9]))
    with pytest.raises(MaskError, match="objects found: 2"):
        draw("object:box,0-1", scene())


def test_score_is_the_least_that_counts(use):
    use(Detector([[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]], [0.4, 0.8]))
    assert not any(draw("object:box", scene(), seed)[0, 0] for seed in range(20))
    assert any(draw("object:box,score=0.3", scene(), seed)[0, 0] for seed in range(20))
    with pytest.raises(MaskError, match=r"objects found: 0.*Lower the score"):
        draw("object:box,score=0.9", scene())


def test_generator_alone_decides(use):
    boxes = [[0.1 * i, 0.0, 0.1 * i + 0.2, 0.5] for i in range(8)]
    use(Detector(boxes, [0.9] * 8))
    drawn = [[draw("object:box", scene(), seed).tobytes() for seed in range(20)] for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) > 5


def test_network_looks_once_at_an_image_and_again_at_the_next(use):
    network = use(Detector([[0.0, 0.0, 0.5, 0.5]], [0.9]))
    schema = get_schema("object:box")
    one, other = scene(), scene()
    for where in (one, one, other, other, one):
        schema(where, np.random.default_rng(0))
    assert len(network.shown) == 3
    # equal pixels in an array that has taken the place of one that is gone
    for _ in range(3):
        schema(scene(), np.random.default_rng(0))
    assert len(network.shown) == 6


def test_threads_take_turns_and_each_gets_the_mask_of_its_own_image():
    busy, most, looked = [], [], []
    lock = threading.Lock()

    def find(image):
        with lock:
            busy.append(1)
            most.append(len(busy))
        time.sleep(0.002)
        looked.append(1)
        with lock:
            busy.pop()
        share = int(image[0, 0, 0]) / 100
        return [FoundObject((0, 0, share, 1))]

    draw = pick_object("object", find, "box", (0, 1))

    def work(share):
        where = Scene(np.full((100, 100, 3), share, dtype=np.uint8))
        return [draw(where, np.random.default_rng(0)).mean() * 100 for _ in range(3)]

    shares = list(range(1, 41))
    with ThreadPoolExecutor(8) as pool:
        drawn = list(pool.map(work, shares))
    np.testing.assert_allclose(drawn, np.repeat(shares, 3).reshape(-1, 3))
    assert max(most) == 1
    assert len(looked) == 40


def tiny_mask_rcnn():
    """torchvision's Mask R-CNN on a backbone of one layer; everything it sees is an object."""
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 8, 16, stride=16))
    backbone.out_channels = 8
    anchors = AnchorGenerator(((32, 64),), ((0.5, 1.0, 2.0),))
    network = MaskRCNN(backbone, 2, min_size=64, max_size=640, rpn_anchor_generator=anchors)
    network.roi_heads.box_predictor.cls_score.bias.data += torch.tensor([-5.0, 5.0])
    network.roi_heads.mask_predictor.mask_fcn_logits.bias.data += 9
    return network.eval()


def test_torchvisions_mask_rcnn_gives_instances_inside_its_boxes(use):
    network = use(tiny_mask_rcnn())
    where = scene(90, 120)
    found = network([torch.tensor(where.image).permute(2, 0, 1) / 255])[0]
    boxes = found["boxes"].detach().numpy()
    assert len(boxes) > 3
    for seed in range(5):
        mask = draw("object:0.001-0.999", where, seed)
        left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
        corners = np.array([left, top, left + width, top + height])
        assert np.abs(boxes - corners).max(axis=1).min() <= 2
        assert mask.sum() > 0.9 * width * height  # all inside the box, as its logits say


def test_score_may_be_lower_than_torchvisions_own_limit(use):
    network = use(tiny_mask_rcnn())  # which leaves out scores below 0.05
    network.roi_heads.box_predictor.cls_score.bias.data += torch.tensor([15.0, 0.0])
    with pytest.raises(MaskError, match="objects found: 0"):
        draw("object:0.0001-1,score=0.04", scene())
    assert draw("object:0.0001-1,score=0.0001", scene()).any()


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (3000, 1), (5, 3)])
def test_torchvisions_networks_stand_tiny_images(use, size):
    use(tiny_mask_rcnn())
    try:
        assert draw("object:0-1", scene(*size)).shape == size
    except MaskError as error:
        assert "objects found" in str(error)  # noqa: PT017


def test_detector_from_a_file_finds_its_objects_again_and_again(detector_file):
    name = f"object:{SMALL_DETECTOR},weights={detector_file},0.05-0.5"
    before = torch.get_rng_state()
    masks = [draw(name, scene(), seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(masks[0], masks[1])
    assert 0.05 <= masks[2].mean() <= 0.5


def test_network_is_the_one_in_the_file(detector_file, tmp_path):
    state = torch.load(detector_file, weights_only=True)
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "net.safetensors")
    for file in (detector_file, tmp_path / "net.safetensors"):
        network = load_network(SMALL_DETECTOR, str(file))
        assert not network.training
        loaded = network.state_dict()
        assert loaded.keys() == state.keys()
        assert all(torch.equal(loaded[key].cpu(), state[key]) for key in state)


def test_segmentation_network_from_a_file_sees_something(segmenter_file):
    name = f"object:{SMALL_SEGMENTER},weights={segmenter_file},score=0,0-0.0001"
    with pytest.raises(MaskError, match=r"objects found: [1-9]"):
        draw(name, scene())


def test_name_has_the_options_in_one_order_and_no_path(detector_file):
    digest = hashlib.sha256(detector_file.read_bytes()).hexdigest()[:8]
    schema = get_schema(
        f"object: 0.1-0.9 ,score=0.50,weights={detector_file}, box,{SMALL_DETECTOR}"
    )
    assert schema.name == f"object:{SMALL_DETECTOR},weights=net.pth@{digest},0.1-0.9"


@pytest.mark.parametrize(
    ("argument", "name"),
    [
        ("", "object"),
        ("instance,score=0.5,0.01-0.6,maskrcnn_resnet50_fpn_v2", "object"),
        ("0-1,box,score=.70", "object:box,score=0.7,0-1"),
        ("maskrcnn_resnet50_fpn", "object:maskrcnn_resnet50_fpn"),
        ("box,ssd300_vgg16", "object:ssd300_vgg16"),
        ("box,fcn_resnet50", "object:fcn_resnet50,box"),
    ],
)
def test_equal_schemas_have_equal_names(use, argument, name):
    use(Detector([[0.0, 0.0, 0.5, 0.5]], [0.9]))
    assert get_schema(f"object:{argument}").name == name
    assert get_schema(name).name == name


@pytest.mark.parametrize(
    "model", ["fasterrcnn_resnet50_fpn", "retinanet_resnet50_fpn", SMALL_DETECTOR]
)
def test_detector_without_masks_has_no_instances(model):
    with pytest.raises(SchemaError, match=rf"{model} finds boxes only. Leave out 'instance'"):
        get_schema(f"object:{model},instance")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("resnet50", r"no such network. There is: fasterrcnn_.*lraspp_"),
        ("box,instance", "'instance' is not understood or there twice"),
        ("fcn_resnet50,fcn_resnet101", "'fcn_resnet101' is not understood or there twice"),
        ("class=cat", "'class=cat' is not understood"),
        ("weights=", "'weights=' is not understood"),
        ("score=high", "a number from 0 to 1"),
        ("score=nan", "a number from 0 to 1"),
        ("score=1.5", "a number from 0 to 1"),
        ("0.5-0.2", "0 <= low < high <= 1"),
    ],
)
def test_wrong_argument_is_refused_before_a_network_is_loaded(monkeypatch, argument, message):
    monkeypatch.setattr(objects, "load_network", lambda model, weights: pytest.fail("loaded"))
    with pytest.raises(SchemaError, match=message):
        get_schema(f"object:{argument}")


def test_hub_out_of_reach_is_told_at_once_with_both_remedies(monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(SchemaError, match=r"copy maskrcnn.*\.pth to .* or name a file, as in obj"):
        get_schema("object")


def test_weights_in_the_hubs_folder_need_no_network(monkeypatch, tmp_path, detector_file):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    url = models.get_model_weights(SMALL_DETECTOR).DEFAULT.url
    copy = tmp_path / "hub" / "checkpoints" / url.rsplit("/", 1)[1]
    copy.write_bytes(detector_file.read_bytes())
    schema = get_schema(f"object:{SMALL_DETECTOR}")
    assert schema.name == f"object:{SMALL_DETECTOR}"
    from_file = draw(f"object:{SMALL_DETECTOR},weights={detector_file}", scene())
    np.testing.assert_array_equal(schema(scene(), np.random.default_rng(0)), from_file)


@pytest.mark.parametrize("content", [None, b"", b"not a network", "whole network", "folder"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_file_that_cannot_be_read_is_told(tmp_path, content, suffix):
    path = tmp_path / f"net{suffix}"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "whole network":
        torch.save(nn.Linear(2, 2), path)
    elif content == "folder":
        path.mkdir()
    with pytest.raises(SchemaError, match=r"net\.\w+.* leave weights= out"):
        get_schema(f"object:{SMALL_DETECTOR},weights={path}")


def without_a_key(state):
    return dict(list(state.items())[1:])


def with_another_shape(state):
    return {key: value[:1] if value.ndim == 1 else value for key, value in state.items()}


def with_another_key(state):
    return {**state, "mask_head.weight": torch.zeros(2)}


def with_other_things(state):
    return {"weights": state, "epoch": 3}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_a_key, r"1 parameter\(s\) missing: backbone"),
        (with_another_shape, r"\(size mismatch for "),
        (with_another_key, r"1 parameter\(s\) unknown: mask_head.weight"),
        (with_other_things, r"[1-9]\d* parameter\(s\) missing: backbone"),
    ],
)
def test_file_that_does_not_fit_is_told_with_both_remedies(tmp_path, detector_file, spoil, message):
    torch.save(spoil(torch.load(detector_file, weights_only=True)), tmp_path / "net.pth")
    with pytest.raises(SchemaError, match=message) as caught:
        get_schema(f"object:{SMALL_DETECTOR},weights={tmp_path / 'net.pth'}")
    assert "The file must hold torchvision's ssdlite320" in str(caught.value)
    assert "the hub" in str(caught.value)


def test_auxiliary_classifier_and_counters_of_batches_do_not_matter(segmenter_file, tmp_path):
    state = torch.load(segmenter_file, weights_only=True)["state_dict"]
    state = {key: value for key, value in state.items() if "num_batches" not in key}
    state["aux_classifier.0.weight"] = torch.zeros(3)
    torch.save({"model": state, "epoch": 3}, tmp_path / "net.pth")
    loaded = load_network(SMALL_SEGMENTER, str(tmp_path / "net.pth")).state_dict()
    assert all(torch.equal(loaded[key].cpu(), state[key]) for key in state if "aux" not in key)


def test_names_of_torchvisions_first_files_are_understood(tmp_path):
    model = "fasterrcnn_mobilenet_v3_large_320_fpn"
    state = random_state(model)
    old = re.compile(r"((?:inner|layer)_blocks\.\d|rpn\.head\.conv\.0)\.0\.(?=weight|bias)")
    renamed = {
        old.sub(r"\1.", k).replace("conv.0.w", "conv.w").replace("conv.0.b", "conv.b"): v
        for k, v in state.items()
    }
    torch.save(renamed, tmp_path / "net.pth")
    loaded = objects._from_file(model, str(tmp_path / "net.pth")).state_dict()
    assert len(renamed.keys() - state.keys()) == 10
    assert all(torch.equal(loaded[key], state[key]) for key in state)


@pytest.mark.parametrize(
    ("model", "is_frozen", "eps"),
    [
        ("maskrcnn_resnet50_fpn", True, 0),
        ("maskrcnn_resnet50_fpn", False, 1e-5),
        ("maskrcnn_resnet50_fpn_v2", True, 1e-5),
    ],
)
def test_frozen_batch_norms_get_the_epsilon_that_they_were_trained_with(
    monkeypatch, tmp_path, model, is_frozen, eps
):
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    monkeypatch.setattr(models, "get_model", lambda *args, **kwargs: network)
    state = network.state_dict()
    if is_frozen:
        del state["1.num_batches_tracked"]
    torch.save(state, tmp_path / "net.pth")
    assert objects._from_file(model, str(tmp_path / "net.pth"))[1].eps == eps
