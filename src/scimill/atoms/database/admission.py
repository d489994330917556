"""Admission: what becomes of structures as they come in, and which are known already."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scimill.atoms.database.batch import StructureBatch

Duplicates = Literal["keep", "skip", "refuse"]


@dataclass(frozen=True)
class Admission:
    """What is done with structures as they come in.

    Parameters
    ----------
    test_fraction : share that is held out as test data for good; a geometry that comes twice falls on one side.
    seed : of that draw.
    missing : whether NaN in a label is taken as missing; refused otherwise.
    duplicates : whether geometries that are there already are kept, skipped or refused.

    """

    test_fraction: float = 0.0
    seed: int = 1
    missing: bool = False
    duplicates: Duplicates = "keep"


class SeenValues:
    """A set that is large and read from files, and the few values that have come since.

    Parameters
    ----------
    values : of any one type that sorts.

    """

    def __init__(self, values: NDArray[Any]) -> None:
        self._old = np.sort(values)
        self._new: set[Any] = set()

    def find(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Whether each value is known, or the repetition of one before it."""
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
        """Learn values."""
        self._new.update(values.tolist())


def give_ids(batch: StructureBatch, first: int) -> None:
    """Give ids to rows that have none: the hash of their geometry and their number from `first` on."""
    ids = batch.columns["uid"]
    if batch.rows and not ids[0]:
        hashes = batch.columns["geometry_hash"].tolist()
        ids[:] = [f"{value:016x}-{first + row:015d}" for row, value in enumerate(hashes)]
