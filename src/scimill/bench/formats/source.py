"""Code shared by all inputs: defects, parts, pieces and their scan."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from scimill.bench.dataset.pieces import Changes
from scimill.bench.dataset.plan import DataFile
from scimill.bench.kernels.scaling import Picks, Pieces
from scimill.errors import InputError, ScimillError
from scimill.parallel.partition import share
from scimill.parallel.report import say
from scimill.parallel.world import World
from scimill.store.direct import Bytes

T = TypeVar("T")
Integers = NDArray[np.int64]

PIECE_BYTES = 2**20  # in large datasets; smaller ones have smaller pieces, so that a random choice stays fair
MIN_PIECES = 256
MIN_RECORDS = 16  # per piece
SHOWN_DEFECTS = 20


@dataclass(frozen=True)
class Defect:
    """A defect of one file of a dataset."""

    file: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


@dataclass(frozen=True)
class DatasetPart:
    """One part of a dataset; scaling preserves its share of the whole.

    Attributes
    ----------
    name : "training" or "evaluation".
    files : its files.
    pieces : their records, grouped into pieces.
    capacities : size of each file, in the unit of `Pieces.size`.
    grows : whether scaling may enlarge it.

    """

    name: str
    files: tuple[Path, ...]
    pieces: Pieces
    capacities: Integers
    grows: bool = True

    @property
    def size(self) -> int:
        """Total size of its pieces."""
        return int(self.pieces.size.sum())


class ScannedDataset(Protocol):
    """A scanned dataset.

    Attributes
    ----------
    format : its format.
    record : the word for one of its records.
    unit : bytes per unit of `Pieces.size`.
    parts : its parts, none of them empty, the training part first.

    """

    format: str
    record: str
    unit: int
    parts: Sequence[DatasetPart]

    def lengths(self, part: int, piece: int) -> Integers:
        """Return the size of each record of a piece, in the unit of `Pieces.size`."""
        ...

    def total(self, counts: Sequence[int]) -> int:
        """Return the bytes of a dataset whose parts have these sizes, with all files and companions."""
        ...

    def files(self, picks: Sequence[Picks], changes: Changes) -> list[DataFile]:
        """Return the files of a dataset that consists of these picks of each part."""
        ...


@dataclass(frozen=True)
class FileScan:
    """Result of scanning a file or a range of it: pieces as columns (offset, size, records), and defects."""

    offset: list[int] = field(default_factory=list)
    size: list[int] = field(default_factory=list)
    records: list[int] = field(default_factory=list)
    defects: list[Defect] = field(default_factory=list)

    def add(self, offset: int, size: int, records: int) -> None:
        """Append a piece."""
        self.offset.append(offset)
        self.size.append(size)
        self.records.append(records)

    def add_rows(self, rows: int, row_bytes: int, step: int = 1) -> None:
        """Cut `rows` rows into pieces, of a multiple of `step` rows if possible; sizes are in rows."""
        count = max(MIN_RECORDS, min(rows // MIN_PIECES, PIECE_BYTES // row_bytes))
        count = count // step * step if count >= step else count
        for first in range(0, rows, count):
            here = min(count, rows - first)
            self.add(first, here, here)


def make_part(name: str, files: Sequence[Path], scans: Sequence[FileScan], *, grows: bool = True) -> DatasetPart:
    """Make the part that consists of these files, from the scan of each."""
    counts = np.array([len(scan.offset) for scan in scans], dtype=np.int64)
    columns = [
        np.array([value for scan in scans for value in getattr(scan, column)], dtype=np.int64)
        for column in ("offset", "size", "records")
    ]
    pieces = Pieces(np.repeat(np.arange(len(scans)), counts), *columns)
    capacities = np.bincount(pieces.file, pieces.size, minlength=len(scans)).astype(np.int64)
    return DatasetPart(name, tuple(files), pieces, capacities, grows)


def run_in_parallel(world: World, tasks: Sequence[Callable[[], T]]) -> list[T]:
    """Share tasks among the ranks, and return all results on every rank; collective.

    Raises
    ------
    ScimillError : the error of a task, on all ranks.

    """
    mine: list[T] = []
    failure: ScimillError | None = None
    try:
        mine = [tasks[number]() for number in share(np.arange(len(tasks)), world.rank, world.size).tolist()]
    except ScimillError as error:
        failure = error
    except OSError as error:
        failure = InputError.unreadable("input", error, error.filename)
    failed = [error for error in world.gather_all(failure) if error is not None]
    if failed:
        world.fail(failed[0])
    results: dict[int, T] = {}
    for rank, part in enumerate(world.gather_all(mine)):
        results |= {rank + world.size * i: result for i, result in enumerate(part)}
    return [results[number] for number in range(len(tasks))]


def report_defects(defects: Iterable[Defect], folder: Path, world: World, skip: bool) -> None:
    """Report all defects at once; refuse the input unless `skip` is set.

    Raises
    ------
    InputError : there are defects, and `skip` is not set.

    """
    found = list(defects)
    if not found:
        return
    if world.is_root:
        for defect in found[:SHOWN_DEFECTS]:
            say(str(defect))
        if len(found) > SHOWN_DEFECTS:
            say(f"and {len(found) - SHOWN_DEFECTS} more")
    if not skip:
        many = f"{len(found)} defects" if len(found) > 1 else "a defect"
        remedy = "fix these files, or use --skip-damaged to leave them out"
        world.fail(InputError(f"the dataset has {many}: {found[0]}", where=str(folder), remedy=remedy))


def usable_parts(parts: Sequence[DatasetPart], folder: Path, world: World) -> list[DatasetPart]:
    """Return the parts that are not empty; the first one must be for training.

    Raises
    ------
    InputError : there is no training file.

    """
    found = [part for part in parts if len(part.pieces)]
    if not found or found[0].name != "training":
        world.fail(InputError("no undamaged training file", where=str(folder)))
    return found


def read_bytes(path: Path, offset: int, size: int) -> Bytes:
    """Read a range of a file into writable memory.

    Raises
    ------
    InputError : the file cannot be read, or is shorter than expected.

    """
    out = np.empty(size, dtype=np.uint8)
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            done = 0
            while done < size and (got := os.preadv(descriptor, [out.data[done:]], offset + done)):
                done += got
        finally:
            os.close(descriptor)
    except OSError as error:
        raise InputError.unreadable("input", error, path) from None
    if done < size:
        raise InputError("the input became shorter while being read", where=str(path))
    return out
