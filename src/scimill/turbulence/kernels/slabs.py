"""Fields cut into slabs, along x on the grid and along ky in Fourier space, and the exchange between the two.

Each rank has whole batches of rows. So the same rows are transformed together on any number of ranks, and the last bits
of the results are the same.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import numba
import numpy as np
from numpy.typing import NDArray

from scimill.turbulence.kernels.fourier import Library, buffer, complex_pair, rows_per_batch, transforms

Indices = NDArray[np.int64]


class Team(Protocol):
    """The ranks that share a field, such as a `parallel.world.World`."""

    rank: int
    size: int

    def gather_all(self, value: Any) -> list[Any]:
        """Return the values of all ranks on all ranks."""

    def all_to_all(
        self, send: NDArray[Any], send_counts: Sequence[int], receive: NDArray[Any], receive_counts: Sequence[int]
    ) -> None:
        """Send successive parts of an array to the ranks in order, and receive their parts."""

    def pass_around(self, send: NDArray[Any], receive: NDArray[Any], step: int) -> None:
        """Send an array to the rank `step` ahead in the ring, and receive one from the rank `step` behind."""


class SingleRankTeam:
    """A team of one rank."""

    rank, size = 0, 1

    def gather_all(self, value: Any) -> list[Any]:
        """Return the value of the only rank."""
        return [value]

    def all_to_all(
        self, send: NDArray[Any], send_counts: Sequence[int], receive: NDArray[Any], receive_counts: Sequence[int]
    ) -> None:
        """Copy."""
        receive[:] = send

    def pass_around(self, send: NDArray[Any], receive: NDArray[Any], step: int) -> None:
        """Copy."""
        receive[...] = send


def split(count: int, batch: int, size: int) -> Indices:
    """Return the first item of each rank, and the end: whole batches of `count` items, spread as evenly as possible."""
    batches = -(-count // batch)
    return np.minimum(np.arange(size + 1) * batches // size * batch, count)


def max_ranks(points: int) -> int:
    """Return the largest number of ranks that can share a field: each needs a batch of rows."""
    return -(-points // rows_per_batch(points))


@dataclasses.dataclass(frozen=True)
class SlabBatch:
    """Rows `start` to `stop` of a slab, transformed together."""

    start: int
    stop: int


class Slabs:
    """The rows and columns of a field that a rank has.

    Parameters
    ----------
    points : grid points along each side.
    modes : number of modes kept along y.
    team : the ranks.

    Attributes
    ----------
    rows, columns : first row (x) and mode (ky) of the rank, and one past the last.
    row_batches, column_batches : batches to transform, counted from the first row or column of the slab.

    """

    def __init__(self, points: int, modes: int, team: Team) -> None:
        self.points, self.modes, self.team = points, modes, team
        self.batch = rows_per_batch(points)
        self.x, self.ky = split(points, self.batch, team.size), split(modes, self.batch, team.size)
        self.rows = (int(self.x[team.rank]), int(self.x[team.rank + 1]))
        self.columns = (int(self.ky[team.rank]), int(self.ky[team.rank + 1]))
        self.row_batches, self.column_batches = self._batches(*self.rows), self._batches(*self.columns)

    def _batches(self, start: int, stop: int) -> list[SlabBatch]:
        return [SlabBatch(first, min(first + self.batch, stop - start)) for first in range(0, stop - start, self.batch)]

    @property
    def height(self) -> int:
        """Number of own rows."""
        return self.rows[1] - self.rows[0]

    @property
    def width(self) -> int:
        """Number of own columns."""
        return self.columns[1] - self.columns[0]


class Exchange:
    """Transforms fields between the modes of own columns and the grid of own rows.

    To the grid: for each batch fill `columns` and call `columns_out`; call `to_rows`; for each batch use what `rows_in`
    returns. Back: for each batch fill `grid` and call `rows_out`; call `to_columns`; for each batch call
    `columns_in` and use `columns`.

    Parameters
    ----------
    slabs : rows and columns of the ranks.
    fields : number of fields.
    dtype : complex type of a mode.
    library : what transforms.

    Attributes
    ----------
    columns : modes of a batch, shape (fields · batch, at least points).
    grid : values of a batch to transform, shape (fields · batch, at least points).

    """

    def __init__(self, slabs: Slabs, fields: int, dtype: np.dtype[Any], library: Library) -> None:
        self._slabs, self._fields = slabs, fields
        self._by_columns = np.zeros(fields * slabs.points * slabs.width, dtype)
        self._by_rows = self._by_columns
        if slabs.team.size > 1:
            self._by_rows = np.zeros(fields * slabs.height * slabs.modes, dtype)
        rows, points, real = fields * slabs.batch, slabs.points, np.zeros(0, dtype).real.dtype
        self._lines, self.columns = complex_pair(rows, points, dtype, library)
        self.grid, self._rows = buffer(rows, points, real), buffer(rows, points // 2 + 1, dtype)
        self._x_forward, self._x_inverse = transforms(self._lines, self.columns, points, library)
        self._y_forward, self._y_inverse = transforms(self.grid, self._rows, points, library)

    def columns_out(self, batch: SlabBatch) -> None:
        """Transform a batch of columns along x and pack it for the exchange."""
        self._x_inverse()
        _pack_columns(self._lines, self._by_columns, *self._columns_of(batch))

    def columns_in(self, batch: SlabBatch) -> None:
        """Unpack a batch of columns and transform it along x."""
        _unpack_columns(self._lines, self._by_columns, *self._columns_of(batch))
        self._x_forward()

    def _columns_of(self, batch: SlabBatch) -> tuple[object, ...]:
        s = self._slabs
        return s.x, s.width, self._fields, s.batch, batch.start, batch.stop

    def rows_out(self, batch: SlabBatch) -> None:
        """Transform a batch of rows along y and pack its kept modes for the exchange."""
        _pack_rows(self._y_forward(), self._by_rows, *self._rows_of(batch))

    def rows_in(self, batch: SlabBatch) -> NDArray[Any]:
        """Unpack a batch of rows, set its other modes to zero, transform it along y, and return its values."""
        _unpack_rows(self._rows, self._by_rows, *self._rows_of(batch))
        return self._y_inverse()

    def _rows_of(self, batch: SlabBatch) -> tuple[object, ...]:
        s = self._slabs
        return s.ky, s.height, self._fields, s.batch, batch.start, batch.stop

    def to_rows(self) -> None:
        """Exchange columns for rows; collective."""
        s = self._slabs
        if s.team.size > 1:
            here, there = self._counts()
            s.team.all_to_all(self._by_columns, here, self._by_rows, there)

    def to_columns(self) -> None:
        """Exchange rows for columns; collective."""
        s = self._slabs
        if s.team.size > 1:
            there, here = self._counts()
            s.team.all_to_all(self._by_rows, here, self._by_columns, there)

    def _counts(self) -> tuple[list[int], list[int]]:
        """Return how many numbers are exchanged with each rank, from own columns and from own rows."""
        s = self._slabs
        by_columns, by_rows = np.diff(s.x) * s.width, np.diff(s.ky) * s.height
        return (self._fields * by_columns).tolist(), (self._fields * by_rows).tolist()


@numba.njit(cache=True)
def _pack_columns(columns, by_columns, x, width, fields, pitch, start, stop):  # type: ignore[no-untyped-def]
    for rank in range(len(x) - 1):
        first, height = x[rank], x[rank + 1] - x[rank]
        for field in range(fields):
            for i in range(height):
                target = fields * first * width + (field * height + i) * width + start
                for b in range(stop - start):
                    by_columns[target + b] = columns[field * pitch + b, first + i]


@numba.njit(cache=True)
def _unpack_columns(columns, by_columns, x, width, fields, pitch, start, stop):  # type: ignore[no-untyped-def]
    for rank in range(len(x) - 1):
        first, height = x[rank], x[rank + 1] - x[rank]
        for field in range(fields):
            for i in range(height):
                source = fields * first * width + (field * height + i) * width + start
                for b in range(stop - start):
                    columns[field * pitch + b, first + i] = by_columns[source + b]


@numba.njit(cache=True)
def _pack_rows(rows, by_rows, ky, height, fields, pitch, start, stop):  # type: ignore[no-untyped-def]
    for rank in range(len(ky) - 1):
        first, width = ky[rank], ky[rank + 1] - ky[rank]
        for field in range(fields):
            for b in range(stop - start):
                target = fields * first * height + (field * height + start + b) * width
                for k in range(width):
                    by_rows[target + k] = rows[field * pitch + b, first + k]


@numba.njit(cache=True)
def _unpack_rows(rows, by_rows, ky, height, fields, pitch, start, stop):  # type: ignore[no-untyped-def]
    for rank in range(len(ky) - 1):
        first, width = ky[rank], ky[rank + 1] - ky[rank]
        for field in range(fields):
            for b in range(stop - start):
                source = fields * first * height + (field * height + start + b) * width
                for k in range(width):
                    rows[field * pitch + b, first + k] = by_rows[source + k]
    for row in range(fields * pitch):
        for k in range(ky[-1], rows.shape[1]):
            rows[row, k] = 0
