"""Rows of dlrm click logs: a label, 13 integers and 26 categories; two columns per random word."""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from scimill.bench.kernels.counter import LOW_WORD, below, eighth_power, high_half, low_half, word

COLUMNS, INTEGERS, CATEGORIES = 40, 13, 26
WORDS = np.uint64(COLUMNS // 2)  # per row
INTEGER_RANGE = 2_557_264  # of the original generator (discslab-dl-bench/datagen)
COUNTS = (
    10000000, 38985, 17278, 7418, 20242, 3, 7120, 1543, 63, 9999978, 2642264, 397262, 10, 2208, 11931, 155, 4, 976,
    14, 10000000, 9832963, 10000000, 573162, 12969, 108, 36,
)  # fmt: skip
"""Number of values of each category in Criteo Terabyte, max_ind_range 10 million, from the original generator."""
TEXT_RANGE = 1001  # integers in text are 0 to 1000 in the original generator
RARE_RANGE = 65536  # range of skewed integers in text; most of them are small

_LOW16 = np.uint64(0xFFFF)
_ZERO = np.uint64(0)


class Distribution(NamedTuple):
    """Distribution of the values of a row.

    Parameters
    ----------
    ranges : uint64, shape (40,); values are in [0, range).
    is_skewed : whether small values are frequent: u⁸ · range for a uniform u.
    missing : number of missing values per 65536 values of a feature.

    """

    ranges: NDArray[np.uint64]
    is_skewed: bool
    missing: np.uint64


class Tile(NamedTuple):
    """Word and range of each value of some rows; the same tile serves the following rows.

    Loops over a tile are long enough to vectorise; loops over the columns of one row are not.

    Parameters
    ----------
    words : uint32, the random word of each value or pair of values, counted from the first row's first word.
    halves : uint32, 0 for a value from the lower half of its word, 32 for the upper half; empty for pairs.
    ranges : uint32, values are in [0, range); shape (1, values), or (2, pairs) for lower and upper halves.
    rows : number of rows.

    """

    words: NDArray[np.uint32]
    halves: NDArray[np.uint32]
    ranges: NDArray[np.uint32]
    rows: int


def tile(ranges: NDArray[np.uint64], begin: int, rows: int, *, in_pairs: bool) -> Tile:
    """Return the tile of the columns from `begin` on of some rows.

    Parameters
    ----------
    ranges : ranges of these columns, below 2^32.
    begin, rows : first column and number of rows.
    in_pairs : whether the tile is for `uniform_pairs`; then the columns must include both of each word.

    """
    columns = begin + np.arange(len(ranges))
    words = (np.arange(rows)[:, np.newaxis] * int(WORDS) + columns // 2).astype(np.uint32).reshape(-1)
    tiled = np.tile(ranges, rows).astype(np.uint32)
    if in_pairs:
        return Tile(words[::2].copy(), np.empty(0, np.uint32), tiled.reshape(-1, 2).T.copy(), rows)
    return Tile(words, np.tile(columns % 2 * 32, rows).astype(np.uint32), tiled.reshape(1, -1), rows)


@njit(cache=True, nogil=True)
def uniform_values(out: NDArray[np.number], key: np.uint64, first: int, tile: Tile) -> None:
    """Fill `out`, flat and of any type, with uniform values of rows from `first` on, none missing."""
    ranges, length = tile.ranges[0], len(tile.words)
    base = np.uint64(first) * WORDS
    for start in range(0, len(out), length):
        for j in range(min(length, len(out) - start)):
            random = word(key, base + np.uint64(tile.words[j]))
            out[start + j] = below(low_half(random >> np.uint64(tile.halves[j])), np.uint64(ranges[j]))
        base += np.uint64(tile.rows) * WORDS


@njit(cache=True, nogil=True)
def uniform_pairs(out: NDArray[np.uint64], key: np.uint64, first: int, tile: Tile) -> None:
    """Fill `out`, flat, with the values of `uniform_values` for a 32-bit type, two at a time."""
    low, high = tile.ranges[0], tile.ranges[1]
    length, base = len(tile.words), np.uint64(first) * WORDS
    for start in range(0, len(out), length):
        for j in range(min(length, len(out) - start)):
            random = word(key, base + np.uint64(tile.words[j]))
            upper = high_half(random) * np.uint64(high[j])
            out[start + j] = below(low_half(random), np.uint64(low[j])) | (upper & ~LOW_WORD)
        base += np.uint64(tile.rows) * WORDS


@njit(cache=True, nogil=True)
def fill_rows(out: NDArray[np.number], key: np.uint64, first: int, begin: int, distribution: Distribution) -> None:
    """Fill `out`, shape (rows, columns), with rows from `first` and columns from `begin` on."""
    count, width = out.shape
    bits = np.empty(COLUMNS, dtype=np.uint64)
    for i in range(count):
        _row_bits(bits, key, np.uint64(first) + np.uint64(i), begin // 2, (begin + width + 1) // 2)
        for column in range(width):
            out[i, column] = _draw_value(bits[begin + column], begin + column, distribution)


@njit(inline="always")
def _row_bits(bits: NDArray[np.uint64], key: np.uint64, row: np.uint64, low: int, high: int) -> None:
    """Draw the random bits of columns 2·low to 2·high - 1 of a row."""
    base = row * WORDS
    for j in range(low, high):
        random = word(key, base + np.uint64(j))
        bits[2 * j] = low_half(random)
        bits[2 * j + 1] = high_half(random)


@njit(inline="always")
def _draw_value(bits: np.uint64, column: int, distribution: Distribution) -> np.uint64:
    """Return the value of a column if values may be skewed or missing; a missing one is 0."""
    drawn = eighth_power(bits) if distribution.is_skewed and column > 0 else bits
    is_missing = column > 0 and (bits & _LOW16) < distribution.missing
    return _ZERO if is_missing else below(drawn, distribution.ranges[column])
