"""Segments: HDF5 files of named arrays that are written once and never change.

One rank creates a segment, any number of ranks fill it with raw writes, and it is then synced and renamed to its final
name. A segment with its final name is complete.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from scimill.artifacts import begins_with
from scimill.files import rename, storage_errors, sync
from scimill.parallel.world import World
from scimill.store import hdf5
from scimill.store.layout import Field
from scimill.store.seal import SEAL_BYTES, check_structure, make_seal, read_seal, write_seal

ALIGNMENT = 4096  # bytes

Attributes = Mapping[str, str | int | float | bool]


class SegmentWriter:
    """A segment open for writing on all ranks; opening and finishing are collective, writing is not.

    Parameters
    ----------
    world : the ranks.
    path : its final name, which `finish` gives it.
    datasets : every dataset with its number of rows.
    attributes : of the root group.

    """

    def __init__(
        self, world: World, path: Path, datasets: Sequence[tuple[Field, int]], attributes: Attributes | None = None
    ) -> None:
        self._world, self._path = world, path
        self._part = path.with_name(path.name + ".part")
        world.on_root(self._create, datasets, attributes or {})
        self._file = hdf5.open_for_writing(self._part, world, {})
        self._rows = {field.name: hdf5.Rows(self._file, field.name) for field, rows in datasets if rows}

    def _create(self, datasets: Sequence[tuple[Field, int]], attributes: Attributes) -> None:
        with storage_errors(self._part, "creating a segment"), hdf5.new_file(self._part, ALIGNMENT) as file:
            file.attrs.update(attributes)
            for field, rows in datasets:
                hdf5.create_dataset(file, field, rows)

    def write(self, name: str, first: int, rows: NDArray[Any]) -> None:
        """Write rows of a dataset, starting at row `first`."""
        with storage_errors(self._part, "writing a segment"):
            self._rows[name].write(first, rows)

    def finish(self) -> None:
        """Close the file, sync it to the disk and rename it to its final name."""
        with storage_errors(self._part, "writing a segment"):
            self._file.close()
        self._world.barrier()
        self._world.on_root(self._publish)

    def abandon(self) -> None:
        """Give up after a failure: remove the unfinished file, unless other ranks may still write it."""
        if self._world.size == 1:
            with contextlib.suppress(OSError, RuntimeError):  # HDF5 may try to write more to the full disk
                self._file.close()
            self._part.unlink(missing_ok=True)

    def _publish(self) -> None:
        with storage_errors(self._part, "syncing a segment"):
            sync(self._part, forget=True)
            write_seal(self._part, make_seal(self._part, []))
        rename(self._part, self._path)


def check_segment(path: Path) -> None:
    """Compare every byte of a segment with its seal; earlier versions wrote none.

    Raises
    ------
    ScimillError : it is damaged.
    """
    with storage_errors(path, "reading a segment"):
        if not begins_with(path, bytes(SEAL_BYTES)):
            check_structure(path, read_seal(path))


class Segment:
    """A segment open for reading on one rank; stays readable after it was removed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = hdf5.open_for_reading(path)
        self._datasets: dict[str, h5py.Dataset | None] = {}

    def _dataset(self, name: str) -> h5py.Dataset | None:
        """Return a dataset; cached, because finding it takes as long as reading some 100 kB."""
        if name not in self._datasets:
            found = self._file.get(name)
            self._datasets[name] = found if isinstance(found, h5py.Dataset) else None
        return self._datasets[name]

    def close(self) -> None:
        """Close the file."""
        self._datasets.clear()
        self._file.close()

    @property
    def attributes(self) -> dict[str, Any]:
        """Attributes of the root group."""
        return dict(self._file.attrs)

    def names(self, group: str = "/") -> list[str]:
        """Return the names in a group; empty if there is no such group."""
        found = self._file.get(group)
        return list(found) if isinstance(found, h5py.Group) else []

    def leaves(self) -> Iterator[str]:
        """Yield the paths of all groups that hold datasets."""
        found: list[str] = []

        def visit(name: str, item: Any) -> None:
            if isinstance(item, h5py.Group) and any(isinstance(part, h5py.Dataset) for part in item.values()):
                found.append(name)

        visit("/", self._file)
        self._file.visititems(visit)
        return iter(found)

    def has(self, name: str) -> bool:
        """Whether there is a dataset of this name."""
        return self._dataset(name) is not None

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a dataset."""
        return tuple(self._file[name].shape)

    def units(self, name: str) -> str:
        """Return the unit of a dataset, empty if it has none."""
        return str(self._file[name].attrs.get("units", ""))

    def read(self, name: str, first: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Read rows of a dataset."""
        with storage_errors(self.path, "reading a segment"):
            dataset = self._dataset(name)
            return np.asarray((self._file[name] if dataset is None else dataset)[first:stop])
