"""Stores (HDF5 files) as input; this module reads those of bert and dlrm, whose rows are records."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from scimill.bench.dataset.pieces import Change, Changes, pick_reader
from scimill.bench.dataset.plan import DataFile
from scimill.bench.formats import source
from scimill.bench.formats.dlrm_bin.read import change_rows
from scimill.bench.formats.hdf5 import read_cases
from scimill.bench.formats.hdf5.read_cases import StoreCases
from scimill.bench.formats.source import DatasetPart, Defect, FileScan, Integers
from scimill.bench.kernels.clicks import INTEGERS
from scimill.bench.kernels.counter import low_half, word
from scimill.bench.kernels.perturbation import happens, shuffle_tokens
from scimill.bench.kernels.scaling import Picks
from scimill.errors import InputError
from scimill.parallel.world import World
from scimill.store.layout import Layout
from scimill.store.memory import block_memory
from scimill.store.reader import Reader
from scimill.store.verify import block_damage
from scimill.store.writer import BlockData

FIRST_COLUMNS = {"label": 0, "dense": 1, "sparse": 1 + INTEGERS}
"""First column of each field in a row of dlrm."""
FIELDS = {
    "dlrm": set(FIRST_COLUMNS),
    "bert": {"input_ids", "masked_lm_positions"},
    "imseg": set(read_cases.FIELDS),
}
"""Fields that identify the store of a workload."""

Rows = NDArray[Any]


class StoreRows:
    """A scanned store; each block is a piece."""

    format, record = "hdf5", "row"

    def __init__(self, reader: Reader, part: DatasetPart) -> None:
        self._reader = reader
        self.parts: Sequence[DatasetPart] = [part]
        self.fields = reader.layout.fields
        self.unit = sum(field.row_bytes for field in self.fields)

    def lengths(self, part: int, piece: int) -> Integers:
        """Return 1 for each row: sizes are in rows."""
        return np.ones(int(self.parts[part].pieces.records[piece]), dtype=np.int64)

    def total(self, counts: Sequence[int]) -> int:
        """Return the bytes of these rows."""
        return sum(counts) * self.unit

    def files(self, picks: Sequence[Picks], changes: Changes) -> list[DataFile]:
        """Return no files: the result is a store, see `block_maker`."""
        del picks, changes
        return []

    def layout(self, picks: Sequence[Picks]) -> Layout:
        """Return the structure of a store of these picks."""
        return Layout(picks[0].total, self._reader.layout.block_rows, self.fields)

    def block_maker(self, all_picks: Sequence[Picks], changes: Changes) -> Callable[[int], BlockData]:
        """Return the function that makes a block of the scaled store."""
        (picks,) = all_picks
        read, ends, layout = pick_reader(self.read, changes), np.cumsum(picks.size), self.layout(all_picks)
        memory = block_memory(layout)

        def block_data(block: int) -> BlockData:
            span = layout.span(block)
            content: dict[str, list[Rows]] = {field.name: [] for field in self.fields}
            low, high = np.searchsorted(ends, [span.start, span.stop - 1], side="right").tolist()
            for index in range(low, high + 1):
                first = int(ends[index] - picks.size[index])
                for name, rows in read(0, picks, index).items():
                    content[name].append(rows[max(0, span.start - first) : span.stop - first])
            out = memory(span.stop - span.start)
            return BlockData({name: np.concatenate(rows, out=out[name]) for name, rows in content.items()})

        return block_data

    def read(self, part: int, piece: int, change: Change, cut: Integers | None) -> Mapping[str, Rows]:
        """Read one block and change it; return its rows by field."""
        del part
        rows = {field.name: self._reader.rows(piece, field.name) for field in self.fields}
        if cut is not None:
            rows = {name: values[cut] for name, values in rows.items()}
        count = len(next(iter(rows.values())))
        if change.is_copy or count < 2:
            return rows
        if change.shuffled:
            return {name: values[change.order(count)] for name, values in rows.items()}
        if "input_ids" in rows:
            tokens = rows["input_ids"].astype(np.int64)
            shuffle_rows(tokens, rows["masked_lm_positions"].astype(np.int64), change.key, change.repeat)
            return {**rows, "input_ids": tokens.astype(rows["input_ids"].dtype)}
        return {name: change_field(name, values, change) for name, values in rows.items()}


Store = StoreRows | StoreCases


def change_field(name: str, values: Rows, change: Change) -> Rows:
    """Roll the columns of a field of dlrm; the label stays."""
    table = values.reshape(len(values), -1)
    first = FIRST_COLUMNS[name]
    return change_rows(table, change, fixed=int(first == 0), seed=first).reshape(values.shape)


@njit(cache=True, nogil=True)
def shuffle_rows(tokens: Integers, places: Integers, key: np.uint64, repeat: float) -> None:
    """Shuffle the tokens of each row, shape (n, 512), in place; see `perturbation.shuffle_tokens`."""
    for i in range(len(tokens)):
        own = word(key, np.uint64(2 * i))
        shuffle_tokens(tokens[i], places[i], own, happens(low_half(word(key, np.uint64(2 * i + 1))), repeat))


def scan_store(path: Path, workload: str, world: World) -> Store:
    """Check every byte of a store, on all ranks; collective.

    Raises
    ------
    InputError : the file is not a store of the workload, or has defects.
    StorageError : its structure is damaged.

    """
    world.on_root(_check, path, workload)
    reader = Reader.open(path, check=False)
    blocks = reader.layout.blocks
    found = source.run_in_parallel(world, [partial(block_damage, reader, block) for block in range(blocks)])
    defects = [Defect(path.name, f"block {block}: {what}") for block, what in enumerate(found) if what]
    source.report_defects(defects, path, world, skip=False)
    if workload == "imseg":
        return read_cases.scan(reader, path, world)
    scanned = FileScan()
    for block in range(blocks):
        rows = reader.layout.rows_in(block)
        scanned.add(block, rows, rows)
    return StoreRows(reader, source.make_part("training", [path], [scanned]))


def _check(path: Path, workload: str) -> None:
    """Refuse anything but a finished store of the workload."""
    with Reader.open(path) as reader:
        reader.require_complete()
        if workload_of(reader.layout) != workload:
            allowed = f"a store with the fields {', '.join(sorted(FIELDS[workload]))}"
            raise InputError(f"not a store of {workload}", where=str(path), allowed=allowed)


def workload_of(layout: Layout) -> str:
    """Recognise the workload of a store by its fields; return "" if it has none."""
    names = {field.name for field in layout.fields}
    tables = {table.name for table in layout.tables}
    found = [workload for workload, fields in FIELDS.items() if names >= fields]
    return found[0] if found and (found[0] != "imseg" or read_cases.TABLE in tables) else ""
