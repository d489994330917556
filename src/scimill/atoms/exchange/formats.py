"""Write sets for other programs: ALF's HDF5, NumPy files, JSON, extended XYZ, ASE databases."""

import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scimill.atoms.database.batch import Columns
from scimill.atoms.database.columns import Column
from scimill.atoms.database.segments import SegmentWriter
from scimill.atoms.kernels.composition import SYMBOLS, species_of
from scimill.parallel.world import World
from scimill.store.layout import Field

PATH = Column("path", "1", "place in the database", dtype="|S96")
NOT_EXPORTED = ("test", "geometry_hash")


@dataclass(frozen=True)
class Contents:
    """The planned contents of a set: number of rows and columns of each group."""

    rows: Mapping[str, int]
    columns: Mapping[str, Sequence[Column]]

    @property
    def every_column(self) -> dict[str, Column]:
        """Columns of any group, by name."""
        return {column.name: column for columns in self.columns.values() for column in columns}

    @property
    def most_atoms(self) -> int:
        """Atoms of the largest structure."""
        return max((len(species_of(group)) for group in self.rows), default=0)


class PartWriter(ABC):
    """Writes one set."""

    @abstractmethod
    def write(self, group: str, columns: Columns) -> None:
        """Append rows of a group; finish one group before the next, in the order of the contents."""

    @abstractmethod
    def close(self) -> None:
        """Finish the set."""


class AlfWriter(PartWriter):
    """ALF's layout (pyanitools): a group per stoichiometry, species symbols, ids as ``_id``, ``path``."""

    def __init__(self, path: Path, contents: Contents) -> None:
        fields: list[tuple[Field, int]] = []
        for group, rows in contents.rows.items():
            atoms = len(species_of(group))
            fields.append((Field(f"{group}/species", "|S2", "1", "chemical symbols"), atoms))
            for c in contents.columns[group]:
                name = f"{group}/{_alf_name(c.name)}"
                fields.append((Field(name, c.dtype, c.units, c.long_name, c.row_shape(atoms)), rows))
        self._writer = SegmentWriter(World(None), path, fields)
        for group in contents.rows:
            symbols = np.array([SYMBOLS[number] for number in species_of(group)], dtype="S2")
            self._writer.write(f"{group}/species", 0, symbols)
        self._next = dict.fromkeys(contents.rows, 0)

    def write(self, group: str, columns: Columns) -> None:
        """Append rows."""
        for name, values in columns.items():
            self._writer.write(f"{group}/{_alf_name(name)}", self._next[group], values)
        self._next[group] += len(columns["uid"])

    def close(self) -> None:
        """Finish the set."""
        self._writer.finish()


def _alf_name(name: str) -> str:
    return "_id" if name == "uid" else name


class NpyWriter(PartWriter):
    """hippynn's layout: a folder of ``data-NAME.npy`` with all stoichiometries; species 0 is padding."""

    def __init__(self, path: Path, contents: Contents) -> None:
        path.mkdir()
        rows, atoms = sum(contents.rows.values()), contents.most_atoms
        self._columns = contents.every_column
        self._arrays = {
            name: self._array(path, name, c.dtype, (rows, *c.row_shape(atoms))) for name, c in self._columns.items()
        }
        self._arrays["species"] = self._array(path, "species", "|u1", (rows, atoms))
        self._next = 0

    @staticmethod
    def _array(path: Path, name: str, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
        file = path / f"data-{name}.npy"
        if not np.prod(shape, dtype=np.int64):  # an empty file cannot be mapped
            empty: NDArray[Any] = np.zeros(shape, dtype)
            np.save(file, empty)
            return empty
        return np.lib.format.open_memmap(file, "w+", np.dtype(dtype), shape)

    def write(self, group: str, columns: Columns) -> None:
        """Append rows."""
        species = species_of(group)
        span = slice(self._next, self._next + len(columns["uid"]))
        self._next = span.stop
        self._arrays["species"][span, : len(species)] = species
        for name, column in self._columns.items():
            if name not in columns:
                self._arrays[name][span] = column.missing
            elif column.of == "atomic":
                self._arrays[name][span, : len(species)] = columns[name]
            else:
                self._arrays[name][span] = columns[name]

    def close(self) -> None:
        """Finish the set."""
        for array in self._arrays.values():
            if isinstance(array, np.memmap):
                array.flush()


class NpzWriter(PartWriter):
    """hippynn's layout in one npz file."""

    def __init__(self, path: Path, contents: Contents) -> None:
        self._path, self._folder = path, path.with_name(path.name + ".parts")
        shutil.rmtree(self._folder, ignore_errors=True)
        self._writer = NpyWriter(self._folder, contents)

    def write(self, group: str, columns: Columns) -> None:
        """Append rows."""
        self._writer.write(group, columns)

    def close(self) -> None:
        """Finish the set."""
        self._writer.close()
        files = sorted(self._folder.glob("data-*.npy"))
        np.savez(self._path, **{p.stem.removeprefix("data-"): np.load(p, mmap_mode="r") for p in files})
        shutil.rmtree(self._folder)


class JsonWriter(PartWriter):
    """One JSON object: the arrays of each stoichiometry as lists. Held in memory, so only for small sets."""

    def __init__(self, path: Path, contents: Contents) -> None:
        self._path = path
        self._values: dict[str, dict[str, list[Any]]] = {
            group: {"species": species_of(group).tolist(), **{c.name: [] for c in contents.columns[group]}}
            for group in contents.rows
        }

    def write(self, group: str, columns: Columns) -> None:
        """Append rows."""
        for name, values in columns.items():
            self._values[group][name] += _plain(values)

    def close(self) -> None:
        """Finish the set."""
        self._path.write_text(json.dumps(self._values, allow_nan=False) + "\n", "utf-8")


def _plain(values: NDArray[Any]) -> list[Any]:
    """Convert an array for JSON: bytes become strings, missing numbers become null."""
    if values.dtype.kind == "S":
        return [value.decode() for value in values.tolist()]
    if values.dtype.kind == "f" and np.isnan(values).any():
        missing = values.astype(object)
        missing[np.isnan(values)] = None
        return list(missing.tolist())
    return list(values.tolist())


class FrameWriter(PartWriter):
    """Extended XYZ or an ASE database, row by row; atoms in the user's original order."""

    def __init__(self, path: Path, contents: Contents) -> None:
        self._path, self._columns = path, contents.every_column
        self._path.unlink(missing_ok=True)
        if path.suffix in (".xyz", ".extxyz"):
            self._path.touch()

    def write(self, group: str, columns: Columns) -> None:
        """Append rows."""
        from scimill.atoms.exchange import serial_ase

        frames = [serial_ase.to_atoms(species_of(group), row, self._columns) for row in _rows(columns)]
        serial_ase.write_frames(self._path, frames)

    def close(self) -> None:
        """Do nothing: every row is already written."""


def _rows(columns: Columns) -> list[dict[str, Any]]:
    return [{name: values[row] for name, values in columns.items()} for row in range(len(columns["uid"]))]


FORMATS: dict[str, tuple[str, Callable[[Path, Contents], PartWriter]]] = {
    # name: (suffix of its files, their writer)
    "h5": (".h5", AlfWriter),
    "npz": (".npz", NpzWriter),
    "npy": ("", NpyWriter),
    "json": (".json", JsonWriter),
    "extxyz": (".xyz", FrameWriter),
    "ase-db": (".db", FrameWriter),
}


def open_part(path: Path, form: str, contents: Contents) -> PartWriter:
    """Open a writer for a set; the path has no suffix, which the format adds."""
    suffix, writer = FORMATS[form]
    return writer(path.with_name(path.name + suffix), contents)
