"""The columns of the database: names, units and missing values."""

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np

ID_LENGTH = 32  # bytes of a structure's id; fixed, because parallel HDF5 cannot write strings of variable length
TEXT_LENGTH = 64  # bytes of other strings

Of = Literal["system", "atomic"]


@dataclass(frozen=True)
class Column:
    """One column.

    Parameters
    ----------
    name : its name.
    units : its unit, "1" if it has none.
    long_name : its meaning.
    of : whether it belongs to the structure or to each atom.
    shape : shape of one value.
    dtype : NumPy name of its type.

    """

    name: str
    units: str
    long_name: str
    of: Of = "system"
    shape: tuple[int, ...] = ()
    dtype: str = "<f8"

    @property
    def missing(self) -> Any:
        """The missing value: NaN for numbers, an empty string for text. Never 0, which is a valid value."""
        return np.nan if self.dtype == "<f8" else np.zeros((), self.dtype)[()]

    def row_shape(self, atoms: int) -> tuple[int, ...]:
        """Return the shape of one row, for structures of ``atoms`` atoms."""
        return ((atoms, *self.shape)) if self.of == "atomic" else self.shape

    def row_bytes(self, atoms: int) -> int:
        """Return the size of one row, bytes."""
        return int(np.prod(self.row_shape(atoms), dtype=np.int64)) * np.dtype(self.dtype).itemsize


REQUIRED = (
    Column("coordinates", "Å", "Cartesian positions", "atomic", (3,)),
    Column("cell", "Å", "cell vectors, one per row; zero where there is none", shape=(3, 3)),
    Column("pbc", "1", "whether each cell vector is periodic", shape=(3,), dtype="|u1"),
    Column("test", "1", "1: held out for good, never trained on", dtype="|u1"),
    Column("uid", "1", "unique id", dtype=f"|S{ID_LENGTH}"),
    Column("permutation", "1", "place of each atom in the user's order", "atomic", dtype="<i2"),
    Column("geometry_hash", "1", "hash of the rounded geometry", dtype="<u8"),
)
LABELS = (
    Column("energy", "eV", "potential energy"),
    Column("forces", "eV/Å", "forces", "atomic", (3,)),
    Column("stress", "eV/Å^3", "stress, Voigt: xx, yy, zz, yz, xz, xy", shape=(6,)),
    Column("charges", "e", "partial charges", "atomic"),
    Column("magmoms", "1", "magnetic moments in Bohr magnetons", "atomic"),
    Column("dipole", "e Å", "dipole moment", shape=(3,)),
    Column("charge", "e", "total charge"),
    Column("spin", "1", "spin multiplicity"),
    Column("weight", "1", "weight in training"),
    Column("config_type", "1", "kind of configuration", dtype=f"|S{TEXT_LENGTH}"),
)
KNOWN = {column.name: column for column in (*REQUIRED, *LABELS)}
REQUIRED_NAMES = tuple(column.name for column in REQUIRED)


@cache
def column_from_header(name: str, dtype: str, of: Of, shape: tuple[int, ...], units: str) -> Column:
    """Return the column that a journal's header describes: a built-in one or a user's."""
    return KNOWN.get(name) or Column(name, units, "user's property", of, shape, dtype)
