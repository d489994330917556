"""Lines of the text format of dlrm: label, 13 integers, 26 categories as 8 hexadecimal digits, with tabs between."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from scimill.bench.clicks import CATEGORIES, COLUMNS, INTEGERS, WORDS, Law
from scimill.bench.counter import below, eighth_power, high_half, low_half, word

MOST_BYTES = 2 + INTEGERS * 6 + CATEGORIES * 9  # of a line: integers have at most 5 digits
_ZERO, _ONE, _FOUR, _EIGHT, _HALF, _LONG = (np.uint64(n) for n in (0, 1, 4, 8, 32, 56))
_LOW16, _BYTE = np.uint64(0xFFFF), np.uint64(0xFF)
_TAB, _NEWLINE, _DIGIT = np.uint8(9), np.uint8(10), np.uint8(48)
_HEX_LENGTH = np.uint64(9)

# Masks that pick every second half, byte and nibble, and what makes ASCII of nibbles.
_HALVES, _BYTES = np.uint64(0x0000FFFF), np.uint64(0x000000FF000000FF)
_NIBBLES, _SIX, _ONES = np.uint64(0x000F000F000F000F), np.uint64(0x0606060606060606), np.uint64(0x0101010101010101)
_ZEROS, _TO_LETTERS = np.uint64(0x3030303030303030), np.uint64(ord("a") - ord("9") - 1)
_S8, _S16 = np.uint64(8), np.uint64(16)

Words = NDArray[np.uint64]


def digits(count: int) -> Words:
    """Text of the integers below `count` <= 10^5 with a tab behind: seven bytes, and their number in the eighth."""
    texts = [f"{number}\t".encode() for number in range(count)]
    return np.array(
        [int.from_bytes(text.ljust(7, b"\0") + bytes([len(text)]), "little") for text in texts], dtype=np.uint64
    )


@njit(inline="always")
def _store(out: NDArray[np.uint8], place: np.uint64, text: np.uint64) -> None:
    """Write eight bytes; the compiler makes one store of them."""
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


@njit(inline="always")
def _is_missing(bits: np.uint64, law: Law) -> np.bool:
    return (law.missing > _ZERO) & ((bits & _LOW16) < law.missing)


@njit(inline="always")
def _integer(bits: np.uint64, column: int, law: Law, texts: Words) -> np.uint64:
    """Text of an integer feature with its length."""
    drawn = eighth_power(bits) if law.is_skewed else bits
    text: np.uint64 = texts[below(drawn, law.ranges[column])]
    return text


@njit(inline="always")
def _category(bits: np.uint64, column: int, law: Law) -> np.uint64:
    """Hash of a category: the random bits themselves, or a hash of a skewed number."""
    if law.is_skewed:
        return low_half(word(np.uint64(column), below(eighth_power(bits), law.ranges[column])))
    return bits


@njit(cache=True, nogil=True)
def lengths(out: NDArray[np.int64], key: np.uint64, first: int, law: Law, texts: Words) -> None:
    """Fill `out` with the bytes of lines from `first` on."""
    for i in range(len(out)):
        base = (np.uint64(first) + np.uint64(i)) * WORDS
        size = np.uint64(2 + INTEGERS + 9 * CATEGORIES)
        for column in range(1, COLUMNS):
            if column > INTEGERS and law.missing == _ZERO:
                break
            random = word(key, base + np.uint64(column // 2))
            bits = high_half(random) if column % 2 else low_half(random)
            if column <= INTEGERS:
                if not _is_missing(bits, law):
                    size += (_integer(bits, column, law, texts) >> _LONG) - _ONE
            elif _is_missing(bits, law):
                size -= _EIGHT
        out[i] = size


@njit(inline="always")
def _put_integers(
    out: NDArray[np.uint8], place: np.uint64, key: np.uint64, base: np.uint64, law: Law, texts: Words
) -> np.uint64:
    """Write the label and the integers with their tabs; return where the categories begin."""
    random = word(key, base)
    out[place] = _DIGIT + np.uint8(below(low_half(random), law.ranges[0]))
    out[place + _ONE] = _TAB
    place += np.uint64(2)
    for column in range(1, INTEGERS + 1):
        if column % 2 == 0:
            random = word(key, base + np.uint64(column // 2))
        bits = high_half(random) if column % 2 else low_half(random)
        if _is_missing(bits, law):
            out[place] = _TAB
            place += _ONE
        else:
            text = _integer(bits, column, law, texts)
            _store(out, place, text)
            place += text >> _LONG
    return place


@njit(inline="always")
def _put_categories(out: NDArray[np.uint8], place: np.uint64, key: np.uint64, base: np.uint64, law: Law) -> np.uint64:
    """Write the categories with their tabs, some missing; return where the line ends."""
    random = _ZERO
    for column in range(INTEGERS + 1, COLUMNS):
        if column % 2 == 0:
            random = word(key, base + np.uint64(column // 2))
        bits = high_half(random) if column % 2 else low_half(random)
        if _is_missing(bits, law):
            out[place] = _TAB
            place += _ONE
        else:
            _store(out, place, hexadecimal(_category(bits, column, law)))
            out[place + _EIGHT] = _TAB
            place += _HEX_LENGTH
    return place


@njit(inline="always")
def _put_all_categories(
    out: NDArray[np.uint8], place: np.uint64, key: np.uint64, base: np.uint64, law: Law
) -> np.uint64:
    """Write the categories with their tabs, none missing, so that no place depends on what stands before it."""
    for pair in range(CATEGORIES // 2):
        column = INTEGERS + 1 + 2 * pair
        random = word(key, base + np.uint64(column // 2))
        at = place + np.uint64(2 * pair) * _HEX_LENGTH
        _store(out, at, hexadecimal(_category(low_half(random), column, law)))
        out[at + _EIGHT] = _TAB
        _store(out, at + _HEX_LENGTH, hexadecimal(_category(high_half(random), column + 1, law)))
        out[at + _HEX_LENGTH + _EIGHT] = _TAB
    return place + np.uint64(CATEGORIES) * _HEX_LENGTH


@njit(cache=True, nogil=True)
def encode(
    out: NDArray[np.uint8], at: int, limit: int, key: np.uint64, first: int, last: int, law: Law, texts: Words
) -> None:
    """Write lines from `first` on, but not `last`, at out[at:], until one ends at or beyond `limit`."""
    place, line = np.uint64(at), np.uint64(first)
    while place < np.uint64(limit) and line < np.uint64(last):
        base = line * WORDS
        place = _put_integers(out, place, key, base, law, texts)
        if law.missing == _ZERO:
            place = _put_all_categories(out, place, key, base, law)
        else:
            place = _put_categories(out, place, key, base, law)
        out[place - _ONE] = _NEWLINE
        line += _ONE
