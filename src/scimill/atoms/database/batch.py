"""Batches: checked rows of one stoichiometry in canonical order, and how a journal stores them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scimill.atoms.database.columns import ID_LENGTH, KNOWN, Column, column_from_header
from scimill.atoms.database.journal import JournalWriter
from scimill.atoms.kernels import composition
from scimill.atoms.kernels.geometry import geometry_hash
from scimill.errors import InputError
from scimill.parallel.report import describe_count

Columns = dict[str, NDArray[Any]]
Species = NDArray[np.uint8]

RECORD_BYTES = 1 << 22  # largest record of a batch, so that it can be read in bounded memory


@dataclass(frozen=True)
class StructureBatch:
    """Rows of one group.

    Parameters
    ----------
    group : Hill formula.
    columns : arrays by name, rows along the first axis; atoms sorted by atomic number.
    definitions : definition of each column.

    """

    group: str
    columns: Columns
    definitions: Mapping[str, Column]

    @property
    def rows(self) -> int:
        """Number of structures."""
        return len(self.columns["coordinates"])

    def part(self, rows: slice | NDArray[Any]) -> "StructureBatch":
        """Return some of the rows as a batch."""
        return StructureBatch(
            self.group, {name: values[rows] for name, values in self.columns.items()}, self.definitions
        )


@lru_cache(maxsize=65536)
def _sort_species(numbers: bytes) -> tuple[str, Species, NDArray[np.int16], bool]:
    """Sort atomic numbers given as bytes; return group, species, order, and whether they were sorted."""
    species = np.frombuffer(numbers, dtype=np.uint8)
    order = np.argsort(species, kind="stable").astype(np.int16)
    return composition.formula(species), species[order], order, bool((np.diff(order) == 1).all())


def to_atomic_numbers(species: ArrayLike | Sequence[str]) -> Species:
    """Convert symbols or numbers to atomic numbers, uint8, shape (atoms,).

    Raises
    ------
    InputError : unknown element, no atoms, or too many atoms.

    """
    values = np.asarray(species)
    if values.dtype.kind in "US":
        try:
            values = composition.atomic_numbers([str(s, "ascii") if isinstance(s, bytes) else str(s) for s in values])
        except ValueError as error:
            raise InputError(str(error), where="species", allowed="chemical symbols or atomic numbers") from None
    if values.ndim != 1 or not 1 <= len(values) <= composition.MOST_ATOMS:
        raise InputError(
            f"wrong shape of species: {values.shape}", where="species", allowed=f"1 to {composition.MOST_ATOMS} atoms"
        )
    unknown = values if values.dtype.kind not in "iu" else values[(values < 1) | (values >= len(composition.SYMBOLS))]
    if len(unknown):
        raise InputError(f"unknown element {unknown[0]}", where="species", allowed="atomic numbers from 1 to 118")
    return np.asarray(values, dtype=np.uint8)


def make_batch(
    species: ArrayLike | Sequence[str],
    coordinates: ArrayLike,
    *,
    cell: ArrayLike | None,
    pbc: ArrayLike | None,
    uid: Sequence[str | bytes] | NDArray[Any],
    test: ArrayLike | None,
    labels: Mapping[str, ArrayLike],
    definitions: Mapping[str, Column],
    missing: bool = False,
) -> StructureBatch:
    """Check rows of one stoichiometry and bring them into canonical form.

    Parameters
    ----------
    species : of all rows, shape (atoms,).
    coordinates : Å, shape (rows, atoms, 3).
    cell : Å, shape (rows, 3, 3); no cell if not given.
    pbc : shape (3,) or (rows, 3); periodic along every nonzero cell vector if not given.
    uid : unique ids, or an empty sequence: `Database` then generates them.
    test : whether each row is held out; no row if not given.
    labels : in the units of their columns, rows along the first axis.
    definitions : the column of each label.
    missing : whether NaN in a label means missing; it is refused otherwise.

    Raises
    ------
    InputError : wrong shape, unknown element, or a number that is not finite.

    """
    group, numbers, order, is_sorted = _sort_species(to_atomic_numbers(species).tobytes())
    positions = _array(coordinates, "coordinates", None, (len(numbers), 3))
    rows = len(positions)
    box = np.zeros((rows, 3, 3)) if cell is None else _array(cell, "cell", rows, (3, 3))
    periodic = _periodic(pbc, box)
    columns: Columns = {
        "coordinates": positions if is_sorted else positions[:, order],
        "cell": box,
        "pbc": periodic,
        "test": np.zeros(rows, np.uint8) if test is None else np.asarray(test, dtype=bool).view(np.uint8),
        "uid": _ids(uid, rows),
        "permutation": np.ascontiguousarray(np.broadcast_to(order, (rows, len(order)))),
    }
    columns["geometry_hash"] = geometry_hash(numbers, columns["coordinates"], box, periodic)
    for name, values in labels.items():
        column = definitions[name]
        checked = _label(values, column, rows, len(numbers), missing)
        columns[name] = checked[:, order] if column.of == "atomic" and not is_sorted else checked
    return StructureBatch(group, columns, definitions)


def _array(values: ArrayLike, name: str, rows: int | None, shape: tuple[int, ...]) -> NDArray[np.float64]:
    try:
        array = np.ascontiguousarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"expected numbers in {name}", where=name) from None
    if array.shape[1:] != shape or (rows is not None and len(array) != rows) or not array.size:
        wanted = ", ".join(map(str, (rows or "rows", *shape)))
        raise InputError(f"wrong shape of {name}: {array.shape}", where=name, allowed=f"shape ({wanted})")
    if not np.isfinite(array).all():
        raise InputError(f"NaN or infinity in {name}", where=name, allowed="finite numbers")
    return array


def _periodic(pbc: ArrayLike | None, cell: NDArray[np.float64]) -> NDArray[np.uint8]:
    if pbc is None:
        return np.asarray(cell.any(axis=2), dtype=np.uint8)
    given = np.asarray(pbc, dtype=bool).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(given, (len(cell), 3)))


def _ids(uid: Sequence[str | bytes] | NDArray[Any], rows: int) -> NDArray[np.bytes_]:
    ids = np.asarray(uid, dtype=np.bytes_)
    if len(ids) == 0:
        return np.zeros(rows, f"S{ID_LENGTH}")
    if len(ids) != rows or ids.itemsize > ID_LENGTH or (ids == b"").any():
        raise InputError(
            f"{describe_count(len(ids), 'id')} of up to {ids.itemsize} bytes for {describe_count(rows, 'structure')}",
            where="uid", allowed=f"one id per structure, 1 to {ID_LENGTH} ASCII characters",
        )  # fmt: skip
    return ids.astype(f"S{ID_LENGTH}")


def _label(values: ArrayLike, column: Column, rows: int, atoms: int, missing: bool) -> NDArray[Any]:
    shape = (rows, *column.row_shape(atoms))
    text = column.dtype.startswith("|S")
    try:
        array = np.ascontiguousarray(values, dtype=np.bytes_ if text else np.float64)
    except (TypeError, ValueError):
        expected = "text" if text else "a number"
        raise InputError(f"expected {expected} for {column.name}", where=column.name) from None
    if text and array.itemsize > np.dtype(column.dtype).itemsize:
        raise InputError(f"{column.name} is longer than {np.dtype(column.dtype).itemsize} bytes", where=column.name)
    if array.shape != shape:
        raise InputError(f"wrong shape of {column.name}: {array.shape}", where=column.name, allowed=f"shape {shape}")
    if not text and not np.isfinite(array).all() and not (missing and not np.isinf(array).any()):
        raise InputError(
            f"NaN or infinity in {column.name}", where=column.name,
            allowed="finite numbers", remedy="correct it, or set nan_labels to missing to accept NaN",
        )  # fmt: skip
    return array.astype(column.dtype, copy=False)


# ---- in a journal -----------------------------------------------------------------------------------------------


def encode_header(batch: StructureBatch, rows: int) -> bytes:
    """Make the header of records that hold ``rows`` rows of batches like this."""
    known = {**KNOWN, **batch.definitions}
    columns = [(name, c.dtype, c.of, c.shape, c.units) for name in batch.columns for c in (known[name],)]
    return json.dumps({"group": batch.group, "rows": rows, "columns": columns}, ensure_ascii=False).encode()


def encode_body(batch: StructureBatch) -> bytes:
    """Make the body of a record: one column after the other."""
    parts: list[Any] = [np.ascontiguousarray(values) for values in batch.columns.values()]
    return b"".join(parts)


class BatchWriter:
    """Writes batches into a journal; makes the header of each kind of batch only once.

    Parameters
    ----------
    journal : the journal.

    """

    def __init__(self, journal: JournalWriter) -> None:
        self._journal = journal
        self._headers: dict[tuple[Any, ...], bytes] = {}

    def write(self, batch: StructureBatch) -> None:
        """Append all rows, in records of bounded size."""
        rows = batch.rows
        if rows > 1:
            size = sum(values.nbytes for values in batch.columns.values()) // rows
            most = max(1, RECORD_BYTES // size)
            if rows > most:
                for first in range(0, rows, most):
                    self.write(batch.part(slice(first, first + most)))
                return
        key = (batch.group, rows, *batch.columns)
        header = self._headers.get(key)
        if header is None:
            header = self._headers[key] = encode_header(batch, rows)
        self._journal.append(header, encode_body(batch))


@dataclass(frozen=True)
class RecordKind:
    """The contents of a header: what its records hold."""

    group: str
    rows: int
    columns: tuple[tuple[Column, int, int], ...]
    """each column with its offset and length in the body, bytes"""


@lru_cache(maxsize=4096)
def parse_header(header: bytes) -> RecordKind:
    """Parse a header."""
    values = json.loads(header)
    group, rows, offset, columns = values["group"], values["rows"], 0, []
    atoms = len(composition.species_of(group))
    for name, dtype, of, shape, units in values["columns"]:
        column = column_from_header(name, dtype, of, tuple(shape), units)
        columns.append((column, offset, rows * column.row_bytes(atoms)))
        offset += columns[-1][2]
    return RecordKind(group, rows, tuple(columns))


def empty(column: Column, rows: int, atoms: int) -> NDArray[Any]:
    """Make rows of a column in which every value is missing."""
    return np.full((rows, *column.row_shape(atoms)), column.missing, dtype=column.dtype)


def scatter(out: Columns, positions: NDArray[np.int64], record: RecordKind, bodies: NDArray[np.uint8]) -> None:
    """Copy the rows of records of one kind to their positions.

    Parameters
    ----------
    out : arrays to fill; other columns of the records are ignored.
    positions : first row of each record in these arrays, shape (records,).
    record, bodies : kind and bodies of the records; bodies are uint8, shape (records, length).

    """
    places = (positions[:, None] + np.arange(record.rows)).reshape(-1)
    for column, offset, length in record.columns:
        target = out.get(column.name)
        if target is not None:
            values = np.ascontiguousarray(bodies[:, offset : offset + length]).view(column.dtype)
            target[places] = values.reshape(len(places), *target.shape[1:])


def columns_of(records: Iterable[RecordKind]) -> dict[str, Column]:
    """Return all columns of some records, by name."""
    return {column.name: column for record in records for column, _, _ in record.columns}
