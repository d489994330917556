"""Pairs of snapshots of a fine run: the state before a coarse step, and the truth after it."""

import dataclasses
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

INTERVAL_TOLERANCE = 1e-6
"""Largest relative deviation between intervals: output times are sums, which round."""


@dataclasses.dataclass(frozen=True)
class SnapshotPair:
    """Rows of the snapshots before and after a coarse step, and the time of the second."""

    member: int
    before: int
    after: int
    time: float


class IrregularTimes(ValueError):
    """The snapshots are not evenly spaced in time."""


def interval_of(times: NDArray[np.float64], members: NDArray[np.integer]) -> float:
    """Return the time between snapshots, the same in all members.

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
        raise IrregularTimes(f"the intervals between snapshots range from {steps.min():g} to {steps.max():g}")
    return interval


def pair_up(times: NDArray[np.float64], members: NDArray[np.integer], steps: int) -> list[SnapshotPair]:
    """Return the consecutive pairs of every member: each begins with the truth at the end of the previous pair.

    Parameters
    ----------
    times, members : of each row, shape (rows,).
    steps : snapshot intervals between the two snapshots of a pair.

    Returns
    -------
    list of SnapshotPair, member by member; leftover snapshots at the end are in no pair.
    """
    return [
        SnapshotPair(member, int(before), int(after), float(times[after]))
        for member, rows in _by_member(times, members)
        for before, after in zip(rows[:-steps:steps], rows[steps::steps], strict=True)
    ]


def _by_member(times: NDArray[np.float64], members: NDArray[np.integer]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield each member with its rows in order of time."""
    for member in np.unique(members):
        rows = np.flatnonzero(members == member)
        yield int(member), rows[np.argsort(times[rows], kind="stable")]
