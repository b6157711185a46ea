import numpy as np
import pytest
import torch
from torch import nn

from cnnsvm.features.embeddings import embed_images, pool_crops
from cnnsvm.images import ImageError

CPU = torch.device("cpu")


class MeanColour(nn.Module):
    def forward(self, pixels):
        assert not torch.is_grad_enabled()
        assert not self.training
        return pixels.float().mean(dim=(2, 3))


def embed(images, **options):
    settings = {"crop_size": 16, "n_crops": 4, "batch_size": 8, "device": CPU} | options
    return embed_images(MeanColour(), images, **settings)


def random_images(n):
    rng = np.random.default_rng(0)
    sizes = rng.integers(10, 50, (n, 2))
    return [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in sizes]


def test_rows_follow_the_input():
    images = [np.full((20, 20, 3), value, np.uint8) for value in (9, 200, 31)]
    np.testing.assert_allclose(embed(images), [[9] * 3, [200] * 3, [31] * 3])


def test_order_batches_and_subsets_do_not_matter():
    images = random_images(9)
    whole = embed(images)
    np.testing.assert_allclose(embed(images[::-1])[::-1], whole, rtol=1e-6)
    np.testing.assert_allclose(embed(images, batch_size=3), whole, rtol=1e-6)
    np.testing.assert_allclose(embed(images[4:6]), whole[4:6], rtol=1e-6)


def test_worker_processes_give_the_same():
    images = random_images(5)
    np.testing.assert_array_equal(embed(images, n_jobs=2), embed(images))


def test_pooling_is_what_it_says():
    crops = np.array([[1.0, 4.0], [3.0, 0.0]], np.float32)
    np.testing.assert_allclose(pool_crops(crops, "mean"), [2, 2])
    np.testing.assert_allclose(pool_crops(crops, "mean_max"), [2, 2, 3, 4])
    np.testing.assert_allclose(pool_crops(crops, "mean_std"), [2, 2, 1, 2])
    with pytest.raises(ValueError, match="got 'median'"):
        pool_crops(crops, "median")


def test_an_unreadable_image_is_named():
    with pytest.raises(ImageError, match=r"missing\.png: no such file"):
        embed([np.zeros((20, 20, 3), np.uint8), "missing.png"])


class _OnlySecond(nn.Module):
    def forward(self, pixels):
        values = torch.zeros(len(pixels), 3)
        values[1:] = float("nan")
        return values


def test_a_network_that_overflows_is_an_error():
    images = [np.zeros((20, 20, 3), np.uint8)] * 2
    with pytest.raises(ValueError, match=r"1 embedding\(s\) hold NaN.*of image 1.*(?s:.*)float32"):
        embed_images(_OnlySecond(), images, crop_size=16, n_crops=1, device=CPU)
