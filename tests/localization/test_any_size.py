import numpy as np
import pytest
import torch
from torch import nn

from cnnsvm.localization.architectures.any_size import LEAST, STRIDE, AnySize, mirror_up


class Brightness(nn.Module):
    """Calls bright what is bright, and notes what it was shown."""

    def forward(self, pixels):
        self.seen = pixels
        return pixels[:, :1].double() - 128


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (31, 32), (33, 100), (64, 40)])
def test_mirroring_is_numpys_reflection(size):
    batch = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    extended = mirror_up(batch)
    height, width = extended.shape[2:]
    assert height % STRIDE == width % STRIDE == 0
    assert min(height, width) >= LEAST
    assert height - size[0] < max(STRIDE, LEAST)
    padding = ((0, 0), (0, 0), (0, height - size[0]), (0, width - size[1]))
    np.testing.assert_array_equal(extended, np.pad(batch.numpy(), padding, mode="reflect"))


def test_a_size_that_fits_goes_through_as_it_is():
    batch = torch.randint(0, 256, (1, 3, 32, 48), dtype=torch.uint8)
    body = Brightness()
    AnySize(body)(batch)
    assert body.seen is batch


@pytest.mark.parametrize("size", [(1, 1), (9, 70), (32, 32)])
def test_each_logit_stays_with_its_pixel(size):
    batch = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    found = AnySize(Brightness())(batch)
    assert found.dtype == torch.float32
    assert torch.equal(found, batch[:, :1].float() - 128)
