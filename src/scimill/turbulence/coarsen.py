"""Coarse states of a fine run: a store of snapshots (which are blocks) from which `simulate` goes on."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from scimill.campaign import describe_plan
from scimill.config import from_stored
from scimill.parallel.world import World
from scimill.store.layout import Layout
from scimill.store.output import Output
from scimill.store.writer import BlockData
from scimill.turbulence import CAMPAIGN, fields
from scimill.turbulence.kernels import coarse
from scimill.turbulence.params import CoarsenConfig, CoarsenRecord
from scimill.turbulence.sources import FineRun, build_record, open_fine

KEPT = (*fields.STATE, "time", "member")


def coarsen(config: CoarsenConfig, output: Output, world: World) -> bool:
    """Make a store of coarse states; collective. Return False where it was complete already.

    Raises
    ------
    InputError : the fine store is none, unfinished, or has no snapshot from the start time on.
    StorageError : the fine store is damaged.
    ConfigError : the factor does not divide the grid.
    Stopped : before the walltime or on a signal; run again with ``resume``.
    ScimillError : see `store.writer.open_writer`.
    """
    record = world.on_root(make_record, config)
    with open_fine(config, check=False) as fine:
        layout, make_block = layout_of(record, fine), block_maker(record, fine)
        return CAMPAIGN.fill(record, layout, make_block, output, world, maker="coarsen", unit="snapshots")


def remake(config: str, output: Output, world: World) -> bool:
    """Coarsen by a stored configuration; see `coarsen`."""
    return coarsen(from_stored(CoarsenConfig, config), output, world)


def make_record(config: CoarsenConfig) -> CoarsenRecord:
    """Complete a configuration by what follows from the fine run; raises as `coarsen`. On rank 0."""
    with open_fine(config, check=True) as fine:
        return build_record(CoarsenRecord, config, fine.origin(config))


def layout_of(record: CoarsenRecord, fine: FineRun) -> Layout:
    """Structure of the store: that of a run, without diagnostics."""
    stored = next(field.dtype for field in fine.snapshots.reader.layout.fields if field.name == "density")
    whole = fields.layout(record.points, len(fine.rows), 1, 1, stored)
    return Layout(len(fine.rows), 1, tuple(field for field in whole.fields if field.name in KEPT))


def block_maker(record: CoarsenRecord, fine: FineRun) -> Callable[[int], BlockData]:
    """Return the function that makes a snapshot from its number."""

    def make(block: int) -> BlockData:
        state = coarse.coarsen_state(*fine.state(block), record.factor, record.coarsening)
        rows: dict[str, NDArray[np.generic]] = {n: f[None] for n, f in zip(fields.STATE, state, strict=True)}
        rows |= {"time": fine.times[block : block + 1], "member": fine.members[block : block + 1]}
        return BlockData(rows)

    return make


def describe_coarsening(config: CoarsenConfig, output: Output) -> str:
    """Say what coarsening would do, for ``--dry-run``, after checking the fine run; see `campaign.describe_plan`."""
    record = make_record(config)
    with open_fine(config, check=False) as fine:
        fine_points = fine.snapshots.points
        lines = {
            "grid": f"{fine_points} x {fine_points} to {record.points} x {record.points}, {record.coarsening}",
            "snapshots": f"{len(fine.rows):,} of {fine.snapshots.members} member(s)",
        }
        return describe_plan(output, layout_of(record, fine), lines)
