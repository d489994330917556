"""Admission: rules for adding structures, and detection of known ids and geometries."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scimill.atoms.database.batch import StructureBatch

Duplicates = Literal["keep", "skip", "refuse"]


@dataclass(frozen=True)
class Admission:
    """Rules for adding structures.

    Parameters
    ----------
    test_fraction : share to hold out permanently as test data; duplicates of a geometry are all in or all out.
    seed : of that draw.
    missing : whether NaN in a label means missing; it is refused otherwise.
    duplicates : whether to keep, skip or refuse geometries that are already in the database.

    """

    test_fraction: float = 0.0
    seed: int = 1
    missing: bool = False
    duplicates: Duplicates = "keep"


class SeenValues:
    """A set of values: many read from files, and a few added later.

    Parameters
    ----------
    values : the values from files, of any sortable type.

    """

    def __init__(self, values: NDArray[Any]) -> None:
        self._old = np.sort(values)
        self._new: set[Any] = set()

    def find(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Return whether each value is known, or repeats an earlier one of these values."""
        seen = np.zeros(len(values), dtype=bool)
        if len(self._old):
            places = np.minimum(np.searchsorted(self._old, values), len(self._old) - 1)
            seen = self._old[places] == values
        if self._new:
            seen |= np.fromiter((value in self._new for value in values.tolist()), bool, len(values))
        if len(values) > 1:
            first = np.unique(values, return_index=True)[1]
            seen |= ~np.isin(np.arange(len(values)), first)
        return seen

    def add(self, values: NDArray[Any]) -> None:
        """Add values."""
        self._new.update(values.tolist())


def give_ids(batch: StructureBatch, first: int) -> None:
    """Give ids to rows without one: the hash of their geometry, and a number counted from `first`."""
    ids = batch.columns["uid"]
    if batch.rows and not ids[0]:
        hashes = batch.columns["geometry_hash"].tolist()
        ids[:] = [f"{value:016x}-{first + row:015d}" for row, value in enumerate(hashes)]
