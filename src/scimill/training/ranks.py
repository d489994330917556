"""The ranks of a training run: Horovod behind one small interface, and nothing where there is one process.

Every sum is explicit, over float32 or float64 in contiguous memory. Horovod's own differentiable collectives are not
used: the gradients of its allgather and broadcast are averaged, that of its reduce-scatter is multiplied by the size.
"""

import importlib.util
import os
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import torch

from scimill.errors import ConfigError
from scimill.parallel.world import World, is_collective

CYCLE_TIME = "0.1"  # ms between Horovod's looks for work; its default of 1 ms is longer than a small network's step


class Ranks:
    """What the ranks do together with tensors; a context manager. Sums and broadcasts are collective.

    Parameters
    ----------
    world : the ranks.

    Raises
    ------
    ConfigError : more than one rank without Horovod, or Horovod sees other ranks than MPI.

    """

    def __init__(self, world: World) -> None:
        self.world, self.rank, self.size, self.is_root = world, world.rank, world.size, world.is_root
        self.local_rank, self.local_size = 0, 1
        self._horovod = _start_horovod(world) if world.size > 1 else None
        if self._horovod:
            self.local_rank, self.local_size = self._horovod.local_rank(), self._horovod.local_size()

    @property
    def knows_gpus(self) -> bool:
        """Whether sums over the ranks may be of tensors on GPUs."""
        horovod = self._horovod
        return horovod is None or bool(horovod.cuda_built() or horovod.rocm_built())

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        """Replace a contiguous float32 or float64 tensor by its sum over all ranks, and return it."""
        if self._horovod:
            self._horovod.allreduce_(tensor, op=self._horovod.Sum, name=_name(tensor))
        return tensor

    def broadcast_(self, tensor: torch.Tensor) -> torch.Tensor:
        """Replace a tensor by rank 0's, and return it."""
        if self._horovod:
            self._horovod.broadcast_(tensor, root_rank=0, name=_name(tensor))
        return tensor

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum over all ranks, differentiable: every rank's gradient is the sum of all ranks' gradients."""
        result: torch.Tensor = _Sum.apply(tensor, self.sum_)  # type: ignore[no-untyped-call]
        return result

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Where one rank alone has failed the others do not come here, and the job is about to be aborted.
        if self._horovod and (error is None or is_collective(error)):
            self._horovod.shutdown()


def _name(tensor: torch.Tensor) -> str:
    """Name a message: Horovod remembers what a name looked like."""
    return f"scimill.{tensor.dtype}.{'x'.join(map(str, tensor.shape))}"


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, sum_: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        ctx.sum_ = sum_
        return sum_(tensor.detach().clone(memory_format=torch.contiguous_format))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _Sum.apply(gradients[0], ctx.sum_), None  # type: ignore[no-untyped-call]


def _start_horovod(world: World) -> Any:
    if importlib.util.find_spec("horovod") is None:
        world.fail(
            ConfigError(
                f"{world.size} ranks were started, but Horovod is not installed",
                allowed="one rank without Horovod",
                remedy="run scripts/setup.sh without --without-horovod",
            )
        )
    os.environ.setdefault("HOROVOD_CYCLE_TIME", CYCLE_TIME)
    try:
        import horovod.torch as horovod
    except ImportError as error:
        remedy = "run scripts/setup.sh, then scimill doctor"
        raise ConfigError(f"Horovod does not start: {error}", remedy=remedy) from None
    horovod.init()
    if horovod.size() != world.size:
        world.fail(ConfigError(f"MPI has {world.size} ranks, Horovod {horovod.size()}", remedy="scimill doctor"))
    return horovod
