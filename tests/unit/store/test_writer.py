"""Blocks that a writer refuses before storing anything."""

from pathlib import Path

import numpy as np
import pytest

from scimill.parallel.world import Stop, World
from scimill.store.blocks import run_blocks
from scimill.store.layout import Field, Layout
from scimill.store.output import Output
from scimill.store.provenance import Provenance
from scimill.store.writer import BlockData, open_writer

FIELDS = (Field("count", "int32", "1", "a whole number"), Field("radius", "float32", "m", "a radius"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"count": np.zeros(4, np.int32)}, "the block has no radius; it has count"),
        ({"count": np.zeros(4), "radius": np.zeros(4)}, "count is stored as int32, which would truncate float64"),
        (
            {"count": np.zeros(4, np.int8), "radius": np.zeros(4), "mass": np.zeros(4)},
            "the block has fields that the layout lacks: mass",
        ),
        ({"count": np.zeros(3, np.int8), "radius": np.zeros(3)}, "3 rows of count for a block of 4"),
    ],
)
def test_a_block_that_does_not_fit_its_layout_is_refused(fields, message, tmp_path: Path):
    alone, layout = World(None), Layout(8, 4, FIELDS)
    stop = Stop(alone)
    writer = open_writer(alone, Output(tmp_path / "a.h5"), layout, Provenance("test", 1, "{}", 1), lambda _: "", stop)
    assert writer is not None
    with pytest.raises(ValueError, match=message):
        run_blocks(alone, writer, lambda _: BlockData(fields), stop, what="make", unit="rows")
    stop.restore()
    assert not (tmp_path / "a.h5").exists()
