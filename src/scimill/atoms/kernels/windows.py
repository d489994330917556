"""Strided training and validation sets for the members of an ensemble."""

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray


def window(rows: int, members: int, member: int, train: float, valid: float) -> tuple[int, int, int]:
    """Ends of a member's sets on a circle of rows: validation from the first to the second, training on to the third.

    Member m's window begins at m/members of the circle. All ends are rounded down, so that windows of validation
    fractions up to 1/members are disjoint, and those of exactly 1/members are everything; a set has ``fraction · rows``
    rows, or one more or less by rounding.

    Parameters
    ----------
    rows, members, member : number of rows, of members, and which member.
    train, valid : fractions; their sum is at most 1.

    """
    begin = Fraction(member, members)
    middle_part, last_part = _exact(valid), _exact(valid) + _exact(train)
    first, middle, last = (int(rows * (begin + part)) for part in (Fraction(0), middle_part, last_part))
    return first, middle, min(last, first + rows)


def _exact(value: float) -> Fraction:
    """The fraction that a decimal number stands for: 0.1 is a tenth."""
    return Fraction(value).limit_denominator(10**9)


def split(
    ranks: NDArray[np.int64], members: int, member: int, train: float, valid: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which rows a member trains on, and which it validates on; see `window`.

    Parameters
    ----------
    ranks : place of each row on the circle, a permutation of 0 … rows - 1.

    """
    rows = len(ranks)
    first, middle, last = window(rows, members, member, train, valid)
    places = (ranks - first) % max(rows, 1)
    return (places >= middle - first) & (places < last - first), places < middle - first


def places_of(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Rank of each hash among all; of equal ones the earlier row comes first."""
    ranks = np.empty(len(hashes), dtype=np.int64)
    ranks[np.argsort(hashes, kind="stable")] = np.arange(len(hashes))
    return ranks
