"""Coarse states of a fine run: a store with one snapshot per block, from which `simulate` can continue."""

import dataclasses
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

STORED_FIELDS = (*fields.STATE, "time", "member")


def coarsen(config: CoarsenConfig, output: Output, world: World) -> bool:
    """Make a store of coarse states; collective. Return False if it was already complete.

    Raises
    ------
    InputError : the fine run is missing, not a store, unfinished, or has no snapshot at or after the start time.
    StorageError : the fine store is damaged.
    ConfigError : the factor does not divide the grid.
    Stopped : before the walltime or on a signal; rerun with ``resume``.
    ScimillError : see `store.writer.open_writer`.
    """
    record = world.on_root(make_record, config)
    with open_fine(config, check=False) as fine:
        layout, make_block = make_layout(record, fine), block_maker(record, fine)
        return CAMPAIGN.fill(record, layout, make_block, output, world, maker="coarsen", unit="snapshots")


def remake(config: str, output: Output, world: World) -> bool:
    """Coarsen as a stored configuration says; see `coarsen`."""
    return coarsen(from_stored(CoarsenConfig, config), output, world)


def make_record(config: CoarsenConfig) -> CoarsenRecord:
    """Complete a configuration with what follows from the fine run; raises as `coarsen`. On rank 0."""
    with open_fine(config, check=True) as fine:
        return build_record(CoarsenRecord, config, fine.origin(config))


def make_layout(record: CoarsenRecord, fine: FineRun) -> Layout:
    """Return the structure of the store: that of a run, without diagnostics."""
    stored = next(field.dtype for field in fine.snapshots.reader.layout.fields if field.name == "density")
    whole = fields.layout(record.points, len(fine.rows), 1, 1, stored, record.box)
    kept = tuple(field for field in whole.fields if field.name in STORED_FIELDS)
    return dataclasses.replace(whole, fields=kept, tables=(), ledger=())


def block_maker(record: CoarsenRecord, fine: FineRun) -> Callable[[int], BlockData]:
    """Return the function that makes a snapshot, given its number."""

    def make(block: int) -> BlockData:
        state = coarse.coarsen_state(*fine.state(block), record.factor, record.coarsening)
        rows: dict[str, NDArray[np.generic]] = {n: f[None] for n, f in zip(fields.STATE, state, strict=True)}
        rows |= {"time": fine.times[block : block + 1], "member": fine.members[block : block + 1]}
        return BlockData(rows)

    return make


def describe_coarsening(config: CoarsenConfig, output: Output) -> str:
    """Check the fine run and describe what coarsening would do, for ``--dry-run``; see `campaign.describe_plan`."""
    record = make_record(config)
    with open_fine(config, check=False) as fine:
        fine_points = fine.snapshots.points
        lines = {
            "grid": f"{fine_points} x {fine_points} to {record.points} x {record.points}, {record.coarsening}",
            "snapshots": f"{len(fine.rows):,}",
            "members": f"{fine.snapshots.members}",
        }
        return describe_plan(output, make_layout(record, fine), lines)
