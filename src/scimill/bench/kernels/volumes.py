"""Voxels and labels of medical images, as the imseg trainer's preprocessing writes them."""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from scimill.bench.kernels.counter import high_half, low_half, within, word, words

LOW, HIGH = np.float32(-2.340702), np.float32(2.639792)
"""Range of intensities after the trainer's preprocessing: (CT number clipped to [-79, 304] - 101) / 76.9."""
_STEP = np.float32((2.639792 + 2.340702) / 2**24)  # one of 2^24 equal steps, each exact in float32
_EIGHT, _ONE = np.uint64(8), np.uint64(1)
_BIT_OF_EACH_BYTE = np.uint64(0x0101010101010101)


@njit(cache=True, nogil=True)
def intensities(out: NDArray[np.float32], key: np.uint64, first: np.uint64) -> None:
    """Fill `out`, of even length, with uniform intensities: two voxels per word, from word `first` on."""
    for i in range(len(out) // 2):
        random = word(key, first + np.uint64(i))
        out[2 * i] = LOW + np.float32(low_half(random) >> _EIGHT) * _STEP
        out[2 * i + 1] = LOW + np.float32(high_half(random) >> _EIGHT) * _STEP


@njit(cache=True, nogil=True)
def random_labels(out: NDArray[np.uint64], key: np.uint64, first: np.uint64) -> None:
    """Fill `out` with labels 0 or 1: eight voxels per word, from word `first` on."""
    for i in range(len(out)):
        out[i] = word(key, first + np.uint64(i)) & _BIT_OF_EACH_BYTE


class Ellipsoid(NamedTuple):
    """Centre and semi-axes in voxels along depth, rows and columns, and the label of the voxels inside."""

    centre: tuple[int, int, int]
    axes: tuple[int, int, int]
    label: int


def make_organs(shape: tuple[int, int, int], key: np.uint64, case: int) -> NDArray[np.int64]:
    """Draw two kidneys (label 1) and a tumour (label 2) on one of them; int64, shape (3, 7).

    Each row is an `Ellipsoid`. A kidney is about 11 x 6 x 6 cm in a field of view of 40 cm; sizes vary by a fifth.
    """
    draws = iter(words(key, case * 16, 16))

    def vary(length: int, low: int, high: int) -> int:
        """Draw a length between two shares of `length`, given in thousandths."""
        return max(2, length * within((low, high), next(draws)) // 1000)

    depth, height, width = shape
    left = Ellipsoid((vary(depth, 450, 550), vary(height, 500, 600), vary(width, 250, 320)), (
        vary(depth, 180, 260), vary(height, 70, 100), vary(width, 70, 100)), 1)  # fmt: skip
    right = left._replace(centre=(vary(depth, 450, 550), left.centre[1], width - left.centre[2]))
    side = left if vary(1000, 0, 1000) < 500 else right
    radius = vary(min(shape), 30, 80)
    tumour = Ellipsoid((side.centre[0] + radius, side.centre[1], side.centre[2]), (radius, radius, radius), 2)
    return np.array([[*e.centre, *e.axes, e.label] for e in (left, right, tumour)], dtype=np.int64)


@njit(cache=True, nogil=True)
def blob_labels(out: NDArray[np.uint8], organs: NDArray[np.int64], rows: int, columns: int, first: int) -> None:
    """Fill `out` with the labels of the voxels from `first` on; an ellipsoid covers one run per row."""
    out[:] = 0
    row = first // columns
    while row * columns < first + len(out):
        z, y = row // rows, row % rows
        start = row * columns - first
        for k in range(len(organs)):
            dz, dy = z - organs[k, 0], y - organs[k, 1]
            a, b, c = organs[k, 3], organs[k, 4], organs[k, 5]
            # A voxel is inside if (dz/a)² + (dy/b)² + (dx/c)² <= 1; computed with whole numbers.
            rest = a * a * b * b - dz * dz * b * b - dy * dy * a * a
            if rest >= 0:
                reach = int(np.floor(c * np.sqrt(rest / (a * a * b * b))))
                low, high = max(0, organs[k, 2] - reach), min(columns - 1, organs[k, 2] + reach)
                for x in range(max(start + low, 0), min(start + high + 1, len(out))):
                    out[x] = organs[k, 6]
        row += 1
