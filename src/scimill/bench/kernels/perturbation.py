"""Resampling from the same distribution: a copied record becomes another one of the same length.

Each column of a table is rolled by its own number of rows. So every column keeps exactly its values, missing ones
included, and its bytes in text; the relation between columns is lost. Images get noise, and tokens are shuffled.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from scimill.bench.kernels.counter import below, high_half, low_half, word

FIELDS = 40  # per dlrm row: label, 13 integers, 26 categories
TAB, NEWLINE = 9, 10
LEAST_TOKEN = 128  # smaller tokens of BERT's vocabulary are padding, [CLS], [SEP], [MASK] or unused

Bytes = NDArray[np.uint8]
Integers = NDArray[np.int64]
_RUN = 16  # voxels in a run that repeats its first voxel
_ONE = np.uint64(1)


@njit(inline="always")
def happens(bits: np.uint64, share: float) -> bool:
    """Return true with a given probability, from 32 random bits."""
    return float(bits) < share * 4294967296.0


@njit(cache=True, nogil=True)
def add_noise(
    out: NDArray[np.float32], key: np.uint64, first: np.uint64, low: float, high: float, reach: float, repeat: float
) -> None:
    """Add noise to the voxels `out`, which start at voxel `first` of the image.

    Parameters
    ----------
    low, high : intensities at which the image was clipped; clipped voxels stay unchanged.
    reach : largest change; the noise is uniform.
    repeat : share of the runs of 16 voxels that repeat their first voxel.

    """
    for i in range(len(out)):
        place = first + np.uint64(i)
        random = word(key, place // np.uint64(2))
        bits = high_half(random) if place & _ONE else low_half(random)
        if low < out[i] < high:
            noise = np.float32((float(bits) / 2147483648.0 - 1.0) * reach)
            out[i] = min(max(out[i] + noise, np.float32(low)), np.float32(high))
    if repeat > 0:
        for i in range(len(out)):
            place = first + np.uint64(i)
            run = place // np.uint64(_RUN)
            if i > 0 and place % np.uint64(_RUN) != 0 and happens(low_half(word(key + _ONE, run)), repeat):
                out[i] = out[i - 1]


@njit(cache=True, nogil=True)
def roll_columns(
    out: NDArray[np.generic], rows: NDArray[np.generic], shifts: Integers, key: np.uint64, repeat: float
) -> None:
    """Roll each column by its own number of rows; a share of the rows repeats the row above.

    Parameters
    ----------
    out, rows : shape (n, columns).
    shifts : shape (columns,), each in [0, n).
    key : stream that chooses the repeated rows.
    repeat : share of the rows that repeat the row above.

    """
    n, columns = rows.shape
    for i in range(n):
        again = i > 0 and happens(low_half(word(key, np.uint64(i))), repeat)
        for c in range(columns):
            source = i + shifts[c]
            out[i, c] = out[i - 1, c] if again else rows[source if source < n else source - n, c]


@njit(cache=True, nogil=True)
def field_ends(lines: Bytes, ends: Integers) -> bool:
    """Find where each field of complete lines ends; return false if a line does not have `FIELDS` fields.

    Parameters
    ----------
    lines : text that ends with a newline.
    ends : shape (lines · FIELDS,); filled with the positions of tabs and newlines.

    """
    found = 0
    for i in range(len(lines)):
        if lines[i] == TAB or lines[i] == NEWLINE:
            is_last = found % FIELDS == FIELDS - 1
            if found == len(ends) or (lines[i] == NEWLINE) != is_last:
                return False
            ends[found] = i
            found += 1
    return found == len(ends)


@njit(cache=True, nogil=True)
def roll_fields(out: Bytes, lines: Bytes, ends: Integers, shifts: Integers, key: np.uint64, repeat: float) -> None:
    """Roll each column of tab-separated lines by its own number of lines.

    In a share of the lines, each field as long as the field above repeats it.

    Parameters
    ----------
    out, lines : arrays of the same size.
    ends : see `field_ends`.
    shifts : shape (FIELDS,), each in [0, number of lines).
    key, repeat : see `roll_columns`.

    """
    n, at = len(ends) // FIELDS, 0
    above = np.zeros(FIELDS, dtype=np.int64)
    for i in range(n):
        again = i > 0 and happens(low_half(word(key, np.uint64(i))), repeat)
        for c in range(FIELDS):
            source = i + shifts[c]
            field = (source if source < n else source - n) * FIELDS + c
            begin = ends[field - 1] + 1 if field else 0
            length = ends[field] - begin
            if again and i > 0 and out[above[c] + length] <= NEWLINE and _is_field(out, above[c], length):
                begin_in_out = above[c]
                for k in range(length):
                    out[at + k] = out[begin_in_out + k]
            else:
                for k in range(length):
                    out[at + k] = lines[begin + k]
            above[c] = at
            at += length
            out[at] = NEWLINE if c == FIELDS - 1 else TAB
            at += 1


@njit(inline="always")
def _is_field(text: Bytes, begin: int, length: int) -> bool:
    """Return whether no field ends within these bytes."""
    for k in range(length):  # noqa: SIM110  (numba cannot compile generators)
        if text[begin + k] <= NEWLINE:
            return False
    return True


@njit(cache=True, nogil=True)
def shuffle_tokens(tokens: Integers, fixed: Integers, key: np.uint64, is_sorted: bool) -> None:
    """Shuffle the tokens of a record in place (Fisher and Yates); special tokens keep their places.

    Parameters
    ----------
    tokens : token ids, shape (n,); those below `LEAST_TOKEN` are special or padding.
    fixed : other places that keep their tokens, because other features refer to them.
    is_sorted : sort the tokens in ascending order instead, which compresses better.

    """
    free = tokens >= LEAST_TOKEN
    for place in fixed:
        if 0 <= place < len(free):
            free[place] = False
    places = np.flatnonzero(free)
    if is_sorted:
        tokens[places] = np.sort(tokens[places])
        return
    for i in range(len(places) - 1, 0, -1):
        j = below(low_half(word(key, np.uint64(i))), np.uint64(i + 1))
        first, second = places[i], places[np.int64(j)]
        tokens[first], tokens[second] = tokens[second], tokens[first]


def draw_integers(key: np.uint64, first: int, limits: Integers) -> Integers:
    """Draw a whole number below each of the limits, from the words `first`, `first` + 1, … of a stream."""
    return _draw_integers(key, np.uint64(first), limits)


@njit(cache=True)
def _draw_integers(key: np.uint64, first: np.uint64, limits: Integers) -> Integers:
    numbers = np.empty(len(limits), dtype=np.int64)
    for i in range(len(limits)):
        numbers[i] = below(low_half(word(key, first + np.uint64(i))), np.uint64(limits[i]))
    return numbers
