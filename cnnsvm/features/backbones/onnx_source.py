"""Networks in ONNX files (``"onnx:FILE"``), frozen; needs ``pip install 'cnnsvm[onnx]'``."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from cnnsvm.features.backbones import Body, Pooled
from cnnsvm.features.backbones.stems import check_native
from cnnsvm.features.backbones.weights import WeightsError, require


def build(
    name: str,
    weights: str | os.PathLike[str] | None,
    *,
    n_channels: int,
    stem: str,
    truncate_at: Any,
) -> Body:
    """Read a network that maps float32 (N, C, H, W) to (N, d) or (N, d, h, w).

    The file holds architecture and weights, so ``weights`` is ignored; its normalisation is not
    in the file: say it by ``preprocessing`` (ImageNet's by default).
    """
    check_native(f"onnx:{name}", stem)
    if truncate_at is not None:
        raise ValueError(f"truncate_at={truncate_at!r}: an ONNX file is taken whole. Use None.")
    if name.isdecimal():  # the length of a file whose content a saved detector has
        content = bytes(int(name))
        return Body(nn.Sequential(Session(content), Pooled()), trainable=False)
    file = Path(name)
    if not file.is_file():
        raise WeightsError(f"backbone 'onnx:{name}': no such file. Check the path.")
    content = file.read_bytes()
    module = nn.Sequential(Session(content), Pooled())
    return Body(module, trainable=False, offline_name=f"onnx:{len(content)}")


class Session(nn.Module):
    """An ONNX Runtime session; the file is a buffer, so that it is saved with the weights."""

    content: torch.Tensor

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.register_buffer("content", torch.frombuffer(bytearray(content), dtype=torch.uint8))
        self._session: Any = None

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Run the network on (N, C, H, W)."""
        session = self._open()
        name = session.get_inputs()[0].name
        array = values.detach().float().cpu().contiguous().numpy()
        try:
            found = session.run(None, {name: array})[0]
        except Exception as error:  # onnxruntime has a class for each kind of failure
            raise ValueError(f"the ONNX network refuses {array.shape}: {error}") from error
        return torch.from_numpy(np.asarray(found)).to(values.device)

    def file(self) -> bytes:
        """Return the content of the file."""
        return self.content.cpu().numpy().tobytes()

    def _open(self) -> Any:
        if self._session is None:
            runtime = require("onnxruntime", "onnx")
            try:
                self._session = runtime.InferenceSession(
                    self.file(), providers=["CPUExecutionProvider"]
                )
            except Exception as error:
                raise WeightsError(f"not an ONNX network that can be run: {error}") from error
        return self._session

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_session": None}  # a session cannot be copied or pickled
