"""Copy a store into compressed or chunked datasets, for archives and for readers that need chunks.

The copy has the same datasets, attributes and ledger and the same reader, and its seal covers the whole file. One
process writes it: compression through parallel HDF5 is slow and has lost data.
"""

import dataclasses
from pathlib import Path

import h5py

from scimill.parallel.report import Progress
from scimill.store import hdf5
from scimill.store.layout import LEDGER
from scimill.store.output import Output, copying
from scimill.store.reader import Reader
from scimill.store.seal import make_seal, write_seal


@dataclasses.dataclass(frozen=True)
class Packing:
    """How a copy is stored: HDF5 filter ("gzip", "lzf" or "none"), its level, byte shuffling, rows per chunk."""

    compression: str
    level: int
    shuffle: bool
    chunk_rows: int

    def options(self, rows: int, shape: tuple[int, ...]) -> dict[str, object]:
        """Return the arguments of h5py's ``create_dataset``."""
        options: dict[str, object] = {"chunks": (max(1, min(self.chunk_rows, rows)), *shape)}
        if self.compression != "none":
            options |= {"compression": self.compression, "shuffle": self.shuffle}
        if self.compression == "gzip":
            options["compression_opts"] = self.level
        return options


def repack(source: Path, output: Output, packing: Packing) -> tuple[int, int]:
    """Copy a store; return the sizes of both files in bytes.

    Raises
    ------
    InputError : the source is not a store, or is unfinished.
    StorageError : the source is damaged, or the output exists or cannot be written.
    """
    with Reader.open(source) as reader:
        reader.require_complete()
        with copying(source, output, reader.layout.data_bytes) as target:
            with hdf5.new_file(target, output.alignment) as copy:
                copy.attrs.update(reader.file.attrs)
                _copy_datasets(reader, copy, packing)
            write_seal(target, make_seal(target, []))
    return source.stat().st_size, output.path.stat().st_size


def _copy_datasets(reader: Reader, copy: h5py.File, packing: Packing) -> None:
    layout = reader.layout
    progress = Progress(layout.data_bytes, unit="B", what="repack", enabled=True)
    done = 0
    for field, rows in layout.datasets():
        dataset = copy.create_dataset(
            field.name, (rows, *field.shape), field.dtype, **packing.options(rows, field.shape)
        )
        hdf5.set_attributes(dataset, field)
        for first in range(0, rows, packing.chunk_rows):
            dataset[first : first + packing.chunk_rows] = reader.file[field.name][first : first + packing.chunk_rows]
            done += min(packing.chunk_rows, rows - first) * field.row_bytes
            if progress.due():
                progress.update(done)
    ledger = copy.create_dataset(LEDGER, data=reader.ledger(), **packing.options(layout.blocks, ()))
    ledger.attrs["long_name"] = hdf5.LEDGER_NAME
    hdf5.name_dimensions(copy, layout)
    progress.close()
