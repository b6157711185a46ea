"""Masks of objects, found by torchvision's detection and segmentation networks.

The network runs once an image; a draw picks one of the objects within the limits of coverage.
"""

import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image

from cnnsvm.generation.masks import (
    Limits,
    MaskError,
    MaskSchema,
    Scene,
    SchemaError,
    is_within,
    schema_name,
    split_argument,
)
from cnnsvm.io.files import file_hash

if TYPE_CHECKING:
    from torch import nn

DEFAULT_MODEL = "maskrcnn_resnet50_fpn_v2"
DEFAULT_SCORE = 0.5
DEFAULT_COVERAGE = (0.01, 0.6)
#: Shortest and longest side that torchvision's detection networks bring an image to.
_DETECTION_SIDES = (800, 1333)
#: torchvision's segmentation networks bring the shorter side to 520; the limit keeps a strip of
#: a few rows from becoming a giant.
_SEGMENTATION_SIDES = (520, 4 * 520)
#: Trained with an epsilon of 0 in their frozen batch norms; torchvision sets it for its own files.
_WITHOUT_EPS = (
    *("fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn"),
    *("keypointrcnn_resnet50_fpn", "retinanet_resnet50_fpn"),
)
_LEAST_SIDE = 4  # pixels; a network that shrinks its input once more must not be left with none
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and standard deviation


@dataclass(frozen=True)
class FoundObject:
    """An object in an image.

    Its ``box`` (left, top, right, bottom) is in shares of width and height. ``region`` is a map of
    the whole image, at the size that the network looked at, in which ``value`` marks the object;
    several objects may share one, and it is None if there are boxes only.
    """

    box: tuple[float, float, float, float]
    region: np.ndarray | None = None
    value: int = 1

    def mask(self, shape: tuple[int, int]) -> np.ndarray:
        """Return the object, or else its box, as bool of a shape (H, W)."""
        if self.region is None:
            height, width = shape
            sides = zip(self.box, (width, height) * 2, strict=True)
            left, top, right, bottom = (round(share * side) for share, side in sides)
            mask = np.zeros(shape, dtype=bool)
            mask[max(top, 0) : bottom, max(left, 0) : right] = True
            return mask
        part = np.where(self.region == self.value, 255, 0).astype(np.uint8)
        shrinks = part.shape[0] > shape[0] or part.shape[1] > shape[1]
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(part, shape[::-1], interpolation=method)) >= 128


Find = Callable[[np.ndarray], list[FoundObject]]


def object_schema(argument: str) -> MaskSchema:
    """Make the schema ``object[:MODEL][,box|instance][,weights=FILE][,score=S][,LOW-HIGH]``.

    Parameters
    ----------
    argument : str
        ``MODEL`` is torchvision's name of a detection network (default
        ``maskrcnn_resnet50_fpn_v2``, He et al. 2017 and Li et al. 2021) or of a segmentation
        network. ``box`` repaints the object's upright box; ``instance``, the default where the
        network has regions, its pixels: a Mask R-CNN's mask, or a connected component of a class.
        ``FILE`` (.safetensors, .pth or .pt) holds the parameters by torchvision's names; without
        it torchvision's own are downloaded. ``S`` is the least score of a detection, or the least
        probability of a pixel's class (default 0.5). The limits are 0.01-0.6 by default.

    The network is loaded on the GPU if there is one; threads take turns at it. A `SchemaError` is
    raised if the argument is wrong, or the weights cannot be loaded.
    """
    own, coverage = split_argument("object", argument, DEFAULT_COVERAGE)
    options = _parse(argument, own)
    model, weights, score = options["model"], options.get("weights"), options["score"]
    is_segmentation = _is_segmentation(model)
    has_regions = is_segmentation or model.startswith("maskrcnn_")
    extent = options.get("extent", "instance" if has_regions else "box")
    if extent == "instance" and not has_regions:
        raise SchemaError(
            f"object:{argument}: {model} finds boxes only. Leave out 'instance', or choose "
            "a maskrcnn, fcn, deeplabv3 or lraspp network."
        )
    network = load_network(model, weights)
    own = [model] * (model != DEFAULT_MODEL)
    own += ["box"] * (has_regions and extent == "box")
    own += [f"weights={Path(weights).name}@{file_hash(weights)[:8]}"] if weights else []
    own += [f"score={score}"] * (score != DEFAULT_SCORE)
    name = schema_name("object", own, coverage, DEFAULT_COVERAGE)
    find = (_segmentation if is_segmentation else _detection)(network, score)
    return MaskSchema(name, pick_object(name, find, extent, coverage), coverage, 1)


def pick_object(
    name: str, find: Find, extent: str, coverage: Limits
) -> Callable[[Scene, np.random.Generator], np.ndarray]:
    """Turn a function that finds objects into one that draws a mask.

    ``find`` is called by one thread at a time, and once for an image that a thread draws from
    repeatedly. Each object within the limits is equally likely; a `MaskError` says that there is
    none. ``extent`` is "box" or "instance", ``name`` is for messages.
    """
    find = _remember_last(find)

    def draw(scene: Scene, rng: np.random.Generator) -> np.ndarray:
        objects = find(scene.image)
        for i in rng.permutation(len(objects)):
            found = objects[i] if extent == "instance" else FoundObject(objects[i].box)
            mask = found.mask(scene.shape)
            if is_within(mask, coverage):
                return mask
        raise MaskError(
            f"{scene}: objects found: {len(objects)}, none of which covers "
            f"{coverage[0]:.1%} to {coverage[1]:.1%} of the image ({name!r}). Lower the score, "
            "widen the limits or leave this image out."
        )

    return draw


def _parse(argument: str, own: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for option in own:
        key, is_pair, value = option.partition("=")
        if not is_pair:
            key, value = "extent" if option in ("box", "instance") else "model", option
        if key in found or key not in ("extent", "model", "weights", "score") or not value:
            raise SchemaError(
                f"object:{argument}: {option!r} is not understood or there twice. An object takes "
                "the name of a network, 'box' or 'instance', weights=FILE (a path without commas), "
                "score=S and limits of coverage, each once. Write for example object:box,score=0.7."
            )
        found[key] = value
    try:
        found["score"] = float(found.get("score", DEFAULT_SCORE))
    except ValueError:
        found["score"] = float("nan")
    if not 0 <= found["score"] <= 1:
        raise SchemaError(
            f"object:{argument}: the least score is a number from 0 to 1. Write for example "
            f"object:score={DEFAULT_SCORE}."
        )
    return {"model": DEFAULT_MODEL} | found


def _is_segmentation(model: str) -> bool:
    from torchvision import models

    detection = models.list_models(module=models.detection)
    segmentation = models.list_models(module=models.segmentation)
    if model not in detection + segmentation:
        raise SchemaError(
            f"object:{model}: no such network. There is: {', '.join(detection + segmentation)}."
        )
    return model in segmentation


def _detection(network: "nn.Module", score: float) -> Find:
    import torch

    # a detection below the score would only cost time and memory: Mask R-CNN paints each one
    getattr(network, "roi_heads", network).score_thresh = score
    device = next(network.parameters()).device

    @torch.inference_mode()
    def find(image: np.ndarray) -> list[FoundObject]:
        looked_at = _resize(image, _DETECTION_SIDES, most=1.0)
        pixels = torch.tensor(looked_at, device=device).permute(2, 0, 1) / 255
        output = network([pixels])[0]
        kept = output["scores"] >= score
        height, width, _ = looked_at.shape
        boxes = output["boxes"][kept].cpu().numpy() / (width, height, width, height)
        regions = [None] * len(boxes)
        if "masks" in output:
            regions = list((output["masks"][kept, 0] >= 0.5).cpu().numpy())
        return [FoundObject(tuple(box), region) for box, region in zip(boxes, regions, strict=True)]

    return find


def _segmentation(network: "nn.Module", score: float) -> Find:
    import torch

    device = next(network.parameters()).device
    mean, std = torch.tensor(_IMAGENET, device=device).view(2, 3, 1, 1)

    @torch.inference_mode()
    def find(image: np.ndarray) -> list[FoundObject]:
        looked_at = _resize(image, _SEGMENTATION_SIDES)
        pixels = torch.tensor(looked_at, device=device).permute(2, 0, 1) / 255
        logits = network(((pixels - mean) / std)[None])["out"][0]
        share, label = logits.softmax(dim=0).max(dim=0)
        label[share < score] = 0  # the background
        return _components(label.cpu().numpy())

    return find


def _components(labels: np.ndarray) -> list[FoundObject]:
    """List the connected components of each label but 0, diagonal neighbours included."""
    height, width = labels.shape
    found = []
    for label in np.unique(labels[labels != 0]):
        n, region, stats, _ = cv2.connectedComponentsWithStats((labels == label).astype(np.uint8))
        for value in range(1, n):
            left, top, w, h = stats[value, :4].tolist()
            box = (left / width, top / height, (left + w) / width, (top + h) / height)
            found.append(FoundObject(box, region, value))
    return found


def _resize(image: np.ndarray, sides: tuple[int, int], most: float = float("inf")) -> np.ndarray:
    """Scale an image until one side is that long: the short one the first, the long the second."""
    height, width, _ = image.shape
    scale = min(sides[0] / min(height, width), sides[1] / max(height, width), most)
    # cut off as torchvision does, but not because 520 came out as 519.9999
    size = [max(int(side * scale + 1e-6), _LEAST_SIDE) for side in (width, height)]
    # Pillow's filter widens when it shrinks, as that which the networks were trained with
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


def _remember_last(find: Find) -> Find:
    """Let one thread at a time look, and keep what each thread saw last."""
    lock = threading.Lock()
    seen = threading.local()

    def remembering(image: np.ndarray) -> list[FoundObject]:
        # a reference that does not keep the image, and that no later image can be mistaken for
        if getattr(seen, "image", lambda: None)() is not image:
            with lock:
                seen.objects = find(image)
            seen.image = weakref.ref(image)
        return seen.objects

    return remembering


def load_network(model: str, weights: str | None) -> "nn.Module":
    """Build a torchvision network with trained weights, for evaluation, on CUDA if there is any.

    ``weights`` is a file; None takes torchvision's own, from its hub or cache. A `SchemaError` says
    that they cannot be had or do not fit.
    """
    import torch

    from cnnsvm.features.devices import choose_device

    with torch.random.fork_rng(devices=[]):  # networks begin with random weights
        network = _from_hub(model) if weights is None else _from_file(model, weights)
    return network.to(choose_device("auto")).eval()


def _from_hub(model: str) -> "nn.Module":
    import torch
    from torchvision import models

    try:
        return models.get_model(model, weights="DEFAULT", progress=False)
    except Exception as error:
        file = Path(models.get_model_weights(model).DEFAULT.url).name
        raise SchemaError(
            f"torchvision's weights for {model} cannot be downloaded ({error}). Either copy {file} "
            f"to {Path(torch.hub.get_dir()) / 'checkpoints'} from a machine that has it, or name a "
            f"file, as in object:{model},weights=/path/to/{file}."
        ) from error


def _from_file(model: str, file: str) -> "nn.Module":
    from torch import nn
    from torchvision import models

    from cnnsvm.features.backbones.weights import WeightsError, read_state

    try:
        found = read_state(file)
    except WeightsError as error:
        raise SchemaError(f"{error} Or leave weights= out for torchvision's own.") from error
    # the auxiliary classifier serves training only
    state = {k: v for k, v in found.items() if not k.startswith("aux_classifier.")}
    network = models.get_model(model, weights=None, weights_backbone=None)
    try:
        keys = network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise _misfit(model, file, str(error).splitlines()[-1].strip()) from error
    # frozen batch norms count no batches
    missing = [key for key in keys.missing_keys if not key.endswith("num_batches_tracked")]
    for what, wrong in (("missing", missing), ("unknown", keys.unexpected_keys)):
        if wrong:
            raise _misfit(model, file, f"{len(wrong)} parameter(s) {what}: {', '.join(wrong[:3])}")
    if model in _WITHOUT_EPS and not any(key.endswith("num_batches_tracked") for key in state):
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 0.0
    return network


def _misfit(model: str, file: str, reason: str) -> SchemaError:
    return SchemaError(
        f"weights={file} do not fit {model} ({reason}). The file must hold torchvision's {model}; "
        "without weights= its own are taken from the hub."
    )
