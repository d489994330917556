"""Compression: append all uncompressed rows to the compressed ones, in one new segment."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from scimill.atoms.database.columns import Column
from scimill.atoms.database.segments import SegmentWriter
from scimill.atoms.database.snapshot import COMPRESSED, Chunk, Snapshot, sessions
from scimill.atoms.kernels import composition
from scimill.errors import StorageError
from scimill.files import check_free
from scimill.parallel.partition import share
from scimill.parallel.world import World
from scimill.store.layout import Field


@dataclass(frozen=True)
class CompressionPlan:
    """What a compression will write.

    Parameters
    ----------
    name : of the new segment.
    first : number of the first session that stays uncompressed.
    chunks : the chunks to move.
    starts : for each chunk, the first row of each group in the segment.
    rows : number of rows of each group.
    names : columns of each group.

    """

    name: str
    first: int
    chunks: list[Chunk]
    starts: list[dict[str, int]]
    rows: dict[str, int]
    names: dict[str, list[str]]

    def datasets(self, columns: Mapping[str, Column]) -> Iterator[tuple[Field, int]]:
        """Yield every dataset of the segment with its number of rows."""
        for group, rows in self.rows.items():
            atoms = len(composition.species_of(group))
            yield Field(f"{group}/species", "uint8", "1", "atomic numbers of all rows"), atoms
            for name in self.names[group]:
                c = columns[name]
                yield Field(f"{group}/{name}", c.dtype, c.units, c.long_name, c.row_shape(atoms)), rows


def make_plan(snapshot: Snapshot) -> CompressionPlan:
    """Plan a segment for all uncompressed rows."""
    chunks, starts = list(snapshot.chunks()), []
    rows: dict[str, int] = {}
    for chunk in chunks:
        starts.append({group: rows.get(group, 0) for group in chunk.rows})
        for group, count in chunk.rows.items():
            rows[group] = rows.get(group, 0) + count
    names: dict[str, list[str]] = {group: [] for group in rows}
    for record in snapshot.records():
        known = names.get(record.group, [])
        known += [column.name for column, _, _ in record.columns if column.name not in known]
    last = sessions(snapshot.folder)[-1:]
    first = int(last[0].name) + 1 if last else snapshot.manifest.first
    ordered = {group: [name for name in snapshot.columns if name in names[group]] for group in sorted(rows)}
    number = len(snapshot.manifest.segments)
    return CompressionPlan(
        f"{number:06d}.h5", first, chunks, starts, {group: rows[group] for group in ordered}, ordered
    )


def write_segment(world: World, snapshot: Snapshot, plan: CompressionPlan, columns: Mapping[str, Column]) -> None:
    """Write the planned segment; collective.

    Raises
    ------
    StorageError : it cannot be written; the space of the unfinished file is freed.

    """
    path, datasets = snapshot.folder / COMPRESSED / plan.name, [*plan.datasets(columns)]
    world.on_root(check_free, path, sum(field.row_bytes * rows for field, rows in datasets))
    writer = SegmentWriter(world, path, datasets, {"title": "atomic structures", "sessions_before": plan.first})
    try:
        _fill_segment(world, snapshot, writer, plan)
        writer.finish()
    except StorageError:
        writer.abandon()
        raise


def _fill_segment(world: World, snapshot: Snapshot, writer: SegmentWriter, plan: CompressionPlan) -> None:
    """Write this rank's chunks."""
    for number in share(np.arange(len(plan.chunks)), world.rank, world.size).tolist():
        for batch in snapshot.read_chunk(plan.chunks[number], plan.names):
            first = plan.starts[number][batch.group]
            for name, values in batch.columns.items():
                writer.write(f"{batch.group}/{name}", first, values)
    if world.is_root:
        for group in plan.rows:
            writer.write(f"{group}/species", 0, composition.species_of(group))
