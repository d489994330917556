"""Which snapshots of a fine run make a pair: the state before a coarse step, and the truth after it."""

import dataclasses
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

INTERVAL_TOLERANCE = 1e-6
"""Largest relative deviation of an interval from the others: output times are sums, which round."""


@dataclasses.dataclass(frozen=True)
class SnapshotPair:
    """Rows of the fine run's snapshots before and after a coarse step, and the time of the second."""

    member: int
    before: int
    after: int
    time: float


class IrregularTimes(ValueError):
    """The snapshots do not follow each other at one interval."""


def interval_of(times: NDArray[np.float64], members: NDArray[np.integer]) -> float:
    """Time between the snapshots of every member.

    Parameters
    ----------
    times, members : of each row, shape (rows,); rows may be in any order.

    Raises
    ------
    IrregularTimes : the intervals differ, or no member has two snapshots.
    """
    steps = np.concatenate([np.diff(times[rows]) for _, rows in _by_member(times, members)])
    if not steps.size:
        raise IrregularTimes("no member has two snapshots")
    interval = float(np.median(steps))
    if interval <= 0 or np.abs(steps - interval).max() > INTERVAL_TOLERANCE * interval:
        raise IrregularTimes(f"the intervals between snapshots go from {steps.min():g} to {steps.max():g}")
    return interval


def pair_up(times: NDArray[np.float64], members: NDArray[np.integer], steps: int) -> list[SnapshotPair]:
    """Pairs of every member, one after the other in time: each begins with the truth that the one before ends with.

    Parameters
    ----------
    times, members : of each row, shape (rows,).
    steps : snapshots from the first of a pair to the second.

    Returns
    -------
    list of SnapshotPair, member by member; snapshots that are left over at the end are in none.
    """
    return [
        SnapshotPair(member, int(before), int(after), float(times[after]))
        for member, rows in _by_member(times, members)
        for before, after in zip(rows[:-steps:steps], rows[steps::steps], strict=True)
    ]


def _by_member(times: NDArray[np.float64], members: NDArray[np.integer]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield each member with its rows in the order of time."""
    for member in np.unique(members):
        rows = np.flatnonzero(members == member)
        yield int(member), rows[np.argsort(times[rows], kind="stable")]
