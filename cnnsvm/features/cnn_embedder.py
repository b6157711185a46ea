"""CNNEmbedder: images as a convolutional or transformer backbone sees their crops."""

import os
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.utils._param_validation import StrOptions

from cnnsvm.features.backbones import Backbone, build_backbone
from cnnsvm.features.backbones.stems import STEMS
from cnnsvm.features.embedder import CropEmbedder
from cnnsvm.features.preprocessing import as_preprocessing
from cnnsvm.features.tuning import FineTuning


class CNNEmbedder(CropEmbedder):
    """Embed images by a convolutional or transformer backbone on native-resolution crops.

    Parameters
    ----------
    backbone : str or nn.Module, default="resnet18"
        A torchvision name, "plain_cnn", "plain_cnn_7", "timm:NAME", "hf:ID-or-folder" (vision
        models of transformers, such as the towers of CLIP and DINO), "onnx:FILE" (frozen), or a
        module that maps float (N, 3, H, W) to (N, d) or (N, d, h, w).
    weights : None, "imagenet", "cnnsvm", "cifake" or path, default="imagenet"
        Initial weights: those that the backbone's library publishes, a .safetensors/.pth file, or
        None for random ones. The folder of a saved detector, or the name of one that ships, gives
        the network of its embedder of the same architecture.
    stem : {"native", "nopool", "nodown", "small"}, default="native"
        How a torchvision network begins: as published, without its first max pool, with its first
        convolution and max pool at stride 1, or with a 3x3 convolution at stride 1 and no pool,
        for images of 32 pixels.
    truncate_at : str, int, tuple of int or None, default=None
        Last stage that is kept, such as "layer2" of a ResNet: low-level traces need no deep ones.
        For timm a feature level, for transformers the layer, or layers, whose class token is used.
    preprocessing : str or dict, default="auto"
        A key of `cnnsvm.features.preprocessing.PREPROCESSING`, or the fields of a
        `Preprocessing`. "auto" is the library's own normalisation; for random weights it is
        "residual", so that the network sees high-pass residuals.
    finetune : {"none", "head", "full"} or FineTuning, default="full"
        What is trained before the network embeds; a `FineTuning` says how.
    crop_size : int, default=128
        Side of a crop in pixels; smaller images are wrapped.
    n_crops : int or None, default=4
        Most crops of an image; None takes as many as show every pixel, side by side.
    mirror : bool, default=False
        Embed the mirror image of each crop too, which takes twice as long.
    pooling : {"mean", "mean_max", "mean_std", "mean_top", "mean_std_top", "mean_std_top_peak"}, \
default="mean_std"
        How the embeddings of an image's crops become one; "top" and "peak" are the mean of the
        quarter and of the sixteenth of the crops that look the most fake, for images that were
        repainted in part.
    output : {"embedding", "scores"}, default="embedding"
        Give embeddings, or the log-odds of the classifier that fine-tuning trained: a few numbers
        an image, where there are not thousands of images for several embeddings.
    resize : int or None, default=None
        Bring the shorter side to so many pixels before crops are cut: for embeddings of what the
        whole image shows (``resize=256, crop_size=224, n_crops=1``). It removes the traces of
        repainting. None resizes nothing.
    batch_size : int, default=16
        Crops a step.
    device, precision : str, default="auto"
        "cpu", "cuda", "cuda:N"; "float32", "bfloat16", "float16". Automatic: CUDA and bfloat16
        where the hardware has them.
    backend : {"torch", "openvino", "auto"}, default="torch"
        What runs the network when it embeds on a processor; "openvino" needs
        ``pip install 'cnnsvm[openvino]'``, "auto" is the faster one, which is timed.
    gpu_memory_fraction : float in (0, 1] or None, default=None
        Largest share of the GPU's memory.
    n_jobs : int or None, default=None
        What decodes images ahead of the network: processes in training, else threads; None
        means 1.
    cache_dir : path or None, default=None
        Folder for checkpoints and the fine-tuned network, so that an interrupted ``fit`` resumes
        and a repeated one is quick. Entries are named by the content that they depend on.
    random_state : int, RandomState instance or None, default=None
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "backbone": [str, torch.nn.Module],
        "stem": [StrOptions(set(STEMS))],
        "truncate_at": [str, Integral, tuple, list, None],
        "preprocessing": [str, dict],
        **CropEmbedder._parameter_constraints,
    }
    architecture = ("backbone", "stem", "truncate_at")

    def __init__(
        self,
        backbone: str | torch.nn.Module = "resnet18",
        *,
        weights: str | os.PathLike[str] | None = "imagenet",
        stem: str = "native",
        truncate_at: str | int | tuple[int, ...] | None = None,
        preprocessing: str | dict[str, Any] = "auto",
        finetune: str | FineTuning = "full",
        crop_size: int = 128,
        n_crops: int | None = 4,
        mirror: bool = False,
        pooling: str = "mean_std",
        output: str = "embedding",
        resize: int | None = None,
        batch_size: int = 16,
        device: str = "auto",
        precision: str = "auto",
        backend: str = "torch",
        gpu_memory_fraction: float | None = None,
        n_jobs: int | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.stem = stem
        self.truncate_at = truncate_at
        self.preprocessing = preprocessing
        self.finetune = finetune
        self.crop_size = crop_size
        self.n_crops = n_crops
        self.mirror = mirror
        self.pooling = pooling
        self.output = output
        self.resize = resize
        self.batch_size = batch_size
        self.device = device
        self.precision = precision
        self.backend = backend
        self.gpu_memory_fraction = gpu_memory_fraction
        self.n_jobs = n_jobs
        self.cache_dir = cache_dir
        self.random_state = random_state

    def fit(
        self, images: Any, y: Any = None, groups: Any = None, auxiliary_labels: Any = None
    ) -> Self:
        """Build the network and fine-tune it.

        Parameters
        ----------
        images, y, groups
            As for `CropEmbedder.fit`.
        auxiliary_labels : array-like of shape (n_images,), optional
            Finer classes that the network is trained on, each within one class of ``y``, such as
            "cat, fake" instead of "fake": what an image shows, beside whether it is real.

        Raises
        ------
        ValueError
            For bad parameters, labels, groups, images (`ImageError`), weights (`WeightsError`) or
            devices (`DeviceError`).
        """
        return self._fit(images, y, groups, auxiliary_labels)

    def check_params(self) -> None:
        """Check the parameters alone and against each other (`ValueError`)."""
        super().check_params()
        if self.preprocessing != "auto":
            as_preprocessing(self.preprocessing)

    def _new_network(self, seed: int, tuning: FineTuning | None) -> Backbone:
        network = build_backbone(
            self.backbone,
            self.weights,
            self.preprocessing,
            random_state=seed,
            projection=tuning is not None and tuning.mode == "head",
            stem=self.stem,
            truncate_at=self.truncate_at,
        )
        if tuning is not None and not any(p.requires_grad for p in network.parameters()):
            raise ValueError(f"backbone {self.backbone!r} cannot be trained. Use finetune='none'.")
        return network

    def empty_network(self, config: dict[str, Any], arrays: dict[str, np.ndarray]) -> Backbone:
        """Build a network of the architecture that `cnnsvm.features.state.to_state` described."""
        return build_backbone(
            config["offline_name"] or self.backbone,
            None,
            config["preprocessing"],
            projection=any(name.startswith("projection.") for name in arrays),
            stem=self.stem,
            truncate_at=self.truncate_at,
        )

    def usual_rate(self, tuning: FineTuning) -> float:
        """Return the learning rate that a training has unless it is given."""
        return 1e-4 if tuning.mode == "full" and self.weights is not None else 1e-3
