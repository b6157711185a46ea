"""Tiny whole runs of the scripts in experiments/, each a second or a few."""

import importlib.util
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dataset_files import pack
from PIL import Image
from safetensors.torch import save_file

from cnnsvm.data.manifest import make_manifest, make_row
from cnnsvm.features.backbones.torchvision_source import PlainCNN
from cnnsvm.generation import build

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SVM = ["--trials", "2", "--inner-folds", "2"]
CROPS = ["--finetune", "none", "--crop-size", "48", "--n-crops", "2"]
ENGINES = ("opencv-telea", "opencv-ns", "opencv-telea:7")
NAIVE = ["--backbone-naive", "squeezenet1_1", "--weights-naive", "none"]
#: CIFAKE: images of each class, and networks of a second.
N_CIFAKE = 48
NETWORKS = {
    "plain_cnn": {"truncate_at": None, "batch_size": 16},
    "plain_cnn_7": {"truncate_at": "stage3", "batch_size": 16},
}
BUNDLE_ENGINES = ("opencv-telea", "self-blend")
N_BUNDLE_SOURCES = 9


@dataclass
class ScriptRun:
    """A script with small constants, and the command line of a run that it has finished."""

    script: Any
    arguments: list[str]
    out: Path

    def again(self, *changes: str) -> int:
        """Call the script again with more arguments, of which the last ones hold."""
        return self.script.main([*self.arguments, *changes])


def load_script(name: str) -> Any:
    """Import a script anew."""
    spec = importlib.util.spec_from_file_location(f"{name}_script", EXPERIMENTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_photos(folder: Path, side: int = 64, sources: Any = range(6)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i in sources:
        pixels = np.random.default_rng(i).integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def load_cv() -> Any:
    return load_script("cv")


def arguments_of_cv(folder: Path) -> list[str]:
    data = ["--data", str(write_photos(folder / "photos")), "--generate", "opencv-telea"]
    return [*data, *CROPS, *SVM, "--folds", "2"]


def load_robustness() -> Any:
    module = load_script("robustness")
    module.N_RESAMPLES = 50
    return module


def arguments_of_robustness(folder: Path) -> list[str]:
    own = ["--backbone", "squeezenet1_1", "--corruptions", "crop", "jpeg-75"]
    return [*arguments_of_cv(folder), *own]


def load_benchmark() -> Any:
    module = load_script("benchmark")
    module.N_RESAMPLES = 50
    module.SEARCH |= {"n_trials": 1, "cv": 2}
    module.CROPS |= {"crop_size": 32, "n_crops": 1}
    module.TUNING |= {"epochs": 1}
    module.N_VIEWS = 1
    made = module.make_embedders

    def smaller(name, args):
        size = {"size": 32, "epochs": 1} if name == "seed" else {"size": 32}
        found = made(name, args)
        return [e.set_params(**size) if "size" in e.get_params() else e for e in found]

    module.make_embedders = smaller
    return module


def arguments_of_benchmark(folder: Path) -> list[str]:
    data = ["--data", str(write_photos(folder / "photos", 48)), "--generate", "opencv-telea"]
    return [*data, "--folds", "2", *NAIVE, "--codec", "png", "jpeg:75"]


def load_leave_one_out() -> Any:
    module = load_script("leave_one_out")
    module.N_RESAMPLES = 20
    return module


def write_records(folder: Path, engine: str, sources: Any) -> str:
    """Write photos and their inpaintings by an engine, whole and spliced."""
    photos = write_photos(folder / "photos", sources=sources)
    rows = [make_row(photos / f"{source}.png", 0, str(source)) for source in sources]
    options = {"engine": engine, "variants": "both", "schemas": ["top"]}
    build(make_manifest(rows), folder / "records", **options)
    return str(folder / "records")


def arguments_of_leave_one_out(folder: Path) -> list[str]:
    """Records of the same sources by three engines, and of others that were never trained on."""
    own = [write_records(folder / str(i), name, range(9)) for i, name in enumerate(ENGINES)]
    far = write_records(folder / "far", "opencv-ns", [3, *range(50, 54)])
    detector = ["--backbone", "statistics", "--pooling", "mean_std", *CROPS]
    svm = ["--trials", "1", "--inner-folds", "2", "--folds", "3"]
    data = ["--data", *own[:2], "--data", own[2], "--external", f"far={far}", "--growth"]
    return [*data, *detector, *svm]


def cifake_jpeg(seed: int, fake: bool) -> bytes:
    """Photographs have grain, fakes have none."""
    rng = np.random.default_rng([seed, fake])
    coarse = rng.integers(40, 216, (4, 4, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((32, 32), Image.Resampling.BICUBIC)
    grain = 0 if fake else rng.normal(0, 20, (32, 32, 3))
    buffer = io.BytesIO()
    pixels = np.clip(np.asarray(smooth) + grain, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def pack_cifake(path: Path, split: str, seeds: Any) -> Path:
    """Write a split of CIFAKE as an archive; every other image is an airplane, else a cat."""
    files = {
        f"{split}/{kind}/{seed:04}{'' if seed % 2 else ' (4)'}.jpg": cifake_jpeg(seed, fake)
        for fake, kind in enumerate(("REAL", "FAKE"))
        for seed in seeds
    }
    return pack(files, path)


def load_cifake() -> Any:
    module = load_script("cifake")
    module.TUNING = module.TUNING | {"validation_fraction": 0.25}  # a quarter of 64 images
    module.NETWORKS, module.N_TRIALS = NETWORKS, 2
    return module


def arguments_of_cifake(folder: Path) -> list[str]:
    train = pack_cifake(folder / "train.tar.xz", "train", range(N_CIFAKE))
    network = ["--backbone", "plain_cnn", "--epochs", "4", "--learning-rate", "1e-2"]
    svm = ["--landmarks", "20", "--exact", "--bundle", str(folder / "out" / "bundle")]
    return ["--train", str(train), "--held-out", "32", "--device", "cpu", *network, *svm]


def load_backbones() -> Any:
    module = load_script("backbones")
    module.TUNING = module.TUNING | {"validation_fraction": 0.25}
    module.EMBEDDER = module.EMBEDDER | {"batch_size": 16}
    module.ABLATED, module.N_TRIALS = "plain_cnn", 2
    return module


def arguments_of_backbones(folder: Path) -> list[str]:
    train = pack_cifake(folder / "train.tar.xz", "train", range(40))
    torch.manual_seed(0)
    save_file(PlainCNN().state_dict(), folder / "plain.safetensors")
    rows = ["--backbones", "plain_cnn", "--objects", "plain_cnn"]
    rows += ["--weights", f"plain_cnn={folder / 'plain.safetensors'}"]
    own = ["--held-out", "20", "--epochs", "2", "--landmarks", "20", "--device", "cpu"]
    return ["--train", str(train), *rows, *own]


def bundle_photo(seed: int, height: int = 144, width: int = 150) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(smooth) + rng.normal(0, 6, (height, width, 3)), 0, 255).astype("u1")


def load_train_bundle() -> Any:
    module = load_script("train_bundle")
    module.TUNING = {"pairs_per_source": 1, "epochs": 2, "patience": 2, "learning_rate": 1e-3}
    module.TUNING |= {"augmentation": "robust"}
    module.EMBEDDER = {"crop_size": 48, "n_crops": 2, "pooling": "mean_std_top", "batch_size": 8}
    module.CLASSIFIER = {"kernel": "linear", "n_trials": 1}
    module.ENGINES, module.N_VIEWS, module.MAX_ERROR = BUNDLE_ENGINES, 2, 0.4
    return module


def arguments_of_train_bundle(folder: Path) -> list[str]:
    (folder / "photos").mkdir()
    for i in range(N_BUNDLE_SOURCES):
        Image.fromarray(bundle_photo(i)).save(folder / "photos" / f"{i}.jpg", quality=80)
    numbers = {"AUC": [0.9, 0.8, 0.95], "accuracy": 0.85}
    tested = [{"data": "other paintings", "numbers": numbers, "n_images": 40, "n_sources": 20}]
    card = {"tested_on": tested, "steps": ["first-step"]}
    (folder / "card.json").write_text(json.dumps(card))
    own = ["--card", str(folder / "card.json"), "--device", "cpu", "--seed", "3"]
    return ["--data", str(folder / "photos"), *own]


#: Script -> (what loads it with small constants, what writes its data and returns its arguments).
RUNS = {
    "cv": (load_cv, arguments_of_cv),
    "benchmark": (load_benchmark, arguments_of_benchmark),
    "robustness": (load_robustness, arguments_of_robustness),
    "leave_one_out": (load_leave_one_out, arguments_of_leave_one_out),
    "cifake": (load_cifake, arguments_of_cifake),
    "backbones": (load_backbones, arguments_of_backbones),
    "train_bundle": (load_train_bundle, arguments_of_train_bundle),
}


def finish_run(name: str, folder: Path) -> ScriptRun:
    """Run a script from its data to its report, in ``folder / "out"``."""
    load, write = RUNS[name]
    script = load()
    arguments = [*write(folder), "--out", str(folder / "out")]
    assert script.main(arguments) == 0
    return ScriptRun(script, arguments, folder / "out")
