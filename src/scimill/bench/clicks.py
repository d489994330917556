"""Rows of the click logs that dlrm reads: a label, 13 integer features, 26 categories. Two columns per random word."""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from scimill.bench.counter import below, cubed, high_half, low_half, word

COLUMNS, INTEGERS, CATEGORIES = 40, 13, 26
WORDS = np.uint64(COLUMNS // 2)  # per row
INTEGER_RANGE = 2_557_264  # of the original generator (discslab-dl-bench/datagen)
COUNTS = (
    10000000, 38985, 17278, 7418, 20242, 3, 7120, 1543, 63, 9999978, 2642264, 397262, 10, 2208, 11931, 155, 4, 976,
    14, 10000000, 9832963, 10000000, 573162, 12969, 108, 36,
)  # fmt: skip
"""Values of each category of Criteo Terabyte with max_ind_range 10 million, from the original generator."""
TEXT_RANGE = 1001  # integers in text are 0 to 1000 in the original generator
RARE_RANGE = 65536  # range of skewed integers in text, whose third power makes most of them small

_LOW16 = np.uint64(0xFFFF)
_ZERO, _ONE, _TEN = np.uint64(0), np.uint64(1), np.uint64(10)
_TAB, _NEWLINE, _DIGIT = np.uint8(9), np.uint8(10), np.uint8(48)


class Law(NamedTuple):
    """Law of the values of a row.

    Parameters
    ----------
    ranges : uint64, shape (40,); a value is in [0, range).
    is_skewed : whether small values are frequent: u³ · range.
    missing : of 65536 values of a feature, so many are missing.

    """

    ranges: NDArray[np.uint64]
    is_skewed: bool
    missing: np.uint64


@njit(inline="always")
def _value(bits: np.uint64, column: int, law: Law) -> np.uint64:
    """Value of a column; a missing one is 0."""
    if not law.is_skewed or column == 0:
        value = below(bits, law.ranges[column])
    else:
        value = below(cubed(bits), law.ranges[column])
    if law.missing > _ZERO and column > 0 and (bits & _LOW16) < law.missing:
        return _ZERO
    return value


@njit(cache=True, nogil=True)
def rows(out: NDArray[np.number], key: np.uint64, first: int, begin: int, law: Law) -> None:
    """Fill `out`, shape (rows, columns) of any type, with columns from `begin` on of rows from `first` on."""
    count, width = out.shape
    head = begin % 2
    pairs = (width - head) // 2
    for i in range(count):
        base = (np.uint64(first) + np.uint64(i)) * WORDS + np.uint64(begin // 2)
        if head:
            out[i, 0] = _value(high_half(word(key, base)), begin, law)
        for j in range(pairs):
            random = word(key, base + np.uint64(head + j))
            column = head + 2 * j
            out[i, column] = _value(low_half(random), begin + column, law)
            out[i, column + 1] = _value(high_half(random), begin + column + 1, law)
        if (width - head) % 2:
            random = word(key, base + np.uint64(head + pairs))
            out[i, width - 1] = _value(low_half(random), begin + width - 1, law)
