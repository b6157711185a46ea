"""Batch norm of several processes that each have a part of a batch."""

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.overrides import TorchFunctionMode


class WholeBatch(nn.Module):
    """A network whose batch norms take the statistics of the whole batch while it trains.

    That is the batch norm of one process that has all parts (S. Ioffe and C. Szegedy, "Batch
    normalization", ICML 2015, algorithms 1 and 2), on whatever device. Torch's own
    ``SyncBatchNorm`` takes the place of layers, on GPUs alone, and loses what those of other
    packages do besides, such as an activation.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: torch.Tensor) -> Any:
        """Run the network on this process's part of a batch; all processes do at once."""
        with _WholeBatchNorm():
            return self.network(*inputs)


class _WholeBatchNorm(TorchFunctionMode):
    """Lets batch norms that train see all processes."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is nn.functional.batch_norm and kwargs["training"]:
            return batch_norm(*args, **kwargs)
        return func(*args, **kwargs)


def batch_norm(
    pixels: torch.Tensor,
    running_mean: torch.Tensor | None,
    running_variance: torch.Tensor | None,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> torch.Tensor:
    """Do what ``torch.nn.functional.batch_norm`` does in training, with all processes' statistics.

    ``pixels`` (n, channels, ...) are this process's part. The statistics are of single precision.
    """
    normal, mean, variance = _Normalise.apply(pixels.float(), eps)
    if running_mean is not None and running_variance is not None:
        running_mean.lerp_(mean, momentum)
        running_variance.lerp_(variance, momentum)
    if weight is not None and bias is not None:
        shape = (1, -1, *[1] * (pixels.ndim - 2))
        normal = torch.addcmul(bias.view(shape), normal, weight.view(shape))
    return normal.to(pixels.dtype)


class _Normalise(torch.autograd.Function):
    """Values (n, channels, ...) less the mean of each channel, over its standard deviation.

    Also returns that mean and the unbiased variance.
    """

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, eps: float) -> tuple[torch.Tensor, ...]:
        ctx.axes = [0, *range(2, values.ndim)]
        sums = values.sum(ctx.axes)
        own = nn.functional.pad(sums, (1, 0), value=values.numel() / len(sums))
        total = _total(own)
        ctx.shape = (1, -1, *[1] * (values.ndim - 2))
        count, mean = total[0], total[1:] / total[0]
        normal = values - mean.view(ctx.shape)
        variance = _total(normal.square().sum(ctx.axes)) / count
        scale = (variance + eps).rsqrt()
        normal *= scale.view(ctx.shape)
        ctx.save_for_backward(normal, scale, count)
        unbiased = variance * (count / (count - 1))
        ctx.mark_non_differentiable(mean, unbiased)
        return normal, mean, unbiased

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor, *_: Any) -> tuple[torch.Tensor, None]:
        normal, scale, count = ctx.saved_tensors
        both = [gradient.sum(ctx.axes), (gradient * normal).sum(ctx.axes)]
        shift, slope = (each.view(ctx.shape) for each in _total(torch.stack(both)) / count)
        return (gradient - shift - normal * slope) * scale.view(ctx.shape), None


def _total(values: torch.Tensor) -> torch.Tensor:
    """Sum over the processes, in place."""
    dist.all_reduce(values)
    return values
