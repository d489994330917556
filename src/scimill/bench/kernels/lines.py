"""Lines of dlrm text: label, 13 integers and 26 categories of 8 hexadecimal digits, with tabs."""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from scimill.bench.kernels.clicks import CATEGORIES, COLUMNS, INTEGERS, WORDS, Distribution
from scimill.bench.kernels.counter import below, eighth_power, high_half, low_half, word

MOST_BYTES = 2 + INTEGERS * 6 + CATEGORIES * 9  # per line; integers have at most 5 digits
_ZERO, _ONE, _FOUR, _EIGHT, _HALF, _LONG = (np.uint64(n) for n in (0, 1, 4, 8, 32, 56))
_LOW16, _BYTE = np.uint64(0xFFFF), np.uint64(0xFF)
_TAB, _NEWLINE, _DIGIT = np.uint8(9), np.uint8(10), np.uint8(48)
_HEX_LENGTH = np.uint64(9)
_EMPTY = np.uint64(1 << 56 | 9)  # a missing integer: only a tab, encoded as in `integer_texts`

LINES = 16  # lines to draw at once: 16 KB, which stay in the L1 cache
INTEGER_WORDS, CATEGORY_WORDS = (
    (1 + INTEGERS) // 2,
    CATEGORIES // 2,
)  # random words per line; the label takes half of one
_STARTS = np.arange(LINES, dtype=np.uint32)[:, np.newaxis] * np.uint32(WORDS)
_INTEGER_PLACES = (_STARTS + np.arange(INTEGER_WORDS, dtype=np.uint32)).reshape(-1)
_CATEGORY_PLACES = (_STARTS + np.arange(INTEGER_WORDS, COLUMNS // 2, dtype=np.uint32)).reshape(-1)
"""Random word of each pair of columns, counted from the first word of the first line."""
_CATEGORY_COLUMNS = np.tile(np.arange(1 + INTEGERS, COLUMNS, 2, dtype=np.uint32), LINES)
"""Column that the lower half of each word belongs to."""

# Masks that select every second half, byte and nibble, and constants that convert nibbles to ASCII.
_HALVES, _BYTES = np.uint64(0x0000FFFF), np.uint64(0x000000FF000000FF)
_NIBBLES, _SIX, _ONES = np.uint64(0x000F000F000F000F), np.uint64(0x0606060606060606), np.uint64(0x0101010101010101)
_ZEROS, _TO_LETTERS = np.uint64(0x3030303030303030), np.uint64(ord("a") - ord("9") - 1)
_S8, _S16 = np.uint64(8), np.uint64(16)

Words = NDArray[np.uint64]


def integer_texts(count: int) -> Words:
    """Return the texts of the integers below `count` <= 10^5, each with a tab, as uint64.

    The lower seven bytes hold the text, the eighth its length.
    """
    texts = [f"{number}\t".encode() for number in range(count)]
    return np.array(
        [int.from_bytes(text.ljust(7, b"\0") + bytes([len(text)]), "little") for text in texts], dtype=np.uint64
    )


@njit(inline="always")
def _store(out: NDArray[np.uint8], place: np.uint64, text: np.uint64) -> None:
    """Write eight bytes; the compiler turns this into one store."""
    for i in range(8):
        out[place + np.uint64(i)] = np.uint8((text >> np.uint64(8 * i)) & _BYTE)


@njit(inline="always")
def hexadecimal(bits: np.uint64) -> np.uint64:
    """Return the eight lower-case digits of 32 bits, the first one in the lowest byte."""
    x = ((bits >> _S16) & _HALVES) | ((bits & _HALVES) << _HALF)
    x = ((x >> _S8) & _BYTES) | ((x & _BYTES) << _S16)
    x = ((x >> _FOUR) & _NIBBLES) | ((x & _NIBBLES) << _S8)
    letters = ((x + _SIX) >> _FOUR) & _ONES
    return x + _ZEROS + letters * _TO_LETTERS


class Line(NamedTuple):
    """The parts of some lines; the second index counts the random words of all lines.

    Parameters
    ----------
    integers : uint64, shape (2, 7 · lines): `integer_texts` of even and of odd columns; column 0, the label, is unused.
    categories : uint64, shape (2, 13 · lines): digits of even and of odd columns, or a tab if the value is missing.
    sizes : uint64, shape (2, 13 · lines): bytes of the categories with their tabs.

    """

    integers: Words
    categories: Words
    sizes: Words


@njit(nogil=True)
def _new_lines() -> Line:
    sizes = np.full((2, CATEGORY_WORDS * LINES), _HEX_LENGTH)
    return Line(np.empty((2, INTEGER_WORDS * LINES), np.uint64), np.empty_like(sizes), sizes)


@njit(inline="always")
def _is_missing(bits: np.uint64, missing: np.uint64) -> np.uint64:
    return np.uint64((bits & _LOW16) < missing)


@njit(inline="always")
def _either(choice: np.uint64, first: np.uint64, second: np.uint64) -> np.uint64:
    """Return the first if the choice is 1, the second if it is 0; a branch would often be mispredicted."""
    mask = _ZERO - choice
    return (first & mask) | (second & ~mask)


@njit(nogil=True)
def _draw_integers(
    out: Words, count: int, key: np.uint64, base: np.uint64, distribution: Distribution, texts: Words
) -> None:
    """Draw the integer texts of some lines, `count` words of them.

    This loop and those that draw categories are long and have no branches, so that the compiler vectorises them.
    """
    most, missing = distribution.ranges[INTEGERS], distribution.missing  # all integers in text have the same range
    for i in range(count):
        random = word(key, base + np.uint64(_INTEGER_PLACES[i]))
        low, high = low_half(random), high_half(random)
        if distribution.is_skewed:
            out[0, i] = _either(_is_missing(low, missing), _EMPTY, texts[below(eighth_power(low), most)])
            out[1, i] = _either(_is_missing(high, missing), _EMPTY, texts[below(eighth_power(high), most)])
        else:
            out[0, i] = _either(_is_missing(low, missing), _EMPTY, texts[below(low, most)])
            out[1, i] = _either(_is_missing(high, missing), _EMPTY, texts[below(high, most)])


@njit(nogil=True)
def _draw_hashes(out: Words, count: int, key: np.uint64, base: np.uint64) -> None:
    """Draw categories whose digits are the random bits themselves."""
    for i in range(count):
        random = word(key, base + np.uint64(_CATEGORY_PLACES[i]))
        out[0, i] = hexadecimal(low_half(random))
        out[1, i] = hexadecimal(high_half(random))


@njit(nogil=True)
def _draw_skewed_hashes(out: Words, count: int, key: np.uint64, base: np.uint64, ranges: Words) -> None:
    """Draw categories that are hashes of skewed numbers below `ranges`, shape (2, 13 · lines)."""
    for i in range(count):
        random, column = word(key, base + np.uint64(_CATEGORY_PLACES[i])), np.uint64(_CATEGORY_COLUMNS[i])
        out[0, i] = hexadecimal(_skewed_hash(low_half(random), column, ranges[0, i]))
        out[1, i] = hexadecimal(_skewed_hash(high_half(random), column + _ONE, ranges[1, i]))


@njit(inline="always")
def _skewed_hash(bits: np.uint64, column: np.uint64, count: np.uint64) -> np.uint64:
    return low_half(word(column, below(eighth_power(bits), count)))


@njit(nogil=True)
def _draw_missing(line: Line, count: int, key: np.uint64, base: np.uint64, missing: np.uint64) -> None:
    """Draw which categories are missing, and set their sizes."""
    for i in range(count):
        random = word(key, base + np.uint64(_CATEGORY_PLACES[i]))
        low, high = _is_missing(low_half(random), missing), _is_missing(high_half(random), missing)
        line.categories[0, i] = _either(low, np.uint64(_TAB), line.categories[0, i])
        line.categories[1, i] = _either(high, np.uint64(_TAB), line.categories[1, i])
        line.sizes[0, i] = _HEX_LENGTH - low * _EIGHT
        line.sizes[1, i] = _HEX_LENGTH - high * _EIGHT


@njit(cache=True, nogil=True)
def lengths(out: NDArray[np.int64], key: np.uint64, first: int, distribution: Distribution, texts: Words) -> None:
    """Fill `out` with the lengths in bytes of the lines from `first` on."""
    if not distribution.is_skewed and distribution.missing == _ZERO:
        _uniform_lengths(out, key, first, distribution.ranges[INTEGERS], texts)
        return
    line = _new_lines()
    for start in range(0, len(out), LINES):
        base = (np.uint64(first) + np.uint64(start)) * WORDS
        count = min(LINES, len(out) - start)
        _draw_integers(line.integers, INTEGER_WORDS * count, key, base, distribution, texts)
        if distribution.missing > _ZERO:
            _draw_missing(line, CATEGORY_WORDS * count, key, base, distribution.missing)
        for i in range(count):
            out[start + i] = np.int64(_line_size(line, i, distribution.missing))


@njit(nogil=True)
def _uniform_lengths(out: NDArray[np.int64], key: np.uint64, first: int, most: np.uint64, texts: Words) -> None:
    """Do the same for uniform values of which none is missing, twice as fast."""
    for i in range(len(out)):
        base = (np.uint64(first) + np.uint64(i)) * WORDS
        size = np.uint64(2) + _HEX_LENGTH * np.uint64(CATEGORIES)
        size += texts[below(high_half(word(key, base)), most)] >> _LONG
        for j in range(1, INTEGER_WORDS):
            random = word(key, base + np.uint64(j))
            size += texts[below(low_half(random), most)] >> _LONG
            size += texts[below(high_half(random), most)] >> _LONG
        out[i] = size


@njit(inline="always")
def _line_size(line: Line, number: int, missing: np.uint64) -> Any:
    """Return the bytes of one of the lines, uint64."""
    size = np.uint64(2) - (line.integers[0, INTEGER_WORDS * number] >> _LONG)  # the label's column has no text
    for i in range(INTEGER_WORDS * number, INTEGER_WORDS * (number + 1)):
        size += (line.integers[0, i] >> _LONG) + (line.integers[1, i] >> _LONG)
    if missing == _ZERO:
        return size + _HEX_LENGTH * np.uint64(CATEGORIES)
    for i in range(CATEGORY_WORDS * number, CATEGORY_WORDS * (number + 1)):
        size += line.sizes[0, i] + line.sizes[1, i]
    return size


@njit(nogil=True)
def _tiled_ranges(ranges: Words) -> Words:
    """Return the ranges of the categories of `LINES` lines."""
    out = np.empty((2, CATEGORY_WORDS * LINES), np.uint64)
    for i in range(CATEGORY_WORDS * LINES):
        out[0, i], out[1, i] = ranges[_CATEGORY_COLUMNS[i]], ranges[_CATEGORY_COLUMNS[i] + 1]
    return out


@njit(cache=True, nogil=True)
def encode(
    out: NDArray[np.uint8], at: int, limit: int, key: np.uint64, first: int, last: int,
    distribution: Distribution, texts: Words,
) -> None:  # fmt: skip
    """Write the lines `first` to `last` - 1 at out[at:], until one ends at or beyond `limit`."""
    line, ranges = _new_lines(), _tiled_ranges(distribution.ranges)
    place = np.uint64(at)
    for start in range(first, last, LINES):
        base, count = np.uint64(start) * WORDS, min(LINES, last - start)
        _draw_integers(line.integers, INTEGER_WORDS * count, key, base, distribution, texts)
        if distribution.is_skewed:
            _draw_skewed_hashes(line.categories, CATEGORY_WORDS * count, key, base, ranges)
        else:
            _draw_hashes(line.categories, CATEGORY_WORDS * count, key, base)
        if distribution.missing > _ZERO:
            _draw_missing(line, CATEGORY_WORDS * count, key, base, distribution.missing)
        for i in range(count):
            if place >= np.uint64(limit):
                return
            label = below(low_half(word(key, base + np.uint64(i) * WORDS)), distribution.ranges[0])
            place = _put_line(out, place, label, line, i)


@njit(inline="always")
def _put_line(out: NDArray[np.uint8], place: np.uint64, label: np.uint64, line: Line, number: int) -> np.uint64:
    """Write one of the lines and return its end; each text overwrites what the previous one wrote beyond its end."""
    out[place] = _DIGIT + np.uint8(label)
    out[place + _ONE] = _TAB
    place += np.uint64(2)
    for i in range(INTEGER_WORDS * number, INTEGER_WORDS * (number + 1)):
        if i > INTEGER_WORDS * number:  # the lower half of the first word is the label
            place = _put_integer(out, place, line.integers[0, i])
        place = _put_integer(out, place, line.integers[1, i])
    for i in range(CATEGORY_WORDS * number, CATEGORY_WORDS * (number + 1)):
        place = _put_category(out, place, line.categories[0, i], line.sizes[0, i])
        place = _put_category(out, place, line.categories[1, i], line.sizes[1, i])
    out[place - _ONE] = _NEWLINE
    return place


@njit(inline="always")
def _put_integer(out: NDArray[np.uint8], place: np.uint64, text: np.uint64) -> np.uint64:
    _store(out, place, text)
    return place + (text >> _LONG)


@njit(inline="always")
def _put_category(out: NDArray[np.uint8], place: np.uint64, text: np.uint64, size: np.uint64) -> np.uint64:
    _store(out, place, text)
    out[place + _EIGHT] = _TAB
    return place + size
