"""The ranks of a training run: a small interface to Horovod, which a single process does not need.

Teams of ranks may train separate networks side by side: a sum is then over a team, one of Horovod's process sets.

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

CYCLE_TIME = "0.1"  # ms between Horovod's cycles; its default of 1 ms is longer than a small network's step


class Ranks:
    """Sums and broadcasts of tensors over the ranks, all collective; a context manager.

    Parameters
    ----------
    world : all ranks.
    team : the ranks that this rank trains with, see `World.teams`; all if not given.

    Attributes
    ----------
    world, rank, size, is_root : the team, and this rank in it.
    local_rank, local_size : rank on this host, and number of ranks on this host.
    reports : whether this rank reports to the user; one rank of all teams does.

    Raises
    ------
    ConfigError : more than one rank without Horovod, or Horovod sees other ranks than MPI.

    """

    def __init__(self, world: World, team: World | None = None) -> None:
        self._all, self.world = world, team or world
        self.rank, self.size, self.is_root = self.world.rank, self.world.size, self.world.is_root
        self.reports = world.is_root
        self.local_rank, self.local_size = 0, 1
        self._horovod: Any = None
        self._process_set: dict[str, Any] = {}
        if world.size > 1:
            mine = tuple(self.world.gather_all(world.rank))
            self._horovod, self._process_set = _start_horovod(world, mine)
            self._root = mine[0]
            self.local_rank, self.local_size = self._horovod.local_rank(), self._horovod.local_size()

    @property
    def supports_gpus(self) -> bool:
        """Whether tensors on GPUs can be summed over the ranks."""
        horovod = self._horovod
        return horovod is None or bool(horovod.cuda_built() or horovod.rocm_built())

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        """Replace a contiguous float32 or float64 tensor by its sum over all ranks, and return it."""
        if self._horovod and self.size > 1:
            self._horovod.allreduce_(tensor, op=self._horovod.Sum, name=_name(tensor), **self._process_set)
        return tensor

    def broadcast_(self, tensor: torch.Tensor) -> torch.Tensor:
        """Replace a tensor by rank 0's, and return it."""
        if self._horovod and self.size > 1:
            self._horovod.broadcast_(tensor, root_rank=self._root, name=_name(tensor), **self._process_set)
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
        # If one rank alone fails, the others do not get here, and the job will be aborted.
        if self._horovod and (error is None or is_collective(error)):
            self._all.barrier()  # another team may still be training, and a shutdown ends everyone's sums
            self._horovod.shutdown()


def _name(tensor: torch.Tensor) -> str:
    """Name a message by type and shape, which Horovod remembers for each name."""
    return f"scimill.{tensor.dtype}.{'x'.join(map(str, tensor.shape))}"


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, sum_: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        ctx.sum_ = sum_
        return sum_(tensor.detach().clone(memory_format=torch.contiguous_format))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _Sum.apply(gradients[0], ctx.sum_), None  # type: ignore[no-untyped-call]


def _start_horovod(world: World, mine: tuple[int, ...]) -> tuple[Any, dict[str, Any]]:
    """Start Horovod; return it, and the argument that restricts sums to the team `mine`."""
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
    teams = sorted({team for team in world.gather_all(mine) if 1 < len(team) < world.size})
    sets = {team: horovod.ProcessSet(list(team)) for team in teams}
    horovod.init(process_sets=list(sets.values()))
    if horovod.size() != world.size:
        world.fail(ConfigError(f"MPI has {world.size} ranks, Horovod {horovod.size()}", remedy="scimill doctor"))
    return horovod, {"process_set": sets[mine]} if mine in sets else {}
