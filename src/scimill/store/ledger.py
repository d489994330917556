"""The ledger of a store: one row per block.

Since format 2 it is one dataset of rows, so that marking a block as done is one write. Stores of format 1 have a
dataset per column; they are read, verified and resumed as they are.
"""

from collections.abc import Callable, Mapping
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from scimill.store.checksums import row_checksums
from scimill.store.hdf5 import Rows
from scimill.store.layout import LEDGER, Layout


class BlockLedger:
    """The ledger of an open store.

    Parameters
    ----------
    file : the store.
    layout : its structure.

    """

    def __init__(self, file: h5py.File, layout: Layout) -> None:
        self._layout = layout
        is_group = isinstance(h5py.h5o.open(file.id, LEDGER.encode()), h5py.h5g.GroupID)
        names = [column.name for column in layout.columns] if is_group else []
        self._columns = {name: Rows(file, f"{LEDGER}/{name}") for name in names}
        self._rows = None if is_group else Rows(file, LEDGER)

    @property
    def is_by_column(self) -> bool:
        """Whether each column is a dataset, as in format 1."""
        return self._rows is None

    def rows(self, first: int = 0, last: int | None = None) -> NDArray[np.void]:
        """Read the rows of blocks from `first` to before `last`, or all."""
        if self._rows is not None:
            return self._rows.read(first, last)
        rows = np.empty(len(range(self._layout.blocks)[first:last]), self._layout.ledger_type)
        for name, column in self._columns.items():
            rows[name] = column.read(first, last)
        return rows

    def column(self, name: str) -> NDArray[Any]:
        """Read one column for all blocks."""
        return self._columns[name].read() if self.is_by_column else np.ascontiguousarray(self.rows()[name])

    def writer(self) -> Callable[[int, NDArray[np.void]], None]:
        """Return a function that writes the row of a block, independently of other ranks.

        In format 1 the state is written last. In format 2 a row that was written in part has a wrong checksum.
        """
        if (whole := self._rows) is not None:
            return lambda block, row: _discard(whole.write(block, row))
        columns = {**self._columns}
        columns["state"] = columns.pop("state")

        def write(block: int, row: NDArray[np.void]) -> None:
            for name, rows in columns.items():
                rows.write(block, np.ascontiguousarray(row[name]))

        return write


def _discard(_: object) -> None:
    """Ignore a value."""


def make_row(layout: Layout, block: int, values: Mapping[str, ArrayLike]) -> NDArray[np.void]:
    """Make the row of a block, shape (1,); its checksum is added.

    Raises
    ------
    ValueError : a column is missing.
    """
    row = np.zeros(1, layout.ledger_type)
    for column in layout.columns[:-1]:
        if column.name not in values:
            raise ValueError(f"the block has no {column.name} for the ledger")
        row[column.name] = np.asarray(values[column.name], dtype=column.dtype)
    row["row_crc32c"] = row_checksums(block, row)
    return row
