"""The formulas of batch norm over several processes, in one; two are in test_together.py."""

import pytest
import torch
from torch import nn

from cnnsvm.features import whole_batch
from cnnsvm.features.whole_batch import WholeBatch


@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 5), (4, 3, 5, 7)])
@pytest.mark.parametrize("affine", [True, False])
def test_one_part_is_normalised_as_torch_does(monkeypatch, shape, affine):
    monkeypatch.setattr(whole_batch.dist, "all_reduce", lambda values: None)
    torch.manual_seed(0)
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[len(shape)]
    values, wanted = torch.randn(shape) * 3 + 100, torch.randn(shape)
    found = []
    for wrap in (WholeBatch, nn.Sequential):
        norm, own = kind(3, affine=affine), values.clone().requires_grad_()
        for value in norm.parameters():
            nn.init.uniform_(value, 0.5, 1.5, generator=torch.Generator().manual_seed(1))
        out = wrap(norm)(own)
        (out * wanted).sum().backward()
        grads = [own.grad, *(value.grad for value in norm.parameters())]
        found.append([out, *grads, *norm.buffers()])
        norm.eval()
        torch.testing.assert_close(wrap(norm)(values), norm(values))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_what_a_subclass_does_besides_is_kept(monkeypatch):
    monkeypatch.setattr(whole_batch.dist, "all_reduce", lambda values: None)

    class Active(nn.BatchNorm2d):
        def forward(self, pixels):
            how = (self.running_mean, self.running_var, self.weight, self.bias, self.training)
            return nn.functional.batch_norm(pixels, *how).relu()

    pixels = torch.randn(4, 3, 5, 5, dtype=torch.bfloat16)
    out = WholeBatch(Active(3))(pixels)
    assert out.dtype == torch.bfloat16
    assert out.min() == 0
    assert out.max() > 1
