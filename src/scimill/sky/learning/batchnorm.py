"""Batch normalisation over the samples of all ranks.

PyTorch's own does not work with Horovod, and Horovod's does not run on CPUs. With the statistics of each rank alone, a
network would depend on the number of ranks.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

MOMENTUM = 0.1  # of the running statistics, as in PyTorch


class BatchNorm(nn.Module):
    """Batch normalisation of the second axis, with scale and shift.

    It normalises over the samples of this process, or of all ranks after `join`.

    Parameters
    ----------
    channels : length of the second axis.
    scale : initial value of all scales.

    """

    running_mean: Tensor
    running_variance: Tensor

    def __init__(self, channels: int, scale: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), scale))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_variance", torch.ones(channels))
        self.epsilon = 1e-5
        self.sum: Callable[[Tensor], Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x, (n, channels, …)."""
        if not self.training:
            return functional.batch_norm(
                x, self.running_mean, self.running_variance, self.weight, self.bias, eps=self.epsilon
            )
        if self.sum is None and x.numel() > x.shape[1]:
            return functional.batch_norm(
                x, self.running_mean, self.running_variance, self.weight, self.bias, True, MOMENTUM, self.epsilon
            )
        return self._over_ranks(x)

    def _over_ranks(self, x: Tensor) -> Tensor:
        wide = x if x.dtype == torch.float64 else x.float()
        axes = [axis for axis in range(x.ndim) if axis != 1]
        shape = [1, -1] + [1] * (x.ndim - 2)
        # With a large mean, a sum of squares loses digits; sums of deviations from the running mean do not.
        start = self.running_mean.reshape(shape).to(wide.dtype)
        deviation = wide - start
        count = wide.new_full((1,), x.numel() // max(1, x.shape[1]))
        sums = torch.cat((deviation.sum(axes), deviation.square().sum(axes), count))
        total = self.sum(sums) if self.sum is not None else sums
        first, second, n = torch.split(total, [x.shape[1], x.shape[1], 1])
        n = n.clamp_min(1)
        mean = first / n
        variance = (second / n - mean.square()).clamp_min(0)
        self._remember(mean.detach(), variance.detach(), n.detach())
        factor = self.weight / (variance + self.epsilon).sqrt()
        normal: Tensor = (deviation - mean.reshape(shape)) * factor.reshape(shape) + self.bias.reshape(shape)
        return normal.to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, n: Tensor) -> None:
        """Update the running statistics; mean: of the deviation from the running mean."""
        self.running_mean += MOMENTUM * mean.to(self.running_mean.dtype)
        unbiased = variance * n / (n - 1).clamp_min(1)
        self.running_variance.lerp_(unbiased.to(self.running_variance.dtype), MOMENTUM)


def join(model: nn.Module, sum_: Callable[[Tensor], Tensor] | None) -> None:
    """Make all layers of a model sum over the ranks."""
    for module in model.modules():
        if isinstance(module, BatchNorm):
            module.sum = sum_
