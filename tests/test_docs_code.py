"""The Python of the guides runs, page by page, on small images and models made here.

A block may be preceded by a comment that says why it is not: ``<!-- not executed: REASON -->``.
Names that a reader has, such as ``paths`` and ``source_ids``, are given. Numbers that only cost
time are lowered, and ImageNet's weights are random ones.
"""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torchvision
from PIL import Image
from textures import repaint, texture
from tiny_shipped import make_shipped, use_shipped

from cnnsvm import (
    CNNEmbedder,
    FineTuning,
    InpaintLocalizer,
    LocalizerTraining,
    ResidualStatistics,
    TunedSVC,
)
from cnnsvm.generation import build

ROOT = Path(__file__).parents[1]
#: How many blocks of a page are not executed; the reason is in the page.
NOT_EXECUTED = {
    "docs/guides/export.md": 1,
    "docs/guides/serve.md": 1,
    "docs/guides/train-your-own.md": 1,
    "docs/howto/cifake.md": 1,
    "docs/howto/clip.md": 2,
    "docs/howto/faster.md": 1,
    "docs/howto/own-backbone.md": 1,
}
BLOCK = re.compile(r"(<!-- not executed: [^\n]+ -->\n)?```python\n(.*?)```", re.DOTALL)
CHEAPER = {
    r"\b(epochs|n_trials|n_views)=\d+": r"\1=1",
    r"\b(crop_size)=\d+": r"\1=32",
    r"\brange\(30\)": "range(8)",
}
CHEAPER_DEFAULTS = {
    CNNEmbedder: {"crop_size": 32},
    FineTuning: {"epochs": 1},
    InpaintLocalizer: {"crop_size": 48},
    LocalizerTraining: {"epochs": 1, "n_crops": 1},
    ResidualStatistics: {"crop_size": 32},
    TunedSVC: {"n_trials": 1},
}


def blocks(page):
    """Return (reason why not, code) of each block of a page, or cell of a notebook."""
    text = (ROOT / page).read_text(encoding="utf-8")
    if not page.endswith(".ipynb"):
        return BLOCK.findall(text)
    cells = json.loads(text)["cells"]
    return [("", "".join(cell["source"])) for cell in cells if cell["cell_type"] == "code"]


FILES = [path for kind in ("*.md", "*.ipynb") for path in sorted((ROOT / "docs").rglob(kind))]
PAGES = [p for p in ["README.md", *(str(path.relative_to(ROOT)) for path in FILES)] if blocks(p)]


def texture_file(folder, seed):
    Image.fromarray(texture(seed)).save(folder / f"{seed}.png")
    return folder / f"{seed}.png"


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shipped")
    make_shipped(folder)
    build(
        [texture_file(folder, seed) for seed in range(4)],
        folder / "records",
        schemas=["rectangles"],
    )
    return folder


@pytest.fixture
def stage(shipped, tmp_path, monkeypatch):
    """A folder to work in, and the names that a reader has."""
    use_shipped(monkeypatch, shipped)
    for kind, changes in CHEAPER_DEFAULTS.items():
        for name, value in changes.items():
            monkeypatch.setitem(kind.__init__.__kwdefaults__, name, value)
    monkeypatch.setattr(
        "cnnsvm.features.backbones.weights._imagenet_state",
        lambda name: torchvision.models.get_model(name, weights=None).state_dict(),
    )
    monkeypatch.chdir(tmp_path)
    shutil.copytree(shipped / "records", "records")
    Image.fromarray(texture(52, 32, 32)).save("image.png")
    for name in ("painting.png", "photo.jpg", "suspicious.jpg", "suspicious.png"):
        Image.fromarray(texture(50)).save(name)
    return {"my_photos": [texture(100 + seed, 40, 40) for seed in range(19)]} | _labelled(tmp_path)


def _labelled(folder):
    paths, masks = [], []
    for seed in range(4):
        real, half = texture(seed), np.zeros((72, 80), np.uint8)
        half[:, :40] = 255
        for name, pixels in (("real", real), ("fake", repaint(real)), ("mask", half)):
            Image.fromarray(pixels).save(folder / f"{seed}_{name}.png")
        paths += [str(folder / f"{seed}_{name}.png") for name in ("real", "fake")]
        masks += [None, str(folder / f"{seed}_mask.png")]
    return {
        "paths": paths,
        "mask_paths": masks,
        "y": [0, 1] * 4,
        "variants": ["original", "spliced"] * 4,
        "source_ids": np.repeat(np.arange(4), 2),
    }


@pytest.mark.filterwarnings("ignore:the localiser is of no use")
@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_runs(page, stage):
    for reason, code in blocks(page):
        if reason:
            continue
        for pattern, cheaper in CHEAPER.items():
            code = re.sub(pattern, cheaper, code)
        exec(compile(code, page, "exec"), stage)


def test_what_is_not_executed_is_known():
    found = {page: sum(bool(reason) for reason, _ in blocks(page)) for page in PAGES}
    assert {page: n for page, n in found.items() if n} == NOT_EXECUTED
