"""Strided training and validation sets for the members of an ensemble."""

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray


def window(rows: int, members: int, member: int, train: float, valid: float) -> tuple[int, int, int]:
    """Return the three ends of a member's sets on a circle of rows.

    The member validates on the rows from the first end to the second, and trains on those up to the third. Member m's
    window begins at m/members of the circle. All ends are rounded down, so validation windows are disjoint for
    fractions up to 1/members, and cover all rows at exactly 1/members. A set has ``fraction · rows`` rows, give or take
    one.

    Parameters
    ----------
    rows, members, member : number of rows, number of members, and number of this member.
    train, valid : fractions; their sum is at most 1.

    """
    begin = Fraction(member, members)
    middle_part, last_part = _exact(valid), _exact(valid) + _exact(train)
    first, middle, last = (int(rows * (begin + part)) for part in (Fraction(0), middle_part, last_part))
    return first, middle, min(last, first + rows)


def _exact(value: float) -> Fraction:
    """Return the fraction that a decimal number stands for: 0.1 is one tenth."""
    return Fraction(value).limit_denominator(10**9)


def split(
    places: NDArray[np.int64], members: int, member: int, train: float, valid: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return masks of the rows that a member trains on and validates on; see `window`.

    Parameters
    ----------
    places : place of each row on the circle, a permutation of 0 … rows - 1.

    """
    rows = len(places)
    first, middle, last = window(rows, members, member, train, valid)
    offsets = (places - first) % max(rows, 1)
    return (offsets >= middle - first) & (offsets < last - first), offsets < middle - first


def places_of(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the place of each row in the order of the hashes; ties go to the earlier row."""
    places = np.empty(len(hashes), dtype=np.int64)
    places[np.argsort(hashes, kind="stable")] = np.arange(len(hashes))
    return places
