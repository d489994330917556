"""What is kept of every structure: the columns, their units and what stands for a missing value."""

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np

ID_LENGTH = 32  # bytes of a structure's id; fixed, since parallel HDF5 writes no texts of variable length
TEXT_LENGTH = 64  # bytes of other texts

Of = Literal["system", "atomic"]


@dataclass(frozen=True)
class Column:
    """One column.

    Parameters
    ----------
    name : its name.
    units : its unit, "1" where it has none.
    long_name : its meaning.
    of : whether it belongs to the structure or to each atom.
    shape : shape of one value.
    dtype : numpy's name of its type.

    """

    name: str
    units: str
    long_name: str
    of: Of = "system"
    shape: tuple[int, ...] = ()
    dtype: str = "<f8"

    @property
    def missing(self) -> Any:
        """The value of a row that has none: NaN for numbers, an empty text. Never 0: that is a value."""
        return np.nan if self.dtype == "<f8" else np.zeros((), self.dtype)[()]

    def row_shape(self, atoms: int) -> tuple[int, ...]:
        """Shape of one row of a structure of so many atoms."""
        return ((atoms, *self.shape)) if self.of == "atomic" else self.shape

    def row_bytes(self, atoms: int) -> int:
        """Bytes of one row."""
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
def by_key(name: str, dtype: str, of: Of, shape: tuple[int, ...], units: str) -> Column:
    """Column of a journal's header: a known one, or a user's."""
    return KNOWN.get(name) or Column(name, units, "user's property", of, shape, dtype)
