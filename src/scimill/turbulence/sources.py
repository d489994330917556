"""The fine run from which coarse states and corrections are made: its snapshots, and checks of them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from scimill.config import Layer, build, parameters_of, plain
from scimill.errors import ConfigError, InputError, StorageError
from scimill.store.checksums import bytes_checksum
from scimill.store.reader import Reader
from scimill.store.verify import block_damage
from scimill.turbulence.params import Coarsening, FineRunSelection, Flow
from scimill.turbulence.snapshots import Snapshots, open_snapshots

MIN_POINTS = 8
"""Smallest useful number of points along each side of a coarse grid."""

C = TypeVar("C")
Grid = NDArray[np.floating]
State = tuple[Grid, Grid]
"""Density and vorticity, each of shape (points, points)."""


class FineRun:
    """The snapshots of a fine run at and after a given time.

    Parameters
    ----------
    snapshots : the open store.
    start_time : earlier snapshots are ignored.

    Attributes
    ----------
    rows : rows of the selected snapshots, member by member in order of time.
    times, members : time and member of each of these rows.

    Raises
    ------
    InputError : no snapshot is selected, or the members have different times.
    """

    def __init__(self, snapshots: Snapshots, start_time: float) -> None:
        self.snapshots = snapshots
        times = snapshots.times.ravel()
        self.rows = np.flatnonzero(times >= start_time)
        if not self.rows.size:
            allowed = f"at most {times.max():.6g}, the time of the last snapshot"
            raise InputError(f"no snapshot at or after time {start_time:g}", where=self.name, allowed=allowed)
        self.times, self.members = times[self.rows], self.rows // snapshots.count
        if np.ptp(np.bincount(self.members)):
            raise InputError(
                f"the members have different numbers of snapshots at or after time {start_time:g}", where=self.name
            )
        self._checked: set[int] = set()

    @property
    def name(self) -> str:
        """Path of the store."""
        return str(self.snapshots.reader.path)

    def state(self, index: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return density and vorticity of the index-th of `rows`, float64, shape (points, points) each.

        Raises
        ------
        StorageError : its bytes are damaged.
        InputError : it has NaN or infinite values.
        """
        row = int(self.rows[index])
        if row not in self._checked:
            require_undamaged(self.snapshots.reader, row)
            self._checked.add(row)
        density, vorticity = self.snapshots.read(row % self.snapshots.count, row // self.snapshots.count)
        if not (np.isfinite(density).all() and np.isfinite(vorticity).all()):
            where = f"{self.name}, block {row}, time {self.times[index]:.6g}"
            raise InputError("the snapshot has NaN or infinite values", where=where, remedy="rerun the simulation")
        return density.astype(np.float64), vorticity.astype(np.float64)

    def origin(self, config: Coarsening) -> dict[str, Any]:
        """Return what a derived store records of this run, named as in `params.Flow` and `params.FineRunRecord`.

        Raises
        ------
        ConfigError : the factor does not give a valid coarse grid.
        """
        checksums = self.snapshots.reader.column("crc32c")
        flow = {name: getattr(self.snapshots.physics, name) for name in parameters_of(Flow)}
        points = coarse_points(self.snapshots.points, config.factor)
        return {**flow, "points": points, "fine_crc32c": bytes_checksum(checksums, 0)}


def require_undamaged(reader: Reader, block: int) -> None:
    """Refuse a block with damaged bytes.

    Raises
    ------
    StorageError : its bytes are not those that were written.
    """
    if damage := block_damage(reader, block):
        where = f"{reader.path}, block {block}"
        raise StorageError(f"the store is damaged: {damage}", where=where, remedy="run scimill verify on it")


@contextmanager
def open_fine(config: FineRunSelection, *, check: bool) -> Iterator[FineRun]:
    """Open the fine run of a configuration.

    Parameters
    ----------
    config : path of its store, and the start time.
    check : see `Reader.open`.

    Raises
    ------
    InputError : missing, not a store of snapshots, unfinished, or without snapshots at or after the start time.
    StorageError : its structure is damaged.
    """
    with open_snapshots(Path(config.fine), check=check) as snapshots:
        if any(field.name == "density_correction" for field in snapshots.reader.layout.fields):
            allowed = "a store made by turbulence simulate, coarsen or rollout"
            raise InputError("this store holds corrections, not snapshots", where=config.fine, allowed=allowed)
        yield FineRun(snapshots, config.start_time)


def coarse_points(points: int, factor: int) -> int:
    """Return the points of the coarse grid along each side.

    Raises
    ------
    ConfigError : the factor does not divide the fine grid, or leaves a grid that is odd or too small.
    """
    allowed = [f for f in range(1, points // MIN_POINTS + 1) if points % f == 0 and points // f % 2 == 0]
    if factor not in allowed:
        raise ConfigError(
            f"factor {factor} does not give an even coarse grid from {points} x {points} points",
            where="flag --factor",
            allowed=", ".join(map(str, allowed)),
        )
    return points // factor


def build_record(kind: type[C], config: Any, known: Mapping[str, Any]) -> C:
    """Build the record of a configuration, completed with values known from the fine run."""
    return build(kind, [Layer("the command", plain(config)), Layer(str(config.fine), known)])
