"""Open and create HDF5 files the way that scimill needs them, and convert HDF5's errors."""

import math
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from scimill.errors import InputError
from scimill.parallel.world import World, mpi_info
from scimill.store.direct import Bytes
from scimill.store.layout import BLOCK, LEDGER, ROW, Field, Layout
from scimill.store.seal import SEAL_BYTES

WritePages = Callable[[Bytes, int], Future[None] | None]

ALIGNED_FROM = 65536  # bytes; only larger datasets are aligned
LARGEST_WRITE = 1 << 30  # bytes; MPI counts in 32-bit integers, and Linux writes at most 2 GiB at once
LEDGER_NAME = "state and checksum of each block, and what its campaign counts"
NO_VARIABLE = "This is a netCDF dimension but not a netCDF variable.%10d"
"""Name of a dimension without values; see "Interoperability with HDF5" in the guide to netCDF."""


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
    """The rows of a dataset, read and written without conversion.

    The spaces and the type that HDF5 needs for a transfer are made once. h5py's indexing makes them every time, which
    takes about as long as writing 100 kB.

    Parameters
    ----------
    parent, name : file or group, and the path in it of an existing dataset; rows along its first axis. Contiguous if
        `write_pages` is given.
    write_pages : given bytes and their offset in the file, starts to write them past HDF5 and returns a future, or None
        if it cannot.

    """

    def __init__(self, parent: h5py.Group, name: str, write_pages: WritePages | None = None) -> None:
        self._id = h5py.h5d.open(parent.id, name.encode())
        self._type, self._space, self._offset = self._id.get_type(), self._id.get_space(), self._id.get_offset()
        self._length, *shape = self._space.shape
        self._shape, self._write_pages = tuple(shape), write_pages
        self._memory: dict[tuple[int, ...], h5py.h5s.SpaceID] = {}

    def read(self, first: int = 0, last: int | None = None, memory: Bytes | None = None) -> NDArray[Any]:
        """Read the rows from `first` to before `last`, or to the end; into `memory`, if given."""
        count = max(0, min(self._length, self._length if last is None else last) - first)
        shape = (count, *self._shape)
        size = self._dtype.itemsize * math.prod(shape)
        rows = np.empty(shape, self._dtype) if memory is None else memory[:size].view(self._dtype).reshape(shape)
        if size:
            space = self._space.copy()  # threads may read at once; a copy takes longer than to write a small field
            memory_space = self._select(space, (first, *(0 for _ in self._shape)), shape)
            self._id.read(memory_space, space, rows, self._type)
        return rows

    @cached_property
    def _dtype(self) -> np.dtype[Any]:
        return _numpy_type(self._type.encode())

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
        self._write((first, *(0 for _ in self._shape)), rows)
        return None

    def write_part(self, first: int, offset: int, part: NDArray[np.generic]) -> None:
        """Write a part of some rows: the part's length along the second axis, from `offset` on."""
        if part.ndim != len(self._shape) + 1 or part.shape[2:] != self._shape[1:]:
            raise ValueError(f"a part of shape {part.shape} for a dataset whose rows have shape {self._shape}")
        self._write((first, offset, *(0 for _ in self._shape[1:])), part)

    def _write(self, start: tuple[int, ...], values: NDArray[np.generic]) -> None:
        """Write values from a place on, in pieces that every library below can count."""
        for place, piece in pieces(start, values, LARGEST_WRITE):
            memory_space = self._select(self._space, place, piece.shape)
            self._id.write(memory_space, self._space, piece, self._type)

    def _select(self, space: h5py.h5s.SpaceID, start: tuple[int, ...], shape: tuple[int, ...]) -> h5py.h5s.SpaceID:
        """Select a part of the dataset in `space`; return a space of that shape for the memory."""
        if shape not in self._memory:
            self._memory[shape] = h5py.h5s.create_simple(shape)
        space.select_hyperslab(start, shape)
        return self._memory[shape]


@lru_cache(maxsize=64)  # translating the ledger's type takes longer than reading a hundred rows
def _numpy_type(encoded: bytes) -> np.dtype[Any]:
    """Return numpy's type for one of HDF5."""
    dtype: np.dtype[Any] = h5py.h5t.decode(encoded).dtype
    return dtype


def pieces(
    start: tuple[int, ...], values: NDArray[np.generic], largest: int
) -> Iterator[tuple[tuple[int, ...], NDArray[np.generic]]]:
    """Divide an array at a place of a dataset into contiguous pieces of at most `largest` bytes, if it is larger."""
    if not values.size:
        return
    if values.nbytes <= largest:
        yield start, values
        return
    axis = next(axis for axis, length in enumerate(values.shape) if length > 1)
    step = max(1, largest * values.shape[axis] // values.nbytes)
    before = (slice(None),) * axis
    for first in range(0, values.shape[axis], step):
        place = (*start[:axis], start[axis] + first, *start[axis + 1 :])
        yield from pieces(place, values[(*before, slice(first, first + step))], largest)


def open_for_reading(path: Path) -> h5py.File:
    """Open a store for this rank alone.

    Raises
    ------
    InputError : HDF5 cannot read it.

    """
    access = _access()
    access.set_sieve_buf_size(0)  # read what is asked for, not 64 KiB around it
    try:
        return h5py.File(h5py.h5f.open(os.fsencode(path), h5py.h5f.ACC_RDONLY, fapl=access))
    except OSError as error:
        raise InputError(f"HDF5 cannot open the file: {error}", where=str(path)) from None


def _access() -> h5py.h5p.PropFAID:
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    access.set_file_locking(False, True)  # stores have their own lock
    return access


def create(path: Path, layout: Layout, attributes: dict[str, str | int], alignment: int) -> list[tuple[int, int]]:
    """Create a file's whole structure; return offset and length of each dataset, the ledger last.

    Datasets get their places at creation and are never filled, so that later only data are written. The old file format
    is chosen on purpose: with newer ones a killed run leaves a mark, and HDF5 refuses to open the file.
    """
    with new_file(path, alignment) as file:
        file.attrs.update(attributes)
        extents = [create_dataset(file, field, rows) for field, rows in layout.datasets()]
        extents.append(create_ledger(file, layout))
        name_dimensions(file, layout)
        return extents


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
    dataset = _create(file, field.name, (rows, *field.shape), np.dtype(field.dtype))
    set_attributes(dataset, field)
    return dataset.id.get_offset(), field.row_bytes * rows


def create_ledger(file: h5py.File, layout: Layout) -> tuple[int, int]:
    """Create the ledger; return its offset in the file and its length in bytes."""
    dataset = _create(file, LEDGER, (layout.blocks,), layout.ledger_type)
    dataset.attrs["long_name"] = LEDGER_NAME
    return dataset.id.get_offset(), layout.blocks * layout.ledger_type.itemsize


def _create(file: h5py.File, name: str, shape: tuple[int, ...], dtype: "np.dtype[Any]") -> h5py.Dataset:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    properties.set_obj_track_times(False)
    links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    links.set_create_intermediate_group(True)
    type_ = h5py.h5t.py_create(dtype, logical=True)
    space = h5py.h5s.create_simple(shape)
    return h5py.Dataset(h5py.h5d.create(file.id, name.encode(), type_, space, dcpl=properties, lcpl=links))


def name_dimensions(file: h5py.File, layout: Layout) -> None:
    """Name the dimensions of all datasets, as netCDF does: so its readers, xarray among them, show them."""
    scales: dict[str, h5py.Dataset] = {}
    for field, rows in layout.datasets():
        first = f"{field.name.split('/')[0]}_{ROW}" if "/" in field.name else ROW
        for axis, (name, size) in enumerate(zip((first, *field.axis_names), (rows, *field.shape), strict=True)):
            if name not in scales:
                scales[name] = _dimension(file, name, size, layout)
            if scales[name].size != size:
                raise ValueError(f"the dimension {name} has {scales[name].size} and {size} elements")
            file[field.name].dims[axis].attach_scale(scales[name])
    file[LEDGER].dims[0].attach_scale(_dimension(file, BLOCK, layout.blocks, layout))


def _dimension(file: h5py.File, name: str, size: int, layout: Layout) -> h5py.Dataset:
    """Make a dimension: its coordinate, or one without values, which takes no space."""
    if coordinate := next((coordinate for coordinate in layout.coordinates if coordinate.name == name), None):
        scale = file.create_dataset(name, data=coordinate.first + coordinate.step * np.arange(size), track_times=False)
        scale.attrs.update({"units": coordinate.units, "long_name": coordinate.long_name})
        scale.make_scale(name)
        return scale
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_obj_track_times(False)
    space = h5py.h5s.create_simple((size,))
    scale = h5py.Dataset(h5py.h5d.create(file.id, name.encode(), h5py.h5t.IEEE_F32BE, space, dcpl=properties))
    scale.make_scale(NO_VARIABLE % size)
    return scale


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
