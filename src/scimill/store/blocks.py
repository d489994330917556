"""The loop that all campaigns share: make and write the blocks of this rank until done or asked to stop."""

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
    """What blocks are written with: `store.writer.Writer`, or the like for what is no store."""

    pending: NDArray[np.int64]

    @property
    def rows(self) -> int:
        """Rows in all."""
        ...

    def rows_done(self) -> int:
        """Rows of all blocks that are done, of any rank."""
        ...

    def write(self, block: int, data: Content, started: float) -> None:
        """Write a block."""
        ...

    def flush(self) -> None:
        """Wait until all blocks that this rank has written are done."""
        ...

    def finish(self) -> bool:
        """Close; collective. Return whether all blocks are done."""
        ...


def run_blocks(
    world: World, writer: BlockWriter[Made], make: Callable[[int], Made], stop: Stop, *, what: str, unit: str
) -> None:
    """Make and write every pending block; collective at the end only.

    Parameters
    ----------
    world, writer : the ranks and the open store, which is closed and, when complete, renamed.
    make : returns a block's content; it depends on nothing but the block's number.
    stop : asked between blocks.
    what, unit : the work's name and the name of a row, for the progress.

    Raises
    ------
    Stopped : blocks are left, for ``--resume``.

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
        stop.block_took(time.monotonic() - started)
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
        world.fail(Stopped(f"stopped by {reason}; all done blocks are kept", remedy=RESUME))
