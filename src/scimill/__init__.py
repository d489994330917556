"""scimill: mills simulations into training sets, on many ranks, into one HDF5 file."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from scimill.artifacts import Artifact

__version__ = "0.1.0"


def open(path: "str | Path") -> "Artifact":  # the name that reads best: scimill.open("droplets.h5")
    """Open a store, a training run, a dataset or a database for reading.

    Raises
    ------
    InputError : there is nothing, or nothing that scimill has made.
    """
    from scimill.artifacts import find  # here: `import scimill` loads neither MPI nor numpy

    return find(path)
