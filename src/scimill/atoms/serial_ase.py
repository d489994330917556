"""ASE, with each rank for itself.

Where mpi4py is loaded ASE takes all ranks for its own: its readers broadcast what rank 0 has read, and its databases
write on rank 0 only. Here every rank reads, writes and evaluates its own part; so ASE is told that there is but one.
"""

from pathlib import Path
from typing import Any

import ase.parallel

ase.parallel.world.comm = ase.parallel.DummyMPI()

import ase.db  # noqa: E402
import ase.io  # noqa: E402


def connect(path: Path) -> Any:
    """Open an ASE database."""
    return ase.db.connect(path)  # type: ignore[no-untyped-call]


def read_frames(file: Any) -> Any:
    """Read the frames of an open extended XYZ file one after the other."""
    return ase.io.iread(file, ":", format="extxyz")
