"""One field of a block of 2.5 GiB, written by one rank of two; another block, written in parts by both."""

import sys
import time
from pathlib import Path

import numpy as np

from scimill.parallel.world import Stop, launch, world
from scimill.store.layout import Field, Layout
from scimill.store.output import Output
from scimill.store.provenance import Provenance
from scimill.store.writer import BlockData, open_writer

SHAPE = (5, 1 << 29)  # bytes: 2.5 GiB


def main() -> int:
    """Write the store."""
    ranks = world()
    layout = Layout(1, 1, (Field("x", "uint8", "1", "marked at both ends", SHAPE),))
    writer = open_writer(
        ranks, Output(Path(sys.argv[1])), layout, Provenance("test", 1, "", 0), lambda _: "", Stop(ranks)
    )
    assert writer is not None
    if sys.argv[2] == "alone" and ranks.is_root:
        values = np.zeros((1, *SHAPE), dtype=np.uint8)
        values[0, 0, 0], values[0, -1, -1] = 1, 2
        writer.write(0, BlockData({"x": values}), time.monotonic())
    if sys.argv[2] == "together":
        count = 4 if ranks.is_root else 1
        part = np.zeros((1, count, SHAPE[1]), dtype=np.uint8)
        part[0, 0, 0], part[0, -1, -1] = (1, 3) if ranks.is_root else (4, 2)
        data = BlockData({"x": part}, shared=("x",))
        writer.write_shared(0, data, 0 if ranks.is_root else 4, ranks, time.monotonic())
    return 0 if writer.finish() else 1


if __name__ == "__main__":
    launch(main)
