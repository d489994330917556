"""Read a store block by block."""

import hashlib
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from scimill.errors import InputError
from scimill.store import hdf5
from scimill.store.checksums import row_checksums
from scimill.store.direct import Bytes
from scimill.store.layout import DONE, Layout, Table
from scimill.store.ledger import BlockLedger
from scimill.store.seal import check_structure, read_seal

Rows = NDArray[Any]


class Reader:
    """A store that one rank has opened for reading; usable as a context manager."""

    def __init__(self, path: Path, file: h5py.File) -> None:
        self.path = path
        self.file = file
        try:
            self.layout = Layout.from_json(file.attrs["layout"])
        except KeyError:
            file.close()
            raise InputError("an HDF5 file, but not a store", where=str(path)) from None
        self._ledger = BlockLedger(file, self.layout)
        self._datasets: dict[str, hdf5.Rows] = {}

    @classmethod
    def open(cls, path: Path, *, check: bool = True) -> Self:
        """Open a store.

        Parameters
        ----------
        path : the file.
        check : whether to check its structure first, which reads all of a repacked copy.

        Raises
        ------
        InputError : missing, or not a store.
        StorageError : its structure is damaged.
        """
        seal = read_seal(path)
        if check:
            check_structure(path, seal)
        return cls(path, hdf5.open_for_reading(path))

    def require_complete(self) -> None:
        """Refuse a store with pending blocks.

        Raises
        ------
        InputError : it is unfinished.
        """
        if self.count_pending():
            remedy = "finish it: run the command that made it with --resume"
            raise InputError("the store is unfinished", where=str(self.path), remedy=remedy)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()

    @property
    def provenance(self) -> dict[str, Any]:
        """The root attributes except the layout."""
        return {name: value for name, value in sorted(self.file.attrs.items()) if name != "layout"}

    def rows(self, block: int, name: str, count: int = 1, memory: Bytes | None = None) -> Rows:
        """Read the rows of a field in `count` blocks from `block` on, into `memory` if given."""
        size = self.layout.block_rows
        return self._dataset(name).read(block * size, (block + count) * size, memory)

    def table_rows(self, block: int, table: Table, name: str) -> Rows:
        """Read the rows of a table's field in a block."""
        used = min(int(self.ledger(block, block + 1)[table.counter][0]), table.capacity)
        return self.reserved_rows(block, table, name)[:used]

    def reserved_rows(self, block: int, table: Table, name: str, count: int = 1, memory: Bytes | None = None) -> Rows:
        """Read the rows of a table's field in `count` blocks from `block` on, used or not, into `memory` if given."""
        size = table.capacity
        return self._dataset(f"{table.name}/{name}").read(block * size, (block + count) * size, memory)

    def _dataset(self, name: str) -> hdf5.Rows:
        """Open a dataset; HDF5 takes longer to find one than to read 100 kB."""
        if name not in self._datasets:
            self._datasets[name] = hdf5.Rows(self.file, name)
        return self._datasets[name]

    def ledger(self, first: int = 0, last: int | None = None) -> NDArray[np.void]:
        """Read the ledger's rows of blocks from `first` to before `last`, or all."""
        return self._ledger.rows(first, last)

    def column(self, name: str) -> Rows:
        """Read a ledger column for all blocks."""
        return self._ledger.column(name)

    def count_pending(self) -> int:
        """Count the blocks that are not marked done."""
        return int(np.count_nonzero(self.column("state") != DONE))

    def identity(self) -> str:
        """Return a digest of the structure and of all blocks' checksums, which identifies a store."""
        digest = hashlib.sha256(self.layout.to_json().encode())
        digest.update(self.column("crc32c").tobytes())
        return digest.hexdigest()

    def checksums(self) -> dict[int, int]:
        """Return the checksums of done blocks with an intact ledger row."""
        ledger = self.ledger()
        sound = (ledger["state"] == DONE) & (ledger["row_crc32c"] == row_checksums(0, ledger))
        return {block: int(ledger["crc32c"][block]) for block in np.flatnonzero(sound).tolist()}

    def table_row_numbers(self, table: Table) -> NDArray[np.int64]:
        """Return the numbers of all used rows of a table, block by block."""
        counts = np.minimum(self.column(table.counter), table.capacity)
        starts = np.arange(self.layout.blocks) * table.capacity
        numbers = [start + np.arange(count) for start, count in zip(starts, counts, strict=True)]
        return np.concatenate([np.zeros(0, dtype=np.int64), *numbers])
