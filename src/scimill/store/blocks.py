"""The main loop of all campaigns: make and write this rank's blocks until done or asked to stop."""

import time
from collections.abc import Callable
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from scimill.errors import Stopped
from scimill.parallel.partition import share
from scimill.parallel.report import Progress
from scimill.parallel.world import Stop, World
from scimill.store.output import RESUME

Content = TypeVar("Content", contravariant=True)
Made = TypeVar("Made")


class BlockWriter(Protocol[Content]):
    """Interface for writing blocks: `store.writer.Writer`, or that of another kind of output."""

    pending: NDArray[np.int64]

    @property
    def rows(self) -> int:
        """Total number of rows."""
        ...

    def rows_done(self) -> int:
        """Return the number of rows in done blocks of all ranks."""
        ...

    def write(self, block: int, data: Content, started: float) -> None:
        """Write a block."""
        ...

    def flush(self) -> None:
        """Wait until all blocks that this rank has written are done."""
        ...

    def finish(self) -> bool:
        """Close the output; collective. Return whether all blocks are done."""
        ...


def run_blocks(
    world: World, writer: BlockWriter[Made], make: Callable[[int], Made], stop: Stop, *, what: str, unit: str
) -> None:
    """Make and write all pending blocks; collective only at the end.

    Parameters
    ----------
    world, writer : the ranks and the open store, which is closed and, if complete, renamed.
    make : returns a block's content, which must depend on nothing but the block's number.
    stop : checked between blocks.
    what, unit : names of the work and of its rows in progress reports.

    Raises
    ------
    Stopped : some blocks are left; ``--resume`` continues.

    """
    progress = Progress(writer.rows, initial=writer.rows_done(), unit=unit, what=what, enabled=world.is_root)
    for block in share(writer.pending, world.rank, world.size).tolist():
        if stop.requested():
            break
        started = time.monotonic()
        try:
            writer.write(block, make(block), started)
        except Exception as error:
            error.add_note(f"scimill: on rank {world.rank}, in block {block}")
            raise
        stop.record_block_time(time.monotonic() - started)
        if progress.due():
            progress.update(writer.rows_done())
    writer.flush()
    reason = stop.finish()
    if world.is_root:
        progress.update(writer.rows_done())
    progress.close()
    complete = writer.finish()
    stop.restore()
    if not complete:
        world.fail(Stopped(f"stopped by {reason}; finished blocks are kept", remedy=RESUME))
