"""Networks in int8, several times as fast as in float32 on processors that have VNNI.

An int8 network gives other embeddings, so that a classifier has to be fitted on them. Ranges of
activations are found as in Jacob et al., "Quantization and training of neural networks for
efficient integer-arithmetic-only inference" (CVPR 2018).
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from sklearn.utils.validation import check_is_fitted

from cnnsvm.data.images import check_images
from cnnsvm.features.backbones.weights import require
from cnnsvm.features.backends import NetworkPart
from cnnsvm.features.cnn_embedder import CNNEmbedder
from cnnsvm.features.crops import batches, cut_crops
from cnnsvm.features.reading import Decoded
from cnnsvm.io.files import replacing

#: Crops that ranges are found on, at most.
MOST_CROPS = 256
_OPSET = 20
_AS_BEFORE = ("crop_size", "n_crops", "mirror", "resize", "batch_size", "n_jobs")


def quantize(
    embedder: CNNEmbedder, images: Sequence[Any], path: str | os.PathLike[str]
) -> CNNEmbedder:
    """Write the network of a fitted embedder to an ONNX file in int8.

    Parameters
    ----------
    embedder : CNNEmbedder
        Fitted.
    images : as for `CNNEmbedder.fit`
        Some dozens like those that will be embedded, none of a test set: ranges of activations are
        those of their crops.
    path : path
        The file; one that is there is replaced.

    Returns
    -------
    CNNEmbedder
        Of ``"onnx:path"``, not fitted, that cuts and prepares images as ``embedder`` does and pools
        by "mean_std". What is fitted on it can be saved: the file is part of it.

    Raises
    ------
    ImportError
        If the extra ``onnx`` is not installed.
    """
    check_is_fitted(embedder, "network_")
    quantization = require("onnxruntime.quantization", "onnx")
    prepare = require("onnxruntime.quantization.shape_inference", "onnx").quant_pre_process
    inputs = _inputs(embedder, images)
    first = next(inputs)
    with tempfile.TemporaryDirectory() as folder, replacing(Path(path)) as partial:
        plain, folded = Path(folder, "plain.onnx"), Path(folder, "folded.onnx")
        _export(NetworkPart(embedder.network_).eval(), first, plain)
        prepare(plain, folded, skip_symbolic_shape=True)
        reader: Any = _Reader(chain([first], inputs))
        quantization.quantize_static(folded, partial, reader, per_channel=True)
    how = {name: getattr(embedder, name) for name in _AS_BEFORE}
    seen = asdict(embedder.network_.preprocessing)
    return CNNEmbedder(f"onnx:{os.fspath(path)}", preprocessing=seen, finetune="none", **how)


def _inputs(embedder: CNNEmbedder, images: Sequence[Any]) -> Iterator[torch.Tensor]:
    """Yield what the network sees of the first crops, float (n, C, H, W)."""
    shape = (int(embedder.crop_size), embedder.n_crops, bool(embedder.mirror))
    decoded = Decoded(check_images(images), memory=0, resize=embedder.resize)
    crops = batches((cut_crops(image, *shape) for image in decoded), 8)
    for _, batch in islice(crops, MOST_CROPS // 8):
        yield embedder.network_.enter(batch)


def _export(part: torch.nn.Module, example: torch.Tensor, file: Path) -> None:
    torch.onnx.export(
        part,
        (torch.cat([example, example])[:2],),  # one alone would be taken for a fixed number
        file,
        input_names=[_Reader.name],
        dynamic_shapes=({0: torch.export.Dim("n_crops")},),
        opset_version=_OPSET,
        dynamo=True,
        verbose=False,
        external_data=False,
    )


class _Reader:
    """Batches in the form in which ONNX Runtime asks for them."""

    name = "values"

    def __init__(self, inputs: Iterator[torch.Tensor]) -> None:
        self.inputs = inputs

    def get_next(self) -> dict[str, Any] | None:
        """Return the next batch by name, None behind the last."""
        values = next(self.inputs, None)
        return None if values is None else {self.name: values.numpy()}
