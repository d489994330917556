"""Reader of stores of turbulence: trajectories of snapshots on one grid."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scimill.config import parameters_of, parse_yaml
from scimill.errors import InputError
from scimill.store.reader import Reader
from scimill.turbulence.kernels.equations import FlowPhysics
from scimill.turbulence.params import Flow

Grid = NDArray[np.floating]


class Snapshots:
    """The snapshots of a store.

    Attributes
    ----------
    physics : parameters of the equations, and the box.
    points : grid points along each side.
    members : number of trajectories.
    times : float64, shape (members, snapshots).
    values : the stored configuration.

    """

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        names = {field.name: field for field in reader.layout.fields}
        if not {"density", "vorticity", "time", "member"} <= names.keys():
            allowed = "a store with density, vorticity, time and member"
            raise InputError("the store holds no snapshots of turbulence", where=str(reader.path), allowed=allowed)
        self.values = parse_yaml(str(reader.provenance["config"]), f"{reader.path}, config").values
        self.physics = physics(self.values)
        self.points = names["density"].shape[0]
        member = np.asarray(reader.file["member"][:])
        self.members = int(member.max()) + 1
        self.times: NDArray[np.float64] = np.asarray(reader.file["time"][:]).reshape(self.members, -1)

    @property
    def count(self) -> int:
        """Number of snapshots per member."""
        return int(self.times.shape[1])

    def read(self, snapshot: int, member: int = 0, rows: slice = slice(None)) -> tuple[Grid, Grid]:
        """Return density and vorticity of a snapshot, each of shape (x, y), or of the given rows (x) only."""
        return read_state(self.reader, member * self.count + snapshot, rows)

    def diagnostics(self, name: str, member: int = 0) -> NDArray[np.float64]:
        """Return all samples of a diagnostic of a member in order of time, by its name in the table."""
        blocks = range(member * self.count, (member + 1) * self.count)
        table = self.reader.layout.tables[0]
        return np.concatenate([self.reader.table_rows(block, table, name) for block in blocks])


def read_state(reader: Reader, row: int, rows: slice = slice(None)) -> tuple[Grid, Grid]:
    """Return density and vorticity of a row of a store."""
    return np.asarray(reader.file["density"][row, rows]), np.asarray(reader.file["vorticity"][row, rows])


def physics(values: Any) -> FlowPhysics:
    """Return the physics of a configuration: an object with the parameters of `params.Flow`, or its values by name."""
    known = values if isinstance(values, dict) else vars(values)
    return FlowPhysics(**{name: known[name] for name in parameters_of(Flow)})


@contextmanager
def open_snapshots(path: Path, *, check: bool = True) -> Iterator[Snapshots]:
    """Open a finished store of turbulence.

    Raises
    ------
    InputError : missing, not a store, unfinished, or without snapshots.
    StorageError : damaged.
    """
    with Reader.open(path, check=check) as reader:
        reader.require_complete()
        yield Snapshots(reader)
