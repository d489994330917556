"""VICReg: variance, invariance, covariance (Bardes, Ponce, LeCun 2022, arXiv:2105.04906), over the batch of all ranks.

For embeddings Z, Z' of n pairs, (n, d), with centred columns:

- invariance, the mean of (z - z')² over the n d values (the paper's formula does not divide by d, its code does);
- variance, v(Z) = mean over the columns of max(0, 1 - sqrt(Var + 1e-4)), with the unbiased variance; the loss has
  v(Z) + v(Z'), or half of it: the published code halves it, the paper's formula does not;
- covariance, c(Z) = Σ of the squared off-diagonal entries of ZᵀZ/(n - 1), divided by d; the loss has c(Z) + c(Z').

Σ over i ≠ j of (ZᵀZ)ᵢⱼ² is ‖ZZᵀ‖² - Σᵢ(Σₖ zₖᵢ²)²: where n < d the matrix ZZᵀ is the smaller one, and exactly as good.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

EPSILON = 1e-4  # added to the variance under the root, as in the published code
TERMS = ("invariance", "variance", "covariance")

Sum = Callable[[Tensor], Tensor]
"""Sum over all ranks, differentiable, every rank's gradient being the sum of all ranks' gradients."""


class Weights(NamedTuple):
    """Weights of the terms, and their convention."""

    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0
    variance_half: bool = True
    """whether the variance term is the mean of both branches (published code), not their sum (paper)"""


def vicreg(first: Tensor, second: Tensor, weights: Weights, gather: "Gather") -> tuple[Tensor, int]:
    """Share of each weighted term that is this rank's; the sums over the ranks are the terms of the whole batch.

    Parameters
    ----------
    first, second : embeddings of this rank's samples by both branches, (rows, d); it may have none.
    weights : of the terms.
    gather : collects the rows of all ranks.

    Returns
    -------
    The terms, (3,), in the order of `TERMS`, in float32 or float64, zero for a batch of fewer than two samples; and how
    many samples all ranks have.

    """
    first, second = (z if z.dtype == torch.float64 else z.float() for z in (first, second))
    width = first.shape[1]
    with torch.autocast(first.device.type, enabled=False):  # a Gram matrix overflows float16
        invariance = (first - second).square().sum()
        both, own = gather(torch.cat((first, second), dim=1))
        if len(both) < 2:
            return 0 * torch.stack((invariance, first.sum(), second.sum())), len(both)
        branches = [part - part.mean(0) for part in torch.split(both, width, dim=1)]
        # Every rank has all rows: what all compute alike counts for its share.
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
    """Mean over the columns of what the standard deviation lacks of 1; centred: (n, d), n > 1."""
    variance = centred.square().sum(0) / (len(centred) - 1)
    return torch.relu(1 - (variance + EPSILON).sqrt()).mean()


def off_diagonal(centred: Tensor, own: slice, size: int) -> Tensor:
    """Share of a rank of the squared off-diagonal covariances' sum divided by d.

    Parameters
    ----------
    centred : (n, d), n > 1.
    own, size : the rows that are this rank's, and how many ranks there are.

    """
    n, d = centred.shape
    squares = (centred[own] @ centred.T).square().sum() if n < d else (centred.T @ centred).square().sum() / size
    diagonal = centred.square().sum(0).square().sum() / size
    return (squares - diagonal) / ((n - 1) ** 2 * d)


def noise_floor(samples: int, width: int) -> float:
    """What the covariance term of both branches is for independent columns of unit variance: 2 (d - 1)/(n - 1)."""
    return 2 * (width - 1) / (samples - 1)


class Gather:
    """Collects the rows of all ranks, in the order of the ranks; differentiable.

    Rows are put into a matrix that is zero elsewhere, and these matrices are summed: the gradient of a sum is exact,
    which that of Horovod's allgather is not (it averages).

    Parameters
    ----------
    rank, size : this rank, and how many there are.
    sum_ : sum over all ranks.

    """

    def __init__(self, rank: int = 0, size: int = 1, sum_: Sum | None = None) -> None:
        self.rank, self.size, self._sum = rank, size, sum_

    def __call__(self, rows: Tensor) -> tuple[Tensor, slice]:
        """Rows of all ranks, (all rows, d), and which of them are this rank's."""
        if self._sum is None or self.size == 1:
            return rows, slice(0, len(rows))
        counts = rows.new_zeros(self.size)
        counts[self.rank] = len(rows)
        ends = self._sum(counts).round().long().cumsum(0).tolist()
        own = slice(ends[self.rank] - len(rows), ends[self.rank])
        return self._sum(torch.nn.functional.pad(rows, (0, 0, own.start, ends[-1] - own.stop))), own
