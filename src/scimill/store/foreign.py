"""HDF5 and NetCDF-4 files in other projects' layouts, written by one process from a description."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike

from scimill.errors import InputError
from scimill.store.output import STRUCTURE_BYTES, Output, copying
from scimill.store.seal import MAGIC

Piece = tuple[str, Any, ArrayLike]
"""Path of a dataset, a numpy index, and the values to write there."""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One dataset of a foreign file.

    Parameters
    ----------
    shape, dtype : as in numpy.
    attributes : its attributes.
    dimensions : names of its axes, for NetCDF.
    chunks, compression : as in h5py; contiguous if not given.
    can_grow : whether other programs may append along its first axis.

    """

    shape: tuple[int, ...]
    dtype: str
    attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    dimensions: tuple[str, ...] = ()
    chunks: tuple[int, ...] | None = None
    compression: str | None = None
    can_grow: bool = False

    @property
    def bytes(self) -> int:
        """Bytes of its values."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


@dataclasses.dataclass(frozen=True)
class Content:
    """Content of a foreign file.

    Parameters
    ----------
    datasets : by path; the groups in the paths are made too.
    attributes : by path of a group, "/" for the root; groups with attributes only are made too.
    pieces : yields the values piece by piece, so that only one piece is in memory.

    """

    datasets: Mapping[str, Dataset]
    attributes: Mapping[str, Mapping[str, Any]]
    pieces: Callable[[], Iterator[Piece]]

    @property
    def bytes(self) -> int:
        """Bytes of all values."""
        return sum(dataset.bytes for dataset in self.datasets.values())


def write_hdf5(content: Content, source: Path, output: Output) -> None:
    """Write an HDF5 file.

    Raises
    ------
    StorageError : the output exists, or cannot be written.
    """
    with (
        copying(source, output, content.bytes + STRUCTURE_BYTES) as path,
        h5py.File(path, "w", locking=False) as file,
    ):
        for group, attributes in content.attributes.items():
            file.require_group(group).attrs.update({key: _stored(value) for key, value in attributes.items()})
        for name, dataset in content.datasets.items():
            made = file.create_dataset(
                name,
                dataset.shape,
                dataset.dtype,
                chunks=dataset.chunks,
                compression=dataset.compression,
                maxshape=(None, *dataset.shape[1:]) if dataset.can_grow else None,
            )
            made.attrs.update({key: _stored(value) for key, value in dataset.attributes.items()})
        _fill(file, content)


def _stored(value: Any) -> Any:
    """Convert an attribute for HDF5: a list of names stays a list, even if empty."""
    return np.array(value, dtype=h5py.string_dtype()) if isinstance(value, list) else value


def write_netcdf(content: Content, source: Path, output: Output) -> None:
    """Write a NetCDF-4 file with the dimensions that its datasets name.

    Raises
    ------
    StorageError : the output exists, or cannot be written.
    """
    import h5netcdf

    with (
        copying(source, output, content.bytes + STRUCTURE_BYTES) as path,
        h5netcdf.File(path, "w") as file,
    ):
        for dataset in content.datasets.values():
            for name, length in zip(dataset.dimensions, dataset.shape, strict=True):
                if name not in file.dimensions:
                    file.dimensions[name] = length
        file.attrs.update(content.attributes.get("/", {}))
        for name, dataset in content.datasets.items():
            made = file.create_variable(name, dataset.dimensions, np.dtype(dataset.dtype))
            made.attrs.update(dataset.attributes)
        _fill(file, content)


def _fill(file: Any, content: Content) -> None:
    for name, place, values in content.pieces():
        file[name][place] = values


def is_store(path: Path) -> bool:
    """Return whether a file begins like a store.

    Raises
    ------
    InputError : it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC.encode()
    except OSError as error:
        raise InputError.unreadable("file", error, path) from None


def read_hdf5(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray[Any, Any]]:
    """Read the named datasets that exist at the root of an HDF5 or NetCDF-4 file.

    Raises
    ------
    InputError : it is not such a file, or is damaged.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            return {name: np.asarray(file[name][()]) for name in names if isinstance(file.get(name), h5py.Dataset)}
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"HDF5 cannot read the file: {error}", where=str(path)) from None
