"""Open and create HDF5 files the way that scimill needs them, and convert HDF5's errors."""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from scimill.errors import InputError
from scimill.parallel.world import World, mpi_info
from scimill.store.direct import Bytes
from scimill.store.layout import Field, Layout
from scimill.store.seal import SEAL_BYTES

WritePages = Callable[[Bytes, int], Future[None] | None]

ALIGNED_FROM = 65536  # bytes; only larger datasets are aligned


def is_parallel() -> bool:
    """Return whether h5py was built with MPI."""
    return bool(h5py.get_config().mpi)


def open_for_writing(path: Path, world: World, hints: Mapping[str, str]) -> h5py.File:
    """Open a store with complete structure for independent raw writes; collective, like closing it."""
    access = _access()
    if world.comm:
        access.set_fapl_mpio(world.comm, mpi_info(hints))
    else:
        access.set_sieve_buf_size(0)  # small writes reach the kernel at once: a killed process loses none
    return h5py.File(h5py.h5f.open(os.fsencode(path), h5py.h5f.ACC_RDWR, fapl=access))


class Rows:
    """The rows of a dataset, for writing without conversion.

    The spaces and the type that HDF5 needs for a write are made once. h5py's indexing makes them for every write, which
    takes about as long as writing 100 kB.

    Parameters
    ----------
    dataset : existing, contiguous; rows along its first axis.
    write_pages : given bytes and their offset in the file, starts to write them past HDF5 and returns a future, or None
        if it cannot.

    """

    def __init__(self, dataset: h5py.Dataset, write_pages: WritePages | None = None) -> None:
        self._id, self._type, self._space = dataset.id, dataset.id.get_type(), dataset.id.get_space()
        self._shape, self._write_pages, self._offset = dataset.shape[1:], write_pages, dataset.id.get_offset()
        self._memory: dict[int, h5py.h5s.SpaceID] = {}

    def write(self, first: int, rows: NDArray[np.generic]) -> Future[None] | None:
        """Write rows from `first` on, independently of other ranks; return a future if still writing.

        Parameters
        ----------
        first : number of the first row.
        rows : a C-contiguous array of the dataset's type, not to be changed until the write has ended.

        """
        count = (len(rows), *self._shape)
        if rows.shape != count:  # HDF5 would read past the array's end
            raise ValueError(f"rows of shape {rows.shape} for a dataset whose rows have shape {self._shape}")
        if self._write_pages is not None and rows.size:
            offset = self._offset + first * (rows.nbytes // len(rows))
            future = self._write_pages(rows.reshape(-1).view(np.uint8), offset)
            if future is not None:
                return future
        if len(rows) not in self._memory:
            self._memory[len(rows)] = h5py.h5s.create_simple(count)
        self._space.select_hyperslab((first, *(0 for _ in self._shape)), count)
        self._id.write(self._memory[len(rows)], self._space, rows, self._type)
        return None

    def write_part(self, first: int, offset: int, part: NDArray[np.generic]) -> None:
        """Write a part of some rows: the part's length along the second axis, from `offset` on."""
        if part.ndim != len(self._shape) + 1 or part.shape[2:] != self._shape[1:]:
            raise ValueError(f"a part of shape {part.shape} for a dataset whose rows have shape {self._shape}")
        if part.size:
            self._space.select_hyperslab((first, offset, *(0 for _ in self._shape[1:])), part.shape)
            self._id.write(h5py.h5s.create_simple(part.shape), self._space, part, self._type)


def open_for_reading(path: Path) -> h5py.File:
    """Open a store for this rank alone.

    Raises
    ------
    InputError : HDF5 cannot read it.

    """
    try:
        return h5py.File(h5py.h5f.open(os.fsencode(path), h5py.h5f.ACC_RDONLY, fapl=_access()))
    except OSError as error:
        raise InputError(f"HDF5 cannot open the file: {error}", where=str(path)) from None


def _access() -> h5py.h5p.PropFAID:
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    access.set_file_locking(False, True)  # stores have their own lock
    return access


def create(path: Path, layout: Layout, attributes: dict[str, str | int], alignment: int) -> list[tuple[int, int]]:
    """Create a file's whole structure; return offset and length of each dataset.

    Datasets get their places at creation and are never filled, so that later only data are written. The old file format
    is chosen on purpose: with newer ones a killed run leaves a mark, and HDF5 refuses to open the file.
    """
    with new_file(path, alignment) as file:
        file.attrs.update(attributes)
        return [create_dataset(file, field, rows) for field, rows in layout.datasets()]


def new_file(path: Path, alignment: int) -> h5py.File:
    """Create an HDF5 file with room for a seal."""
    return h5py.File(
        path,
        "w",
        libver=("earliest", "v108"),
        userblock_size=max(SEAL_BYTES, alignment),  # HDF5 aligns relative to the end of this block
        locking=False,
        alignment_threshold=ALIGNED_FROM,
        alignment_interval=alignment,
    )


def create_dataset(file: h5py.File, field: Field, rows: int) -> tuple[int, int]:
    """Create a dataset with its attributes; return its offset in the file and its length in bytes."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    properties.set_obj_track_times(False)
    links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    links.set_create_intermediate_group(True)
    space = h5py.h5s.create_simple((rows, *field.shape))
    type_ = h5py.h5t.py_create(np.dtype(field.dtype), logical=True)
    identifier = h5py.h5d.create(file.id, field.name.encode(), type_, space, dcpl=properties, lcpl=links)
    set_attributes(h5py.Dataset(identifier), field)
    return identifier.get_offset(), field.row_bytes * rows


def set_attributes(dataset: h5py.Dataset, field: Field) -> None:
    """Set a dataset's attributes, named as in the CF conventions."""
    dataset.attrs.update({"units": field.units, "long_name": field.long_name})
    if field.valid:
        dataset.attrs["valid_range"] = np.array(field.valid, dtype=field.dtype)
    if field.flags:
        dataset.attrs["flag_masks"] = np.array([1 << bit for bit in range(len(field.flags))], dtype=field.dtype)
        dataset.attrs["flag_meanings"] = " ".join(field.flags)


def library_version() -> tuple[int, int, int]:
    """Return the version of the HDF5 library that h5py has loaded."""
    major, minor, release = h5py.version.hdf5_version_tuple[:3]
    return major, minor, release
