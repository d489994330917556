"""Import files, all or none: ranks share the pieces, and each piece gets its own journal."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scimill.atoms.database.admission import give_ids
from scimill.atoms.database.batch import BatchWriter, StructureBatch, empty
from scimill.atoms.database.database import Database
from scimill.atoms.database.journal import JournalWriter
from scimill.atoms.database.snapshot import UNCOMPRESSED
from scimill.atoms.exchange import sources
from scimill.atoms.exchange.properties import Properties
from scimill.atoms.exchange.sources import Piece
from scimill.atoms.kernels.composition import species_of
from scimill.errors import InputError, ScimillError, Stopped
from scimill.files import rename, storage_errors, sync
from scimill.parallel.partition import share
from scimill.parallel.report import Progress
from scimill.parallel.world import Stop


@dataclass(frozen=True)
class ImportResult:
    """Result of an import: structures added, duplicates skipped, and properties without a column."""

    added: int
    skipped: int
    ignored: tuple[str, ...]


def import_files(
    database: Database,
    files: Sequence[Path],
    properties: Properties,
    *,
    piece_rows: int = 4096,
    stop: Stop | None = None,
) -> ImportResult:
    """Import files into a database, all of them or none; collective.

    Parameters
    ----------
    database : open for writing; its ranks share the work.
    files : the files, in formats of `sources.FORMATS`.
    properties : columns and units of their properties.
    piece_rows : structures that one rank reads at once.
    stop : checked between pieces.

    Raises
    ------
    InputError : a file is damaged, an id already exists, or a label is NaN; nothing was imported.
    Stopped : on a signal or before the walltime; nothing was imported.

    """
    database.require_writing()
    for column in properties.user_columns:
        with database.world.together():
            database.define(column.name, column.units, column.of, column.shape)
    return _Import(database, properties, files, piece_rows).run(stop)


def count(files: Sequence[Path]) -> int:
    """Count the structures in files."""
    return sum(piece.stop - piece.first for path in files for piece in sources.pieces(path, 1 << 20))


def add_files(database: Database, files: Sequence[Path], properties: Properties) -> Iterator[str]:
    """Add the structures of files one by one; yield the id of each after it is saved."""
    for column in properties.user_columns:
        database.define(column.name, column.units, column.of, column.shape)
    for path in files:
        for piece in sources.pieces(path, 1024):
            for number, rows in enumerate(sources.read(piece, properties)):
                batch = _check(database, rows, piece, number)
                for row in range(batch.rows):
                    yield from database.add_checked(batch.part(slice(row, row + 1)))


def _check(database: Database, rows: sources.SourceStructures, piece: Piece, number: int) -> StructureBatch:
    """Check structures of a piece; errors name the file and the structure."""
    try:
        return database.batch(
            rows.species, rows.coordinates, cell=rows.cell, pbc=rows.pbc, uid=rows.uid, test=rows.test,
            labels=rows.labels,
        )  # fmt: skip
    except ScimillError as error:
        place = f"group {piece.place}" if isinstance(piece.place, str) else f"structure {piece.first + number}"
        error.where = f"{piece.path}, {place}: {error.where}"
        raise


class _Import:
    """One import on all ranks."""

    def __init__(self, database: Database, properties: Properties, files: Sequence[Path], rows: int) -> None:
        self._database, self._world, self._properties = database, database.world, properties
        self._number = self._world.on_root(database.next_session)
        self._folder = database.path / UNCOMPRESSED / f"{self._number:06d}"
        self._part = self._folder.with_name(self._folder.name + ".part")
        self._pieces = self._world.on_root(lambda: [p for path in files for p in sources.pieces(Path(path), rows)])
        self._firsts = database.rows() + np.cumsum([0, *(p.stop - p.first for p in self._pieces)])
        self._contents: dict[int, tuple[NDArray[Any], NDArray[Any]]] = {}

    def run(self, stop: Stop | None) -> ImportResult:
        with storage_errors(self._part, "importing"):
            self._world.on_root(self._part.mkdir)
        progress = Progress(len(self._pieces), unit="pieces", what="import", enabled=self._world.is_root)
        mine = share(np.arange(len(self._pieces)), self._world.rank, self._world.size).tolist()
        for done, number in enumerate(mine):
            if stop and stop.requested():
                break
            self._contents[number] = self._write(number, None)
            if progress.due():
                progress.update(done * self._world.size)
        progress.close()
        self._end(stop)
        kept = self._world.on_root(self._choose_rows, self._world.gather_all(self._contents))
        for number in mine:
            if not kept[number].all():
                self._write(number, kept[number])
        self._world.barrier()
        added = int(sum(rows.sum() for rows in kept))
        self._world.on_root(self._commit, added)
        self._database.reload()
        ignored = {name for names in self._world.gather_all(self._properties.ignored) for name in names}
        return ImportResult(added, int(sum(len(rows) for rows in kept)) - added, tuple(sorted(ignored)))

    def _end(self, stop: Stop | None) -> None:
        """End the import on all ranks if one of them was asked to stop."""
        reason = stop.finish() if stop else ""
        if reason:
            self._world.fail(Stopped(f"stopped by {reason}; nothing was imported", remedy="run the same command again"))

    def _write(self, number: int, kept: NDArray[np.bool_] | None) -> tuple[NDArray[Any], NDArray[Any]]:
        """Write the journal of a piece, with only the kept rows if given; return all ids and hashes."""
        path = self._part / f"{number:06d}.journal"
        path.unlink(missing_ok=True)
        batches = list(self._batches(self._pieces[number], int(self._firsts[number])))
        with storage_errors(path, "importing"):
            journal = JournalWriter(path)
            begin, writer = 0, BatchWriter(journal)
            for batch in batches:
                rows = slice(None) if kept is None else kept[begin : begin + batch.rows]
                begin += batch.rows
                if (chosen := batch.part(rows)).rows:
                    writer.write(chosen)
            journal.close()
        return tuple(_concatenate(batch.columns[name] for batch in batches) for name in ("uid", "geometry_hash"))  # type: ignore[return-value]

    def _batches(self, piece: Piece, first: int) -> list[StructureBatch]:
        """Read a piece, one batch per group."""
        groups: dict[str, list[StructureBatch]] = {}
        for row, rows in enumerate(sources.read(piece, self._properties)):
            batch = _check(self._database, rows, piece, row)
            give_ids(batch, first)
            first += batch.rows
            groups.setdefault(batch.group, []).append(batch)
        return [merge(parts) for parts in groups.values()]

    def _choose_rows(self, contents: list[dict[int, tuple[NDArray[Any], NDArray[Any]]]]) -> list[NDArray[np.bool_]]:
        """Return which rows of each piece to keep; refuse ids that already exist."""
        pieces = {number: content for part in contents for number, content in part.items()}
        ordered = [pieces[number] for number in range(len(self._pieces))]
        if not ordered:
            raise InputError("no structures to import", where="files")
        ids, hashes = (_concatenate(parts) for parts in zip(*ordered, strict=True))
        kept = self._database.find_new(hashes, self._database.known_hashes)
        self._database.check_ids(ids[kept])
        return np.split(kept, np.cumsum([len(part) for part, _ in ordered])[:-1])

    def _commit(self, added: int) -> None:
        """Make the written journals part of the database, in one step."""
        with storage_errors(self._part, "importing"):
            if not added:
                return
            for path in self._part.iterdir():
                sync(path)
        rename(self._part, self._folder)


def _concatenate(parts: Iterable[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(list(parts))


def merge(parts: Sequence[StructureBatch]) -> StructureBatch:
    """Join batches of one group; rows of a batch without a column get missing values."""
    first = parts[0]
    if all(part.columns.keys() == first.columns.keys() for part in parts):
        return StructureBatch(
            first.group, {n: _concatenate(p.columns[n] for p in parts) for n in first.columns}, first.definitions
        )
    names = {name: None for part in parts for name in part.columns}
    atoms = len(species_of(first.group))
    definitions = {name: column for part in parts for name, column in part.definitions.items()}

    def values(part: StructureBatch, name: str) -> NDArray[Any]:
        found = part.columns.get(name)
        return empty(definitions[name], part.rows, atoms) if found is None else found

    filled = {name: _concatenate(values(part, name) for part in parts) for name in names}
    return StructureBatch(first.group, filled, definitions)
