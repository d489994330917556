"""The contents of a database at one instant; they stay readable whatever a writer does meanwhile."""

import dataclasses
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scimill.atoms.database import batch as batches
from scimill.atoms.database.batch import Columns, StructureBatch
from scimill.atoms.database.columns import KNOWN, Column
from scimill.atoms.database.journal import Journal
from scimill.atoms.database.segments import Segment
from scimill.atoms.kernels import composition
from scimill.errors import InputError, StorageError
from scimill.files import replacing
from scimill.store.checksums import crc32c

FORMAT = 1
MANIFEST, CHECKSUM = "manifest.json", "crc32c"
COMPRESSED, UNCOMPRESSED, REDUCTIONS = "Compressed_data", "Uncompressed_data", "Data_reductions"
CHUNK_BYTES = 1 << 23  # size of a chunk of a journal
ATTEMPTS = 100  # at reading a database while writers compress it


@dataclass(frozen=True)
class DatabaseManifest:
    """Which files hold the compressed data, and where the uncompressed data begin.

    Parameters
    ----------
    segments : name of each segment and the number of rows of each of its groups, oldest first.
    first : number of the first folder in `Uncompressed_data` that is not yet compressed.
    columns : the users' columns of the compressed data, by name.

    """

    segments: tuple[tuple[str, Mapping[str, int]], ...] = ()
    first: int = 0
    columns: Mapping[str, Column] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write the manifest, replacing an older one in one step."""
        with replacing(folder / MANIFEST, "manifest") as part:
            part.write_text(_format({"format": FORMAT, **dataclasses.asdict(self)}), "utf-8")

    @classmethod
    def read(cls, folder: Path) -> "DatabaseManifest":
        """Read a database's manifest.

        Raises
        ------
        InputError : the directory is not a database.
        StorageError : the manifest is damaged, or has another format.

        """
        path = folder / MANIFEST
        try:
            text = path.read_text("utf-8")
            values = json.loads(text)
        except OSError:
            raise InputError(
                "no atoms database found", where=str(folder), remedy="create one with scimill atoms import"
            ) from None
        except ValueError:
            raise StorageError("the manifest is damaged", where=str(path)) from None
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise StorageError("the manifest has an unknown format", where=str(path), allowed=f"format {FORMAT}")
        own = {name: value for name, value in values.items() if name != CHECKSUM}
        if own.keys() != {"format", "segments", "first", "columns"} or (own != values and text != _format(own)):
            raise StorageError("the manifest is damaged", where=str(path))
        columns = {name: Column(**{**c, "shape": tuple(c["shape"])}) for name, c in values["columns"].items()}
        return cls(tuple((name, rows) for name, rows in values["segments"]), values["first"], columns)


def _format(values: dict[str, Any]) -> str:
    """Format a manifest, with its own checksum; earlier versions wrote none."""
    content = json.dumps(values, indent=1, ensure_ascii=False)
    return json.dumps(values | {CHECKSUM: int(crc32c(content.encode()))}, indent=1, ensure_ascii=False)


def sessions(folder: Path, first: int = 0) -> list[Path]:
    """List the folders of uncompressed data from number `first` on, in order."""
    found = (path for path in (folder / UNCOMPRESSED).iterdir() if path.name.isdecimal())
    return sorted(path for path in found if int(path.name) >= first)


class Snapshot:
    """All files of a database, open.

    Parameters
    ----------
    folder : the database.

    Attributes
    ----------
    manifest : the manifest.
    groups : number of compressed rows of each group.
    columns : all columns by name.

    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for _ in range(ATTEMPTS):
            self.manifest = DatabaseManifest.read(folder)
            if self._open() and DatabaseManifest.read(folder) == self.manifest:
                break
            self.close()
        else:
            raise StorageError("the database changes too fast to be read", where=str(folder), remedy="try again later")
        self.groups: dict[str, int] = {}
        for _, rows in self.manifest.segments:
            for group, count in rows.items():
                self.groups[group] = self.groups.get(group, 0) + count
        self.columns: dict[str, Column] = {**KNOWN, **self.manifest.columns}
        self.columns |= batches.columns_of(self.records())

    def _open(self) -> bool:
        """Open all files; return False if a writer removed one meanwhile."""
        self._segments: list[Segment] = []
        self.journals: list[Journal] = []
        try:
            for name, _ in self.manifest.segments:
                path = self.folder / COMPRESSED / name
                if not path.exists():
                    return False
                self._segments.append(Segment(path))
            for session in sessions(self.folder, self.manifest.first):
                self.journals += [Journal(path) for path in sorted(session.iterdir())]
        except FileNotFoundError:
            return False
        return True

    def close(self) -> None:
        """Close all files."""
        for segment in self._segments:
            segment.close()
        for journal in self.journals:
            journal.close()
        self._segments, self.journals = [], []

    # ---- compressed data ------------------------------------------------------------------------------------

    def rows(self, group: str, first: int = 0, stop: int | None = None, names: Sequence[str] | None = None) -> Columns:
        """Read compressed rows of a group; all of its columns if no names are given."""
        total = self.groups.get(group, 0)
        stop = total if stop is None else min(stop, total)
        names = self.names(group) if names is None else names
        return {name: self._column(group, name, first, stop) for name in names}

    def names(self, group: str) -> list[str]:
        """List the columns that have values in a compressed group."""
        found = {name: None for segment in self._segments for name in segment.names(group) if name != "species"}
        return sorted(found, key=[*self.columns].index)

    def _column(self, group: str, name: str, first: int, stop: int) -> NDArray[Any]:
        parts, begin = [], 0
        atoms = len(composition.species_of(group))
        for segment, (_, rows) in zip(self._segments, self.manifest.segments, strict=True):
            low, high = max(first - begin, 0), min(stop - begin, rows.get(group, 0))
            begin += rows.get(group, 0)
            if low < high:
                stored = segment.has(f"{group}/{name}")
                values = segment.read(f"{group}/{name}", low, high) if stored else None
                parts.append(batches.empty(self.columns[name], high - low, atoms) if values is None else values)
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([batches.empty(self.columns[name], 0, atoms), *parts])

    # ---- uncompressed data ----------------------------------------------------------------------------------

    def records(self) -> Iterator[batches.RecordKind]:
        """Yield every kind of record in the uncompressed data."""
        for journal in self.journals:
            yield from (batches.parse_header(header) for header in journal.index.headers)

    def uncompressed_rows(self) -> int:
        """Return the number of uncompressed structures."""
        return sum(sum(chunk.rows.values()) for chunk in self.chunks())

    def chunks(self) -> Iterator["Chunk"]:
        """Yield consecutive records of the journals, in chunks that fit into memory."""
        for number, journal in enumerate(self.journals):
            index = journal.index
            if not len(index.kinds):
                continue
            pieces = np.cumsum(index.lengths) // CHUNK_BYTES
            bounds = [0, *(np.flatnonzero(np.diff(pieces)) + 1).tolist(), len(pieces)]
            kinds = [batches.parse_header(header) for header in index.headers]
            for first, stop in itertools.pairwise(bounds):
                counts = np.bincount(index.kinds[first:stop], minlength=len(kinds))
                rows: dict[str, int] = {}
                for kind, count in zip(kinds, counts.tolist(), strict=True):
                    if count:
                        rows[kind.group] = rows.get(kind.group, 0) + count * kind.rows
                yield Chunk(number, first, stop, rows)

    def read_chunk(self, chunk: "Chunk", names: Mapping[str, Sequence[str]] | None = None) -> list[StructureBatch]:
        """Read the rows of a chunk in order, one batch per group.

        Parameters
        ----------
        chunk : one of `chunks`.
        names : columns to read, by group; all columns in this chunk if not given.

        """
        journal = self.journals[chunk.journal]
        kinds = journal.index.kinds[chunk.first : chunk.stop]
        records = {int(kind): batches.parse_header(journal.index.headers[kind]) for kind in np.unique(kinds)}
        out: dict[str, Columns] = {}
        for group, rows in chunk.rows.items():
            has = batches.columns_of(r for r in records.values() if r.group == group)
            atoms = len(composition.species_of(group))
            wanted = has if names is None else names[group]
            out[group] = {name: batches.empty(self.columns[name], rows, atoms) for name in wanted}
        starts = _starts(kinds, records)
        for kind, record in records.items():
            where = np.flatnonzero(kinds == kind)
            batches.scatter(out[record.group], starts[where], record, journal.bodies(where + chunk.first))
        return [StructureBatch(group, columns, self.columns) for group, columns in out.items()]

    def uncompressed(self) -> Iterator[StructureBatch]:
        """Yield all uncompressed rows; within each group, in the order in which they were added."""
        for chunk in self.chunks():
            yield from self.read_chunk(chunk)


@dataclass(frozen=True)
class Chunk:
    """Consecutive records of one journal, and how many rows of each group they hold."""

    journal: int
    first: int
    stop: int
    rows: Mapping[str, int]


def _starts(kinds: NDArray[np.int64], records: Mapping[int, batches.RecordKind]) -> NDArray[np.int64]:
    """Compute the first row of each record among the rows of its group, shape (records,)."""
    starts = np.zeros(len(kinds), dtype=np.int64)
    for group in {record.group for record in records.values()}:
        counts = np.zeros(len(kinds), dtype=np.int64)
        for kind, record in records.items():
            if record.group == group:
                counts[kinds == kind] = record.rows
        mine = counts > 0
        starts[mine] = (np.cumsum(counts) - counts)[mine]
    return starts
