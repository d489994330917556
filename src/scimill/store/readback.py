"""Read back what other hosts wrote, before an output gets its name.

A rank that has written a block knows only what it gave to its own host. Hosts with caches of their own may write whole
pages back over each other's rows, or lose them. So two ranks on different hosts read each row of the ledger, and the
data of a sample of blocks are read by a rank that runs on another host than the one that wrote them.
"""

import dataclasses
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from scimill.claim import host_identity
from scimill.errors import StorageError
from scimill.parallel.report import describe_numbers
from scimill.parallel.world import World
from scimill.store.output import RESUME, Output

SHARE_OF_TIME = 0.005
"""Part of the run's time that reading the sample may take; each rank reads at least one block."""


@dataclasses.dataclass(frozen=True)
class Stored:
    """What to read back.

    Parameters
    ----------
    blocks : number of blocks.
    mine : the blocks that this rank wrote alone.
    elapsed : how long the run took, s.
    unfinished : returns which of the blocks from a first to before a last one the ledger does not vouch for.
    is_damaged : reads a block; returns whether it differs from what was written.

    """

    blocks: int
    mine: list[int]
    elapsed: float
    unfinished: Callable[[int, int], list[int]]
    is_damaged: Callable[[int], bool]


def require_stored(world: World, output: Output, stored: Stored) -> None:
    """Refuse an output whose blocks other hosts do not find on the storage as they were written; collective.

    Every rank has synced and closed what it wrote, and dropped it from its host's cache.

    Raises
    ------
    StorageError : blocks are missing or differ.
    """
    hosts: NDArray[np.int64] = np.unique(world.gather_all(host_identity()), return_inverse=True)[1]
    writers = np.full(stored.blocks, -1)
    for rank, written in enumerate(world.gather_all(stored.mine)):
        writers[written] = rank
    deadline = np.inf if output.read_back_all else time.monotonic() + SHARE_OF_TIME * stored.elapsed
    lost: set[int] = set()
    for part, is_first in _parts_to_read(world, hosts):
        blocks = np.array_split(np.arange(stored.blocks), world.size)[part]
        if blocks.size:
            lost.update(stored.unfinished(int(blocks[0]), int(blocks[-1]) + 1))
        mine = _is_foreign(writers[blocks], world.rank, hosts)
        if not is_first:
            mine &= ~_is_foreign(writers[blocks], part, hosts)
        order = np.random.default_rng(world.rank).permutation(blocks[mine])
        lost.update(_find_damaged(order, stored.is_damaged, deadline))
    if found := sorted({block for share in world.gather_all(sorted(lost)) for block in share}):
        what = f"the storage does not hold what was written in {describe_numbers('block', found)}"
        remedy = f"{RESUME}; on one host if this comes again, as hosts here do not see each other's writes"
        world.fail(StorageError(what, where=str(output.part), remedy=remedy))


def _parts_to_read(world: World, hosts: NDArray[np.int64]) -> list[tuple[int, bool]]:
    """Return the parts of the output that this rank reads: its own, and those whose second reader it is.

    The second reader of a part runs on another host, if there is one; it reads the blocks that the first must not.
    """
    parts = [(world.rank, True)]
    for host in range(int(hosts.max()) + 1):
        here, elsewhere = np.flatnonzero(hosts == host), np.flatnonzero(hosts != host)
        if not elsewhere.size:
            elsewhere = np.roll(here, -1)
        second = elsewhere[np.arange(here.size) % elsewhere.size]
        parts += [(int(part), False) for part in here[(second == world.rank) & (second != here)]]
    return parts


def _is_foreign(writers: NDArray[np.int64], rank: int, hosts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which blocks were not written on a rank's host; if there is one host, by the rank; if one rank, all."""
    if hosts.size == 1:
        return np.ones(writers.shape, dtype=np.bool_)
    foreign: NDArray[np.bool_] = writers != rank if hosts.max() == 0 else hosts[writers] != hosts[rank]
    return foreign | (writers < 0)


def _find_damaged(blocks: NDArray[np.int64], is_damaged: Callable[[int], bool], deadline: float) -> list[int]:
    """Read blocks until the deadline, at least one; return those that differ from what was written."""
    damaged = []
    for number, block in enumerate(blocks.tolist()):
        if number and time.monotonic() > deadline:
            break
        if is_damaged(block):
            damaged.append(block)
    return damaged
