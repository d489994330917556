"""Differentiate sums over the ranks, without other parts of training: a loss of all ranks' mean and variance.

Usage: summing.py OUTPUT; each rank writes OUTPUT-RANK.pt.
"""

import sys
from collections.abc import Callable

import torch

from scimill.parallel.world import launch, world
from scimill.training.ranks import Ranks

ROWS, COLUMNS = 11, 3
CUTS = {1: [0, 11], 2: [0, 4, 11], 3: [0, 4, 4, 11]}
"""Where each rank's rows end, by the number of ranks; the second of three ranks has none."""
Sum = Callable[[torch.Tensor], torch.Tensor]


def data(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Make all rows, and the weights."""
    random = torch.Generator().manual_seed(3)
    rows, weights = (torch.rand(n, COLUMNS, dtype=torch.float64, generator=random) for n in (ROWS, 2))
    return rows.to(dtype), weights.to(dtype)


def loss(rows: torch.Tensor, weights: torch.Tensor, count: int, sum_: Sum) -> torch.Tensor:
    """Sum, over these rows, a loss that uses the mean and variance of all rows; sums transposed, strided tensors."""
    moments = sum_(torch.stack((rows.sum(0), (rows**2).sum(0)), 1).t()).t() / count
    mean, square = moments.unbind(1)
    scaled = (rows - mean) / (square - mean**2).sqrt()
    return ((scaled @ weights.t()).tanh() ** 2).sum()


def results(ranks: Ranks, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Compute the results of this rank."""
    first, last = CUTS[ranks.size][ranks.rank : ranks.rank + 2]
    rows, weights = data(dtype)
    rows = rows[first:last].t().contiguous().t()  # columns first in memory
    for tensor in (rows, weights):
        tensor.requires_grad_()
    value = loss(rows, weights, ROWS, ranks.sum)
    value.backward()
    found = {"rows": rows.grad, "weights": ranks.sum_(weights.grad), "loss": ranks.sum_(value.detach().clone())}
    return found | _directly(ranks, dtype)


def _directly(ranks: Ranks, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Sum a strided tensor; return the sum, its argument afterwards, and two derivatives of the sum's cube."""
    given = (torch.arange(6, dtype=dtype).reshape(2, 3).t() * (ranks.rank + 1)).requires_grad_()
    total = ranks.sum(given)
    (first,) = torch.autograd.grad(total.pow(3).sum(), given, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), given)
    received = torch.full((2, 2), float(ranks.rank + 5), dtype=dtype)
    return {
        "given": given.detach(), "total": total.detach(), "first": first.detach(), "second": second,
        "received": ranks.broadcast_(received),
    }  # fmt: skip


def run() -> int:
    with Ranks(world()) as ranks:
        found = {str(dtype): results(ranks, dtype) for dtype in (torch.float32, torch.float64)}
        torch.save(found, f"{sys.argv[1]}-{ranks.rank}.pt")
    return 0


if __name__ == "__main__":
    launch(run)
