"""VICReg: variance, invariance, covariance (Bardes, Ponce, LeCun 2022, arXiv:2105.04906), over the batch of all ranks.

For embeddings Z, Z' of n pairs, (n, d), with centred columns:

- invariance, the mean of (z - z')² over the n d values (the paper's formula does not divide by d, its code does);
- variance, v(Z) = mean over the columns of max(0, 1 - sqrt(Var + 1e-4)), with the unbiased variance; the loss has
  v(Z) + v(Z'), or half of it: the published code halves it, the paper's formula does not;
- covariance, c(Z) = Σ of the squared off-diagonal entries of ZᵀZ/(n - 1), divided by d; the loss has c(Z) + c(Z').

Σ over i ≠ j of (ZᵀZ)ᵢⱼ² is ‖ZZᵀ‖² - Σᵢ(Σₖ zₖᵢ²)². If n < d, ZZᵀ is the smaller matrix, and the result is the same.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

EPSILON = 1e-4  # added to the variance under the root, as in the published code
TERMS = ("invariance", "variance", "covariance")

Sum = Callable[[Tensor], Tensor]
"""Differentiable sum over all ranks; its gradient is the sum of the gradients of all ranks."""


class Weights(NamedTuple):
    """Weights of the terms, and the convention for the variance."""

    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0
    variance_half: bool = True
    """whether the variance term is the mean of both branches (published code) instead of their sum (paper)"""


def vicreg(first: Tensor, second: Tensor, weights: Weights, gather: "Gather") -> tuple[Tensor, int]:
    """Compute this rank's share of each weighted term; the sum over the ranks is the term of the batch.

    Parameters
    ----------
    first, second : embeddings of this rank's samples by both branches, (rows, d); it may have none.
    weights : weights of the terms.
    gather : collects the rows of all ranks.

    Returns
    -------
    The terms, (3,), in the order of `TERMS`, in float32 or float64, zero for a batch of fewer than two samples; and the
    number of samples over all ranks.

    """
    first, second = (z if z.dtype == torch.float64 else z.float() for z in (first, second))
    width = first.shape[1]
    with torch.autocast(first.device.type, enabled=False):  # a Gram matrix overflows float16
        invariance = (first - second).square().sum()
        both, own = gather(torch.cat((first, second), dim=1))
        if len(both) < 2:
            return 0 * torch.stack((invariance, first.sum(), second.sum())), len(both)
        branches = [part - part.mean(0) for part in torch.split(both, width, dim=1)]
        # Every rank has all rows and computes the same value, so each counts 1 / size of it.
        variance = torch.stack([hinge(z) for z in branches]).sum() / gather.size
        covariance = torch.stack([off_diagonal(z, own, gather.size) for z in branches]).sum()
        halved = 0.5 if weights.variance_half else 1.0
        terms = (
            weights.invariance * invariance / (len(both) * width),
            weights.variance * halved * variance,
            weights.covariance * covariance,
        )
        return torch.stack(terms), len(both)


def hinge(centred: Tensor) -> Tensor:
    """Average the shortfall of the standard deviation from 1 over the columns; centred: (n, d), n > 1."""
    variance = centred.square().sum(0) / (len(centred) - 1)
    return torch.relu(1 - (variance + EPSILON).sqrt()).mean()


def off_diagonal(centred: Tensor, own: slice, size: int) -> Tensor:
    """Compute a rank's share of the sum of squared off-diagonal covariances, divided by d.

    Parameters
    ----------
    centred : (n, d), n > 1.
    own, size : the rows of this rank, and the number of ranks.

    """
    n, d = centred.shape
    squares = (centred[own] @ centred.T).square().sum() if n < d else (centred.T @ centred).square().sum() / size
    diagonal = centred.square().sum(0).square().sum() / size
    return (squares - diagonal) / ((n - 1) ** 2 * d)


def noise_floor(samples: int, width: int) -> float:
    """Return the covariance term of both branches for independent unit-variance columns: 2 (d - 1)/(n - 1)."""
    return 2 * (width - 1) / (samples - 1)


class Gather:
    """Collects the rows of all ranks, in the order of the ranks; differentiable.

    Each rank puts its rows into a matrix that is zero elsewhere, and these matrices are summed. The gradient of a sum
    is exact; the gradient of Horovod's allgather is not, because it averages.

    Parameters
    ----------
    rank, size : this rank, and the number of ranks.
    sum_ : sum over all ranks.

    """

    def __init__(self, rank: int = 0, size: int = 1, sum_: Sum | None = None) -> None:
        self.rank, self.size, self._sum = rank, size, sum_

    def __call__(self, rows: Tensor) -> tuple[Tensor, slice]:
        """Return the rows of all ranks, (all rows, d), and the slice of this rank's rows."""
        if self._sum is None or self.size == 1:
            return rows, slice(0, len(rows))
        counts = rows.new_zeros(self.size)
        counts[self.rank] = len(rows)
        ends = self._sum(counts).round().long().cumsum(0).tolist()
        own = slice(ends[self.rank] - len(rows), ends[self.rank])
        return self._sum(torch.nn.functional.pad(rows, (0, 0, own.start, ends[-1] - own.stop))), own
