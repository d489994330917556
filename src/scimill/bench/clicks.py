"""Rows of the click logs that dlrm reads: a label, 13 integer features, 26 categories. Two columns per random word."""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from scimill.bench.counter import below, eighth_power, high_half, low_half, word

COLUMNS, INTEGERS, CATEGORIES = 40, 13, 26
WORDS = np.uint64(COLUMNS // 2)  # per row
INTEGER_RANGE = 2_557_264  # of the original generator (discslab-dl-bench/datagen)
COUNTS = (
    10000000, 38985, 17278, 7418, 20242, 3, 7120, 1543, 63, 9999978, 2642264, 397262, 10, 2208, 11931, 155, 4, 976,
    14, 10000000, 9832963, 10000000, 573162, 12969, 108, 36,
)  # fmt: skip
"""Values of each category of Criteo Terabyte with max_ind_range 10 million, from the original generator."""
TEXT_RANGE = 1001  # integers in text are 0 to 1000 in the original generator
RARE_RANGE = 65536  # range of skewed integers in text, most of which are small

_LOW16 = np.uint64(0xFFFF)
_ZERO = np.uint64(0)


class Law(NamedTuple):
    """Law of the values of a row.

    Parameters
    ----------
    ranges : uint64, shape (40,); a value is in [0, range).
    is_skewed : whether small values are frequent: u⁸ · range.
    missing : of 65536 values of a feature, so many are missing.

    """

    ranges: NDArray[np.uint64]
    is_skewed: bool
    missing: np.uint64


@njit(cache=True, nogil=True)
def rows(out: NDArray[np.number], key: np.uint64, first: int, begin: int, law: Law) -> None:
    """Fill `out`, shape (rows, columns) of any type, with columns from `begin` on of rows from `first` on."""
    count, width = out.shape
    bits = np.empty(COLUMNS, dtype=np.uint64)
    ranges = law.ranges[begin : begin + width]
    is_plain = not law.is_skewed and law.missing == _ZERO
    for i in range(count):
        _row_bits(bits, key, np.uint64(first) + np.uint64(i), begin // 2, (begin + width + 1) // 2)
        if is_plain:
            for column in range(width):
                out[i, column] = below(bits[begin + column], ranges[column])
        else:
            for column in range(width):
                out[i, column] = _lawful(bits[begin + column], begin + column, law)


@njit(cache=True, nogil=True)
def whole_rows(out: NDArray[np.int32], key: np.uint64, first: int, ranges: NDArray[np.uint64]) -> None:
    """Fill `out`, shape (rows · 40,), with rows from `first` on of a uniform law without missing values.

    Words follow each other through the rows, so that the loop over a tile of rows is long enough for wide vectors.

    Parameters
    ----------
    out, key, first : as of `rows`.
    ranges : uint64, shape (2, 20 · rows of a tile): those of even and of odd columns, row after row.

    """
    base, words = np.uint64(first) * WORDS, len(out) // 2
    for start in range(0, words, ranges.shape[1]):
        for j in range(min(ranges.shape[1], words - start)):
            random = word(key, base + np.uint64(start + j))
            out[2 * (start + j)] = below(low_half(random), ranges[0, j])
            out[2 * (start + j) + 1] = below(high_half(random), ranges[1, j])


@njit(inline="always")
def _row_bits(bits: NDArray[np.uint64], key: np.uint64, row: np.uint64, low: int, high: int) -> None:
    """Fill the bits of columns 2·low to 2·high - 1 of a row."""
    base = row * WORDS
    for j in range(low, high):
        random = word(key, base + np.uint64(j))
        bits[2 * j] = low_half(random)
        bits[2 * j + 1] = high_half(random)


@njit(inline="always")
def _lawful(bits: np.uint64, column: int, law: Law) -> np.uint64:
    """Value of a column where the law is skewed or values are missing; a missing one is 0."""
    drawn = eighth_power(bits) if law.is_skewed and column > 0 else bits
    is_missing = column > 0 and (bits & _LOW16) < law.missing
    return _ZERO if is_missing else below(drawn, law.ranges[column])
