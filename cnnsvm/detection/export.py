"""A fitted detector as one ONNX graph, from crops to probabilities; needs ``cnnsvm[onnx]``.

The graph holds preprocessing, networks, pooling, scaling, support vectors and calibration. Cutting
crops is not in it, as their number depends on the size of an image: its metadata say how they are
cut, and docs/guides/export.md shows it.
"""

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import nn

from cnnsvm.features.backbones import Backbone
from cnnsvm.features.backbones.weights import require
from cnnsvm.features.crops import POOLINGS, TOP_SHARES
from cnnsvm.features.embedder import CropEmbedder
from cnnsvm.features.statistics import residual_statistics
from cnnsvm.io.files import replacing
from cnnsvm.svm import TunedSVC
from cnnsvm.svm.machines import BinaryMachine, KernelModel

if TYPE_CHECKING:
    from cnnsvm import InpaintDetector

METADATA = "cnnsvm"  # key of the model's metadata
OPSET = 20
#: Sizes of the example that is traced: different from each other and from 1, which would be fixed.
_EXAMPLE = (2, 3)


class ExportError(ValueError):
    """A detector with a part that ONNX cannot hold."""


class Geometry(NamedTuple):
    """How an embedder cuts images; those that do alike share an input of the graph."""

    crop_size: int
    n_crops: int | None
    resize: int | None


def to_onnx(detector: "InpaintDetector", path: str | os.PathLike[str]) -> Path:
    """Write the fitted detector as one ONNX graph, from crops to probabilities.

    Parameters
    ----------
    path : path
        The file; one that is there is replaced.

    Returns
    -------
    Path
        The file. An input, uint8 (n_images, n_crops, size, size, 3), holds the RGB crops of
        images with as many crops each; embedders that cut images alike share one. The output
        ``probabilities``, float32 (n_images, n_classes), is that of `predict_proba` in float32,
        but for images that show nothing. The metadata ``cnnsvm`` are JSON: ``classes``,
        ``threshold``, ``rejection_threshold``, ``model_id`` and, of each of ``inputs``,
        ``crop_size``, ``n_crops`` and ``resize``. docs/guides/export.md shows how it is used.

    Raises
    ------
    ExportError
        If an embedder is not of this package or an ONNX file already, or the classifier is not
        a `TunedSVC` that calibrates.
    ImportError
        If the extra ``onnx`` is not installed.
    """
    check_is_fitted(detector, "classifier_")
    require("onnxscript", "onnx")
    onnx = require("onnx", "onnx")
    _check(detector)
    geometries = [Geometry(int(e.crop_size), e.n_crops, e.resize) for e in detector.embedder_]
    inputs = list(dict.fromkeys(geometries))
    graph = _Detector(detector, [inputs.index(geometry) for geometry in geometries]).eval()
    names = ["crops"] if len(inputs) == 1 else [f"crops_{i}" for i in range(len(inputs))]
    model = _trace(graph, names, inputs)
    onnx.helper.set_model_props(model, {METADATA: json.dumps(describe(detector, names, inputs))})
    with replacing(Path(path)) as partial:
        onnx.save_model(model, partial)
    return Path(path)


def _trace(graph: nn.Module, names: Sequence[str], inputs: Sequence[Geometry]) -> Any:
    """Follow an example through the graph; the numbers of images and of crops stay free."""
    sizes = [(*_EXAMPLE, geometry.crop_size, geometry.crop_size, 3) for geometry in inputs]
    images = torch.export.Dim("images")
    shapes = tuple({0: images, 1: torch.export.Dim(f"{name}_of_image")} for name in names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that inputs have as many images each
        program: Any = torch.onnx.export(
            graph,
            tuple(torch.zeros(size, dtype=torch.uint8) for size in sizes),
            input_names=names,
            output_names=["probabilities"],
            dynamic_shapes=(shapes,),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    return program.model_proto


def describe(
    detector: "InpaintDetector", names: Sequence[str], inputs: Sequence[Geometry]
) -> dict[str, Any]:
    """Say what a user of the graph has to know: classes, thresholds, and how to cut each input."""
    return {
        "classes": detector.classes_.tolist(),
        "threshold": float(detector.threshold_),
        "rejection_threshold": float(detector.rejection_threshold_),
        "model_id": detector.model_id_,
        "inputs": {name: geometry._asdict() for name, geometry in zip(names, inputs, strict=True)},
    }


def _check(detector: "InpaintDetector") -> None:
    """Refuse what is not a graph of tensors (`ExportError`)."""
    for embedder in detector.embedder_:
        kind = type(embedder).__name__
        if not isinstance(embedder, CropEmbedder):
            raise ExportError(
                f"{kind} is no embedder of cnnsvm, whose alone are exported. Fit a detector of "
                "CNNEmbedder and ResidualStatistics."
            )
        if (embedder.network_.offline_name or "").startswith("onnx:"):
            raise ExportError(f"the backbone of {kind} is an ONNX file already. Use it directly.")
    classifier = detector.classifier_
    if not isinstance(classifier, TunedSVC) or not classifier.calibrate:
        raise ExportError(
            f"{classifier!r} is not exported, only a TunedSVC that calibrates. Fit with one, or "
            "export the embedders and convert the classifier with skl2onnx."
        )


class _Detector(nn.Module):
    """Crops of images, uint8 (n_images, n_crops, size, size, 3) an input, to probabilities."""

    def __init__(self, detector: "InpaintDetector", places: Sequence[int]) -> None:
        super().__init__()
        self.places = list(places)
        self.embedders = nn.ModuleList(_Embedder(each) for each in detector.embedder_)
        self.classifier = _Classifier(detector.classifier_)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Return float32 (n_images, n_classes)."""
        pairs = zip(self.embedders, self.places, strict=True)
        embeddings = torch.cat([embedder(inputs[place]) for embedder, place in pairs], dim=1)
        return self.classifier(embeddings.double()).float()


class _Embedder(nn.Module):
    """What `cnnsvm.features.crops.embed_crops` does, for images with as many crops each."""

    def __init__(self, embedder: CropEmbedder) -> None:
        super().__init__()
        self.network: Backbone = embedder.network_
        self.mirror, self.pooling = bool(embedder.mirror), POOLINGS[embedder.pooling]
        self.gives_scores = embedder.output == "scores"

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        """Turn uint8 (n_images, n_crops, size, size, 3) into float32 (n_images, d)."""
        if self.mirror:
            crops = torch.cat([crops, crops.flip(3)], dim=1)
        n_images, n_crops = crops.shape[:2]
        found = self._embed(crops.flatten(0, 1).permute(0, 3, 1, 2))
        values = self.network.class_scores(found) if self.gives_scores else found
        values = values.unflatten(0, (n_images, n_crops))
        ranks = None
        if set(self.pooling) & TOP_SHARES.keys():
            ranks = _ranks(self.network.fake_score(found).unflatten(0, (n_images, n_crops)))
        return torch.cat([_pool(values, part, ranks) for part in self.pooling], dim=1)

    def _embed(self, pixels: torch.Tensor) -> torch.Tensor:
        """Do what the network does, without its loop over parts of a batch."""
        if self.network.body is None and self.network.branch is not None:
            return self.network.branch(residual_statistics(pixels))
        return self.network(pixels)


def _ranks(scores: torch.Tensor) -> torch.Tensor:
    """Number each image's crops from the highest score, the first of equal ones first."""
    mine, others = scores[:, :, None], scores[:, None, :]
    place = torch.ones_like(scores).cumsum(dim=1)
    before = place[:, None, :] < place[:, :, None]
    return ((others > mine) | ((others == mine) & before)).sum(dim=2)


def _pool(values: torch.Tensor, part: str, ranks: torch.Tensor | None) -> torch.Tensor:
    """Pool (n_images, n_crops, d) over crops; the top ones by a mask, as their number varies."""
    if part == "max":
        return values.amax(dim=1)
    if part == "std":
        return values.var(dim=1, correction=0).sqrt()
    if ranks is None or part == "mean":
        return values.mean(dim=1)
    n_crops = torch.ones_like(ranks, dtype=torch.float32).sum(dim=1, keepdim=True)
    n_top = (TOP_SHARES[part] * n_crops).round().clamp(min=1)
    chosen = (ranks < n_top).float()
    return (values * chosen[:, :, None]).sum(dim=1) / n_top


class _Classifier(nn.Module):
    """What a `TunedSVC` does with embeddings, in float64 as there."""

    mean: torch.Tensor
    scale: torch.Tensor
    mixing: torch.Tensor

    def __init__(self, classifier: TunedSVC) -> None:
        super().__init__()
        self.models = nn.ModuleList(_KernelModel(model) for model in classifier.models_)
        _hold(self, {"mean": classifier.mean_, "scale": classifier.scale_})
        mixing = classifier.mixing_
        _hold(self, {"mixing": np.empty(0) if mixing is None else mixing})

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Turn float64 (n, d) into the probabilities of the classes."""
        rows = (embeddings - self.mean) / self.scale
        votes = torch.stack([model(rows) for model in self.models])
        log_odds = votes[0]
        if len(self.models) > 1:
            yes, no = (nn.functional.logsigmoid(s * votes).logsumexp(dim=0) for s in (1, -1))
            log_odds = yes - no
        if self.mixing.numel():
            return (log_odds @ self.mixing[:, :-1].T + self.mixing[:, -1]).softmax(dim=1)
        if log_odds.shape[1] == 1:
            return torch.cat([torch.sigmoid(-log_odds), torch.sigmoid(log_odds)], dim=1)
        return nn.functional.logsigmoid(log_odds).softmax(dim=1)


class _KernelModel(nn.Module):
    """A `KernelModel`: margins of its machines, scaled to log-odds."""

    slope: torch.Tensor
    offset: torch.Tensor

    def __init__(self, model: KernelModel) -> None:
        super().__init__()
        self.machines = nn.ModuleList(_Machine(machine) for machine in model.machines)
        _hold(self, {"slope": model.slope, "offset": model.offset})

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return (n, n_machines)."""
        margins = torch.stack([machine(rows) for machine in self.machines], dim=1)
        return self.slope * margins + self.offset


class _Machine(nn.Module):
    """A `BinaryMachine`."""

    vectors: torch.Tensor
    coef: torch.Tensor

    def __init__(self, machine: BinaryMachine) -> None:
        super().__init__()
        self.kernel, self.intercept = machine.kernel, machine.intercept
        _hold(self, {"vectors": machine.vectors, "coef": machine.coef})

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the margins (n,) of scaled rows (n, d)."""
        kernel, products = self.kernel, rows @ self.vectors.T
        if kernel.name == "rbf":
            lengths = rows.square().sum(dim=1, keepdim=True) + self.vectors.square().sum(dim=1)
            gram = (-kernel.gamma * (lengths - 2 * products).clamp(min=0)).exp()
        else:
            gram = kernel.gamma * products
            if kernel.name == "poly":
                gram = (gram + kernel.coef0) ** kernel.degree
        return gram @ self.coef + self.intercept


def _hold(module: nn.Module, arrays: Mapping[str, np.ndarray]) -> None:
    """Register float64 arrays as buffers, which become constants of the graph."""
    for name, array in arrays.items():
        module.register_buffer(name, torch.tensor(array, dtype=torch.float64))
