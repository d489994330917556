"""The store of imseg as input: an HDF5 file whose rows are voxels, case after case."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scimill.bench.dataset.pieces import Change, Changes
from scimill.bench.dataset.plan import DataFile
from scimill.bench.formats import source
from scimill.bench.formats.imseg_npy.cases import Case
from scimill.bench.formats.imseg_npy.read import MIN_EDGE, add_noise, number_cases, slice_shift, split_cases
from scimill.bench.formats.source import DatasetPart, FileScan, Integers
from scimill.bench.kernels.scaling import Picks
from scimill.errors import InputError
from scimill.parallel.world import World
from scimill.store.layout import Layout
from scimill.store.memory import block_memory
from scimill.store.reader import Reader
from scimill.store.writer import BlockData

TABLE = "cases"
FIELDS = ("image", "label")
Rows = NDArray[Any]


@dataclass(frozen=True)
class StoredCase(Case):
    """A case of a store, and its first row in that store."""

    first: int


@dataclass(frozen=True)
class PlacedCase:
    """A case of the scaled store: its number and first row, the original case, and how that changes."""

    number: int
    first: int
    origin: StoredCase
    change: Change


class StoreCases:
    """A scanned store; each case is a piece of one record."""

    format, record, unit = "hdf5", "case", 1

    def __init__(self, reader: Reader, parts: Sequence[DatasetPart], cases: Mapping[int, StoredCase]) -> None:
        self._reader = reader
        self.parts = parts
        self._cases = cases
        self.voxel_bytes = sum(field.row_bytes for field in reader.layout.fields)

    def lengths(self, part: int, piece: int) -> Integers:
        """Return the size of the case, the only record of the piece."""
        return self.parts[part].pieces.size[piece : piece + 1]

    def total(self, counts: Sequence[int]) -> int:
        """Return the size of the store in bytes; it adds nothing to its cases."""
        return sum(counts)

    def files(self, picks: Sequence[Picks], changes: Changes) -> list[DataFile]:
        """Return no files: the result is a store, see `block_maker`."""
        del picks, changes
        return []

    def layout(self, picks: Sequence[Picks]) -> Layout:
        """Return the structure of a store of these picks."""
        old, rows = self._reader.layout, sum(part_picks.total for part_picks in picks) // self.voxel_bytes
        return Layout(rows, old.block_rows, old.fields, old.tables)

    def block_maker(self, picks: Sequence[Picks], changes: Changes) -> Callable[[int], BlockData]:
        """Return the function that makes a block of the scaled store."""
        placed, layout = self._placed(picks, changes), self.layout(picks)
        memory = block_memory(layout)
        firsts = np.array([case.first for case in placed], dtype=np.int64)

        def block_data(block: int) -> BlockData:
            span = layout.span(block)
            low, high = np.searchsorted(firsts, [span.start, span.stop - 1], side="right").tolist()
            pieces = [self._read(case, span.start, span.stop) for case in placed[low - 1 : high]]
            out = memory(span.stop - span.start)
            fields = {name: np.concatenate([piece[name] for piece in pieces], out=out[name]) for name in FIELDS}
            starting = [case for case in placed[low - 1 : high] if case.first >= span.start]
            return BlockData(fields, {TABLE: case_table(starting)})

        return block_data

    def _placed(self, picks: Sequence[Picks], changes: Changes) -> list[PlacedCase]:
        """Cases of the scaled store, sorted by number, one after the other."""
        origins = [[self._cases[first] for first in part.pieces.offset.tolist()] for part in self.parts]
        found = sorted(number_cases([[case.number for case in of_part] for of_part in origins], picks))
        placed, row = [], 0
        for number, which, index in found:
            origin = origins[which][int(picks[which].piece[index])]
            placed.append(PlacedCase(number, row, origin, changes(which, picks[which], index)))
            row += origin.voxels
        return placed

    def _read(self, case: PlacedCase, start: int, stop: int) -> dict[str, Rows]:
        """Read the voxels of a case in rows [start, stop) of the scaled store."""
        voxels, depth = case.origin.voxels, case.origin.shape[0]
        first, last = max(start - case.first, 0), min(stop - case.first, voxels)
        shift = slice_shift(case.change, depth) * (voxels // depth)
        rows = {name: self._read_shifted(name, case.origin, first + shift, last + shift) for name in FIELDS}
        if not case.change.is_copy and not case.change.shuffled:
            add_noise(rows["image"], case.change, first)
        return rows

    def _read_shifted(self, name: str, case: StoredCase, first: int, last: int) -> Rows:
        """Read voxels [first, last) of a case, wrapping around at its end."""
        data, end = self._reader.file[name], case.first + case.voxels
        low, high = case.first + first, case.first + last
        before, after = (
            data[min(low, end) : min(high, end)],
            data[max(low, end) - case.voxels : max(high, end) - case.voxels],
        )
        return np.concatenate([before, after])


def case_table(cases: Sequence[PlacedCase]) -> dict[str, Rows]:
    """Make the rows of the table of cases."""
    return {
        "case": np.array([case.number for case in cases], dtype=np.uint32),
        "first": np.array([case.first for case in cases], dtype=np.int64),
        "shape": np.array([case.origin.shape for case in cases], dtype=np.uint32).reshape(-1, 3),
    }


def cases_of(reader: Reader) -> list[StoredCase]:
    """Read the table of cases of a store, in order.

    Raises
    ------
    InputError : the table does not match the rows of the store.

    """
    (table,) = [table for table in reader.layout.tables if table.name == TABLE]
    columns = {
        field.name: np.concatenate([reader.table_rows(b, table, field.name) for b in range(reader.layout.blocks)])
        for field in table.fields
    }
    rows = zip(*(columns[name].tolist() for name in ("case", "first", "shape")), strict=True)
    found = [StoredCase(number, tuple(shape), first) for number, first, shape in rows]
    ends = np.cumsum([0, *(case.voxels for case in found)]).tolist()
    numbers = {case.number for case in found}
    is_sound = len(numbers) == len(found) and all(min(case.shape) >= MIN_EDGE for case in found)
    if not is_sound or [case.first for case in found] != ends[:-1] or ends[-1] != reader.layout.rows:
        allowed = f"consecutive cases with different numbers and edges of at least {MIN_EDGE} voxels"
        raise InputError("the table of cases does not match the voxels", where=str(reader.path), allowed=allowed)
    return found


def scan(reader: Reader, path: Path, world: World) -> StoreCases:
    """Find the cases of a store whose blocks are undamaged; collective.

    Raises
    ------
    InputError : see `cases_of`.

    """
    cases: list[StoredCase] = world.on_root(cases_of, reader)
    training, evaluation = split_cases(cases, lambda case: case.number)
    unit = sum(field.row_bytes for field in reader.layout.fields)
    parts = [_part("training", path, training, unit), _part("evaluation", path, evaluation, unit, grows=False)]
    return StoreCases(reader, source.usable_parts(parts, path, world), {case.first: case for case in cases})


def _part(name: str, path: Path, cases: Sequence[StoredCase], unit: int, *, grows: bool = True) -> DatasetPart:
    """Make the part that consists of these cases; the offset of a piece is its first row."""
    scanned = FileScan()
    for case in cases:
        scanned.add(case.first, case.voxels * unit, 1)
    return source.make_part(name, [path], [scanned], grows=grows)
