"""scimill: generate training data with many ranks into one parallel HDF5 file, and train on it."""

from typing import TYPE_CHECKING

from scimill.version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from scimill.artifacts import Artifact


__all__ = ["__version__", "open"]


def open(path: "str | Path") -> "Artifact":  # shadows the builtin, so that scimill.open("droplets.h5") works
    """Open a store, a training run, a dataset or a database for reading.

    Raises
    ------
    InputError : the path does not exist, or scimill did not make it.
    """
    from scimill.artifacts import find  # here: `import scimill` loads neither MPI nor numpy

    return find(path)
