"""A small store with all that a store can have: fields, an axis with values, a table, a ledger column of its own."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from scimill.parallel.world import Stop, World
from scimill.store.blocks import run_blocks
from scimill.store.layout import Coordinate, Field, Layout, Table
from scimill.store.output import Output
from scimill.store.provenance import Provenance
from scimill.store.writer import BlockData, open_writer

ALONE = World(None)
LAYOUT = Layout(
    rows=10_000,
    block_rows=4096,  # fields of whole pages but in the last block
    fields=(
        Field("count", "int32", "1", "a whole number", valid=(0, 99), flags=("low", "high")),
        Field("spectrum", "float32", "m", "a spectrum", (4,), valid=(0.0, 1.0), axes=("shell",)),
    ),
    tables=(Table("found", 6, (Field("row", "int32", "1", "a row"),)),),
    ledger=(Field("tries", "uint32", "1", "how often it was tried"),),
    coordinates=(Coordinate("shell", 0.5, 0.25, "1/m", "wavenumber"),),
)
PROVENANCE = Provenance("test", 1, "size: 1", 1)
Make = Callable[[int], BlockData]


def content(block: int) -> BlockData:
    """Make a block; it has as many rows in the table as its number says."""
    dice, rows = np.random.default_rng(block), LAYOUT.rows_in(block)
    fields = {
        "count": dice.integers(0, 100, rows, dtype=np.int32),
        "spectrum": dice.random((rows, 4), dtype=np.float32),
    }
    return BlockData(fields, {"found": {"row": np.arange(1, block + 1)}}, {"tries": block + 1})


def fill(
    output: Output,
    make: Make = content,
    provenance: Provenance = PROVENANCE,
    layout: Layout = LAYOUT,
    difference: str = "",
) -> bool:
    """Make a store, or resume it; return False if it was complete already."""
    stop = Stop(ALONE)
    try:
        writer = open_writer(ALONE, output, layout, provenance, lambda _: difference, stop)
        if writer is not None:
            run_blocks(ALONE, writer, make, stop, what="make", unit="rows")
        return writer is not None
    finally:
        stop.restore()


def part_of(path: Path) -> Path:
    return Output(path).part
