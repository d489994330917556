"""The fine run that coarse states and corrections are made of: its snapshots, and what is refused of it."""

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
from scimill.turbulence.params import Coarsening, Fine, Flow
from scimill.turbulence.snapshots import Snapshots, open_snapshots

SMALLEST = 8
"""Points along each side below which no coarse grid is useful."""

C = TypeVar("C")
Grid = NDArray[np.floating]
State = tuple[Grid, Grid]
"""Density and vorticity, each of shape (points, points)."""


class FineRun:
    """The snapshots of a fine run from a time on.

    Parameters
    ----------
    snapshots : the open store.
    start_time : the snapshots before it are left out.

    Attributes
    ----------
    rows : rows of the store that are not left out, member by member in the order of time.
    times, members : of these rows.

    Raises
    ------
    InputError : nothing is left.
    """

    def __init__(self, snapshots: Snapshots, start_time: float) -> None:
        self.snapshots = snapshots
        times = snapshots.times.ravel()
        self.rows = np.flatnonzero(times >= start_time)
        if not self.rows.size:
            allowed = f"at most {times.max():.6g}, the time of the last one"
            raise InputError(f"no snapshot from time {start_time:g} on", where=self.name, allowed=allowed)
        self.times, self.members = times[self.rows], self.rows // snapshots.count
        if np.ptp(np.bincount(self.members)):
            raise InputError("the members' snapshots are of other times", where=self.name)
        self._sound: set[int] = set()

    @property
    def name(self) -> str:
        """The store's path."""
        return str(self.snapshots.reader.path)

    def state(self, index: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Density and vorticity of the index-th of `rows`, float64, shape (points, points) each.

        Raises
        ------
        StorageError : its bytes are damaged.
        InputError : it holds values that are no numbers.
        """
        row = int(self.rows[index])
        if row not in self._sound:
            require_sound(self.snapshots.reader, row)
            self._sound.add(row)
        density, vorticity = self.snapshots.read(row % self.snapshots.count, row // self.snapshots.count)
        if not (np.isfinite(density).all() and np.isfinite(vorticity).all()):
            where = f"{self.name}, block {row}, time {self.times[index]:.6g}"
            raise InputError("the snapshot holds values that are no numbers", where=where, remedy="simulate it again")
        return density.astype(np.float64), vorticity.astype(np.float64)

    def origin(self, config: Coarsening) -> dict[str, Any]:
        """What a store that is made of this run keeps of it, by the names of `params.Flow` and `params.FineRunRecord`.

        Raises
        ------
        ConfigError : the factor gives no coarse grid.
        """
        checksums = self.snapshots.reader.column("crc32c")
        flow = {name: getattr(self.snapshots.physics, name) for name in parameters_of(Flow)}
        points = coarse_points(self.snapshots.points, config.factor)
        return {**flow, "points": points, "fine_crc32c": bytes_checksum(checksums, 0)}


def require_sound(reader: Reader, block: int) -> None:
    """Refuse a block whose bytes are not those that were written.

    Raises
    ------
    StorageError : they are damaged.
    """
    if damage := block_damage(reader, block):
        where = f"{reader.path}, block {block}"
        raise StorageError(f"the store is damaged: {damage}", where=where, remedy="run scimill verify on it")


@contextmanager
def open_fine(config: Fine, *, check: bool) -> Iterator[FineRun]:
    """Open the fine run of a configuration.

    Parameters
    ----------
    config : names it.
    check : see `Reader.open`.

    Raises
    ------
    InputError : not there, no store of snapshots, unfinished, or nothing is left of it.
    StorageError : its structure is damaged.
    """
    with open_snapshots(Path(config.fine), check=check) as snapshots:
        if any(field.name == "density_correction" for field in snapshots.reader.layout.fields):
            allowed = "a store of snapshots, as simulate and coarsen make"
            raise InputError("a store of corrections, not of snapshots", where=config.fine, allowed=allowed)
        yield FineRun(snapshots, config.start_time)


def coarse_points(points: int, factor: int) -> int:
    """Points of the coarse grid along each side.

    Raises
    ------
    ConfigError : the factor does not divide the fine grid, or leaves a grid that is odd or too small.
    """
    allowed = [f for f in range(1, points // SMALLEST + 1) if points % f == 0 and points // f % 2 == 0]
    if factor not in allowed:
        raise ConfigError(
            f"factor {factor} does not make an even coarse grid of {points} x {points} points",
            where="flag --factor",
            allowed=", ".join(map(str, allowed)),
        )
    return points // factor


def build_record(kind: type[C], config: Any, known: Mapping[str, Any]) -> C:
    """Record of a configuration and of what follows from the fine run, by name."""
    return build(kind, [Layer("the command", plain(config)), Layer(str(config.fine), known)])
