"""Masks of objects, found by torchvision's detection and segmentation networks.

Which objects an image holds does not depend on ``rng``: the network looks once, and a draw picks
one of those whose masks are within the limits of coverage.
"""

import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image

from cnnsvm.generation.masks.object_networks import file_signature, load_network
from cnnsvm.generation.masks.schemas import (
    MaskError,
    MaskSchema,
    Scene,
    SchemaError,
    is_within,
    schema_name,
    split_argument,
)

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
_LEAST_SIDE = 4  # pixels; a network that shrinks its input once more must not be left with none
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class FoundObject:
    """An object in an image.

    Parameters
    ----------
    box : tuple of float (left, top, right, bottom)
        In shares of width and height.
    region : ndarray, shape (h, w), or None
        A map of the whole image at the size that the network looked at; None if there are boxes
        only. Several objects may share one.
    value : int or bool
        What marks the object in ``region``.
    """

    box: tuple[float, float, float, float]
    region: np.ndarray | None = None
    value: int = 1

    def mask(self, shape: tuple[int, int]) -> np.ndarray:
        """Return the object, or else its box, as bool of a shape (H, W)."""
        if self.region is None:
            return _fill_box(self.box, shape)
        part = np.where(self.region == self.value, 255, 0).astype(np.uint8)
        shrinks = part.shape[0] > shape[0] or part.shape[1] > shape[1]
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(part, shape[::-1], interpolation=method)) >= 128


Find = Callable[[np.ndarray], list[FoundObject]]


@dataclass(frozen=True)
class _Options:
    model: str = DEFAULT_MODEL
    extent: str | None = None
    weights: str | None = None
    score: float = DEFAULT_SCORE
    coverage: tuple[float, float] = DEFAULT_COVERAGE


def object_schema(argument: str) -> MaskSchema:
    """Make the schema ``object[:MODEL][,box|instance][,weights=FILE][,score=S][,LOW-HIGH]``.

    Parameters
    ----------
    argument : str
        ``MODEL`` is the torchvision name of a detection network (Mask R-CNN, Faster R-CNN,
        RetinaNet, FCOS, SSD; default ``maskrcnn_resnet50_fpn_v2``, He et al. 2017 and Li et al.
        2021) or of a segmentation network (FCN, DeepLabV3, LR-ASPP). ``box`` repaints the
        object's upright box; ``instance``, the default where the network tells, the object's
        pixels: a Mask R-CNN's mask, or a connected component of a class of a segmentation.
        ``FILE`` (.safetensors, .pth or .pt) holds the network's parameters by torchvision's
        names; without it torchvision's own are taken from its hub. ``S`` is the least score of a
        detection, or the least probability of a pixel's class in a segmentation; default 0.5.
        The limits are 0.01-0.6 by default.

    Returns
    -------
    MaskSchema
        Its network is loaded, on the GPU if there is one. Several threads may draw from it: they
        take turns at the network. The name tells a weights file by its name and digest, not by
        its place.

    Raises
    ------
    SchemaError
        If the argument is wrong, or the weights cannot be had or do not fit.
    """
    options = _parse(argument)
    is_segmentation = _is_segmentation(options.model)
    has_regions = is_segmentation or options.model.startswith("maskrcnn_")
    extent = options.extent or ("instance" if has_regions else "box")
    if extent == "instance" and not has_regions:
        raise SchemaError(
            f"object:{argument}: {options.model} finds boxes only. Leave out 'instance', or choose "
            "a maskrcnn, fcn, deeplabv3 or lraspp network."
        )
    network = load_network(options.model, options.weights)
    own = [options.model] * (options.model != DEFAULT_MODEL)
    own += ["box"] * (has_regions and extent == "box")
    own += [f"weights={file_signature(options.weights)}"] if options.weights else []
    own += [f"score={options.score}"] * (options.score != DEFAULT_SCORE)
    name = schema_name("object", own, options.coverage, DEFAULT_COVERAGE)
    find = (_segmentation if is_segmentation else _detection)(network, options.score)
    return MaskSchema(name, pick_object(name, find, extent, options.coverage), options.coverage, 1)


def pick_object(
    name: str, find: Find, extent: str, coverage: tuple[float, float]
) -> Callable[[Scene, np.random.Generator], np.ndarray]:
    """Turn a function that finds objects into one that draws a mask.

    Parameters
    ----------
    name : str
        For messages.
    find : callable ``image -> list of FoundObject``
        Called by one thread at a time, and once for an image that a thread draws from repeatedly.
    extent : {"box", "instance"}
    coverage : tuple of float (low, high)

    Returns
    -------
    callable ``(scene, rng) -> mask``
        Each object within the limits is as likely as the others. It raises a `MaskError` if there
        is none.
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
            f"{scene.path or 'image'}: objects found: {len(objects)}, none of which covers "
            f"{coverage[0]:.1%} to {coverage[1]:.1%} of the image ({name!r}). Lower the score, "
            "widen the limits or leave this image out."
        )

    return draw


def _parse(argument: str) -> _Options:
    own, coverage = split_argument("object", argument, DEFAULT_COVERAGE)
    found: dict[str, Any] = {"coverage": coverage}
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
    return _Options(**found)


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
    mean, std = torch.tensor([_IMAGENET_MEAN, _IMAGENET_STD], device=device).view(2, 3, 1, 1)

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


def _fill_box(box: tuple[float, float, float, float], shape: tuple[int, int]) -> np.ndarray:
    height, width = shape
    mask = np.zeros(shape, dtype=bool)
    left, top, right, bottom = (
        round(share * side) for share, side in zip(box, (width, height) * 2, strict=True)
    )
    mask[max(top, 0) : bottom, max(left, 0) : right] = True
    return mask


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
