"""Read files of other programs in pieces: extended XYZ, ASE databases, ALF's HDF5, npz and npy."""

import contextlib
import io
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scimill.atoms.database.segments import Segment
from scimill.atoms.exchange.properties import Properties
from scimill.errors import InputError
from scimill.parallel.report import describe_count

ID_NAMES = ("_id", "uid")
SPECIES = "species"
NOT_LABELS = (SPECIES, "coordinates", "cell", "pbc", "test", "path", "permutation", *ID_NAMES)
"""Names in ALF and NumPy files that are not labels."""
ASE_RESULTS = ("free_energy", "energies", "stresses", "magmom")
"""Results of ASE calculators that have no column in the database; ignored without a report."""
ASE_ARRAYS = ("numbers", "positions", "tags", "momenta", "masses", "initial_magmoms", "initial_charges")


@dataclass(frozen=True)
class Piece:
    """A part of a file for one rank to read: frames or rows `first` to `stop`, and their place."""

    path: Path
    first: int
    stop: int
    place: Any = None


@dataclass(frozen=True)
class SourceStructures:
    """Structures of one stoichiometry as read from a source; arguments of `Database.batch`."""

    species: Any
    coordinates: NDArray[Any]
    cell: NDArray[Any] | None
    pbc: Any
    uid: Any
    test: Any
    labels: Mapping[str, Any]


def pieces(path: Path, rows: int) -> Iterator[Piece]:
    """Divide a file into pieces of at most ``rows`` structures.

    Raises
    ------
    InputError : the file is missing, damaged, or has an unknown format.

    """
    if not path.exists():
        raise InputError("no such file", where=str(path))
    with _reading(path):
        yield from _format(path)[0](path, rows)


def read(piece: Piece, properties: Properties) -> Iterator[SourceStructures]:
    """Read the structures of a piece in order.

    Raises
    ------
    InputError : the file is damaged.

    """
    with _reading(piece.path):
        yield from _format(piece.path)[1](piece, properties)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn any error of a reader into an `InputError`."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # readers of other formats may raise anything
        raise InputError(f"cannot read the file: {error}", where=str(path)) from None


def _format(
    path: Path,
) -> tuple[Callable[[Path, int], Iterator[Piece]], Callable[[Piece, Properties], Iterator[SourceStructures]]]:
    if path.is_dir():
        return (_npy_pieces, _read_npy)
    found = FORMATS.get(path.suffix.lower())
    if found is None:
        raise InputError(f"unknown file format {path.suffix!r}", where=str(path), allowed=", ".join(FORMATS))
    return found


# ---- extended XYZ -----------------------------------------------------------------------------------------------


def _xyz_pieces(path: Path, rows: int) -> Iterator[Piece]:
    """Find the frames by their atom counts."""
    with path.open("rb") as file:
        frame, first, begin = 0, 0, 0
        while line := file.readline():
            if not line.strip():
                continue  # blank lines at the end
            if not line.strip().isdigit():
                raise InputError(
                    f"frame {frame} begins with {line[:40].decode('utf-8', 'replace').strip()!r}",
                    where=str(path),
                    allowed="the number of atoms",
                )
            for _ in range(int(line) + 1):
                if not (line := file.readline()):
                    raise InputError(f"frame {frame} is incomplete", where=str(path))
            if not line.endswith(b"\n"):
                file.seek(0, 2)
            frame += 1
            if frame - first == rows:
                yield Piece(path, first, frame, (begin, file.tell()))
                first, begin = frame, file.tell()
        if frame > first:
            yield Piece(path, first, frame, (begin, file.tell()))


def _read_xyz(piece: Piece, properties: Properties) -> Iterator[SourceStructures]:
    from scimill.atoms.exchange.serial_ase import read_frames

    begin, end = piece.place
    with piece.path.open("rb") as file:
        file.seek(begin)
        text = file.read(end - begin).decode("utf-8")
    frame = piece.first
    try:
        for atoms in read_frames(io.StringIO(text)):
            yield from_atoms(atoms, properties)
            frame += 1
    except Exception as error:
        reason = error.what if isinstance(error, InputError) else f"cannot be read: {error}"
        raise InputError(f"frame {frame}: {reason}", where=str(piece.path)) from None


def from_atoms(atoms: Any, properties: Properties, uid: str = "") -> SourceStructures:
    """Convert ASE ``Atoms``: labels come from the calculator's results, ``arrays`` and ``info``."""
    values = dict(atoms.calc.results) if atoms.calc else {}
    values |= {name: value for name, value in atoms.arrays.items() if name not in ASE_ARRAYS}
    values |= atoms.info
    uid = str(values.pop("uid", uid))
    test = bool(values.pop("test", False))
    values.pop("path", None)
    for name in ASE_RESULTS:
        if name not in properties.by_name:
            values.pop(name, None)
    cell = np.asarray(atoms.cell) if atoms.cell.rank else None
    return SourceStructures(
        atoms.numbers,
        properties.lengths("coordinates", atoms.positions)[None],
        None if cell is None else properties.lengths("cell", cell)[None],
        atoms.pbc,
        [uid] if uid else (),
        [test],
        properties.labels({name: value for name, value in values.items() if value is not None}),
    )


# ---- ASE databases ----------------------------------------------------------------------------------------------


def _ase_pieces(path: Path, rows: int) -> Iterator[Piece]:
    from scimill.atoms.exchange.serial_ase import connect

    with connect(path) as connection:
        ids = [row.id for row in connection.select(columns=["id"], include_data=False)]
    for first in range(0, len(ids), rows):
        yield Piece(path, first, min(first + rows, len(ids)), ids[first : first + rows])


def _read_ase(piece: Piece, properties: Properties) -> Iterator[SourceStructures]:
    from scimill.atoms.exchange.serial_ase import connect

    with connect(piece.path) as connection:
        for number in piece.place:
            row = connection.get(id=number)
            atoms = row.toatoms()
            atoms.info |= row.key_value_pairs
            yield from_atoms(atoms, properties, row.unique_id)


# ---- ALF's HDF5 files -------------------------------------------------------------------------------------------


def _h5_pieces(path: Path, rows: int) -> Iterator[Piece]:
    with contextlib.closing(Segment(path)) as file:
        for group in file.leaves():
            count = _count_rows(file, group)
            for first in range(0, count, rows):
                yield Piece(path, first, min(first + rows, count), group)


def _count_rows(file: Segment, group: str) -> int:
    """Count the rows of a group; check that all arrays agree, since ALF omits missing cells."""
    count = file.shape(f"{group}/coordinates")[0] if file.has(f"{group}/coordinates") else 0
    for name in file.names(group):
        shape = file.shape(f"{group}/{name}")
        if name != SPECIES and shape[:1] != (count,):
            raise InputError(
                f"{name} has shape {shape} for {describe_count(count, 'structure')}",
                where=f"{file.path}, group {group}",
                allowed="one row per structure",
            )  # fmt: skip
    if not count:
        raise InputError("the group is empty", where=f"{file.path}, group {group}", allowed="at least one structure")
    return count


def _read_h5(piece: Piece, properties: Properties) -> Iterator[SourceStructures]:
    with contextlib.closing(Segment(piece.path)) as file:
        group = piece.place
        wanted = [name for name in file.names(group) if name != SPECIES]
        arrays = {name: file.read(f"{group}/{name}", piece.first, piece.stop) for name in wanted}
        species = file.read(f"{group}/{SPECIES}")
    arrays[SPECIES] = (
        species if species.ndim == 2 else np.broadcast_to(species, (len(arrays["coordinates"]), *species.shape))
    )
    yield from _by_species(arrays, properties)


def _by_species(arrays: Mapping[str, NDArray[Any]], properties: Properties) -> Iterator[SourceStructures]:
    """Group rows by species; padding atoms have number 0."""
    species = arrays[SPECIES]
    if species.dtype.kind == "O":
        species = np.array([[_text(s) for s in row] for row in species])
    kinds, kind = np.unique(species, axis=0, return_inverse=True)
    for number, atoms in enumerate(kinds):
        rows = np.flatnonzero(kind == number)
        real = atoms != 0 if atoms.dtype.kind in "iu" else np.ones(len(atoms), dtype=bool)
        yield _rows_of(arrays, rows, atoms[real], real, properties)


def _rows_of(
    arrays: Mapping[str, NDArray[Any]],
    rows: NDArray[np.int64],
    species: NDArray[Any],
    real: NDArray[np.bool_],
    properties: Properties,
) -> SourceStructures:
    padded = {name: array[rows] for name, array in arrays.items()}
    atomic = {found.column.name for found in properties.by_name.values() if found.column.of == "atomic"}
    labels = properties.labels(
        {name: array for name, array in padded.items() if name not in NOT_LABELS}, lead=len(rows)
    )
    ids = next((padded[name] for name in ID_NAMES if name in padded), ())
    cell = padded.get("cell")
    return SourceStructures(
        species,
        properties.lengths("coordinates", padded["coordinates"])[:, real],
        None if cell is None else properties.lengths("cell", cell),
        padded.get("pbc"),
        [_text(uid) for uid in ids],
        padded.get("test"),
        {name: np.asarray(v)[:, real] if name in atomic else v for name, v in labels.items()},
    )


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


# ---- NumPy's files ----------------------------------------------------------------------------------------------


def _npy_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Open the arrays of an npz file or a folder of ``data-NAME.npy``; memory-map uncompressed ones."""
    if path.is_dir():
        return {p.stem.removeprefix("data-"): np.load(p, mmap_mode="r") for p in sorted(path.glob("data-*.npy"))}
    with zipfile.ZipFile(path) as archive:
        return {entry.filename.removesuffix(".npy"): _member(path, archive, entry) for entry in archive.infolist()}


def _member(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read_header(file)
        if entry.compress_type == zipfile.ZIP_STORED and not fortran and np.prod(shape):
            return np.memmap(path, dtype, "r", _data_offset(path, entry) + file.tell(), shape)
    with archive.open(entry) as file:
        return np.asarray(np.lib.format.read_array(file, allow_pickle=False))


def _data_offset(path: Path, entry: zipfile.ZipInfo) -> int:
    """Return the offset of an entry's data: after 30 bytes, name and extra field (APPNOTE.TXT 4.3.7)."""
    with path.open("rb") as file:
        file.seek(entry.header_offset)
        header = file.read(30)
    return entry.header_offset + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")


def _npy_pieces(path: Path, rows: int) -> Iterator[Piece]:
    arrays = _npy_arrays(path)
    missing = {SPECIES, "coordinates"} - arrays.keys()
    if missing:
        raise InputError(f"no array {sorted(missing)[0]!r}", where=str(path), allowed="species, coordinates, …")
    count = len(arrays["coordinates"])
    wrong = next((name for name, array in arrays.items() if array.shape[:1] != (count,)), None)
    if wrong or not count:
        raise InputError(
            f"{wrong or 'coordinates'} has shape {arrays[wrong or 'coordinates'].shape}", where=str(path),
            allowed=f"one row for each of {describe_count(count, 'structure')}" if count else "at least one structure",
        )  # fmt: skip
    for first in range(0, count, rows):
        yield Piece(path, first, min(first + rows, count))


def _read_npy(piece: Piece, properties: Properties) -> Iterator[SourceStructures]:
    arrays = _npy_arrays(piece.path)
    yield from _by_species({n: np.asarray(a[piece.first : piece.stop]) for n, a in arrays.items()}, properties)


FORMATS = {
    # suffix: (divides a file into pieces, reads a piece)
    ".xyz": (_xyz_pieces, _read_xyz),
    ".extxyz": (_xyz_pieces, _read_xyz),
    ".db": (_ase_pieces, _read_ase),
    ".json": (_ase_pieces, _read_ase),
    ".aselmdb": (_ase_pieces, _read_ase),
    ".h5": (_h5_pieces, _read_h5),
    ".hdf5": (_h5_pieces, _read_h5),
    ".npz": (_npy_pieces, _read_npy),
}
