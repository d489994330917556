"""Values resampled from the same distribution: they make a copied record another record of the same length.

Rows are perturbed by rolling each column by a number of rows of its own: every column keeps exactly its values, so its
distribution, its missing values and, in text, its bytes; the relation between columns is lost. Images get noise, the
tokens of a record change places.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from scimill.bench.kernels.counter import below, high_half, low_half, word

FIELDS = 40  # of a row of dlrm: label, 13 integers, 26 categories
TAB, NEWLINE = 9, 10
LEAST_TOKEN = 128  # of BERT's vocabulary: below are padding, [CLS], [SEP], [MASK] and unused ones

Bytes = NDArray[np.uint8]
Integers = NDArray[np.int64]
_RUN = 16  # voxels that are repeated together
_ONE = np.uint64(1)


@njit(inline="always")
def happens(bits: np.uint64, share: float) -> bool:
    """Whether something of this probability happens, from 32 random bits."""
    return float(bits) < share * 4294967296.0


@njit(cache=True, nogil=True)
def noisy(
    out: NDArray[np.float32], key: np.uint64, first: np.uint64, low: float, high: float, reach: float, repeat: float
) -> None:
    """Add noise to the voxels `out`; the first one is voxel `first` of its image.

    Parameters
    ----------
    low, high : intensities at which the image was clipped; these stay.
    reach : largest noise; it is uniform.
    repeat : share of the runs of 16 voxels that repeat their first one.

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
    """Roll each column by its number of rows; a share of the rows repeats the one above.

    Parameters
    ----------
    out, rows : shape (n, columns).
    turns : shape (columns,), each in [0, n).
    key : of the choice of rows that repeat.
    repeat : their share.

    """
    n, columns = rows.shape
    for i in range(n):
        again = i > 0 and happens(low_half(word(key, np.uint64(i))), repeat)
        for c in range(columns):
            source = i + shifts[c]
            out[i, c] = out[i - 1, c] if again else rows[source if source < n else source - n, c]


@njit(cache=True, nogil=True)
def field_ends(lines: Bytes, ends: Integers) -> bool:
    """Find where each field of whole lines ends; false where a line has not `FIELDS` of them.

    Parameters
    ----------
    lines : text that ends with a newline.
    ends : shape (lines · FIELDS,); gets the places of tabs and newlines.

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
    """Roll each column of tab-separated lines; of a share of the rows, fields as long as those above repeat them.

    Parameters
    ----------
    out, lines : as many bytes.
    ends : see `field_ends`.
    turns : shape (FIELDS,), each in [0, number of lines).

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
    """Whether no field ends within these bytes."""
    for k in range(length):  # noqa: SIM110  (numba compiles no generator)
        if text[begin + k] <= NEWLINE:
            return False
    return True


@njit(cache=True, nogil=True)
def shuffle_tokens(tokens: Integers, fixed: Integers, key: np.uint64, is_sorted: bool) -> None:
    """Put the tokens of a record into another order, in place (Fisher and Yates); special ones keep their places.

    Parameters
    ----------
    tokens : numbers of tokens, shape (n,); those below `LEAST_TOKEN` are special or padding.
    fixed : places that keep their tokens too, since others refer to them.
    is_sorted : put them into ascending order instead, which is easier to compress.

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


def draws(key: np.uint64, first: int, limits: Integers) -> Integers:
    """Whole numbers below each of the limits, from the words `first`, `first` + 1, … of a stream."""
    return _draws(key, np.uint64(first), limits)


@njit(cache=True)
def _draws(key: np.uint64, first: np.uint64, limits: Integers) -> Integers:
    numbers = np.empty(len(limits), dtype=np.int64)
    for i in range(len(limits)):
        numbers[i] = below(low_half(word(key, first + np.uint64(i))), np.uint64(limits[i]))
    return numbers
