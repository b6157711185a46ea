import os

import numpy as np
import pytest
from textures import repaint, texture

os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Small tensors on few cores: more threads only wait for each other."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """What is measured on a machine is kept in its user's cache, which is not that of tests."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def labelled_images():
    """Twelve sources with two fakes each: (images, y, groups)."""
    images, y, groups = [], [], []
    for source in range(12):
        real = texture(source)
        for label, image in ((0, real), (1, repaint(real)), (1, repaint(real)[::-1].copy())):
            images.append(image)
            y.append(label)
            groups.append(f"source {source}")
    return images, np.array(y), np.array(groups)
