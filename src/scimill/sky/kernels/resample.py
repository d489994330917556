"""Resampling by areas: each new pixel is the mean of the area that it covers."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True)
def _edges(first: float, last: float, count: int, size: int) -> Any:
    """Return the first and last source pixel of each new pixel, and its share of these two."""
    low, high = np.empty(count, np.int64), np.empty(count, np.int64)
    begin, finish = np.empty(count, np.float32), np.empty(count, np.float32)
    for i in range(count):
        a = first + (last - first) * i / count
        b = first + (last - first) * (i + 1) / count
        low[i] = min(int(a), size - 1)
        high[i] = min(max(int(np.ceil(b)) - 1, low[i]), size - 1)
        begin[i] = min(low[i] + 1.0, b) - a
        finish[i] = b - high[i] if high[i] > low[i] else 0.0
    return low, high, begin, finish


@njit(cache=True, fastmath=True)
def shrink(image: NDArray[Any], left: float, top: float, right: float, bottom: float, out: NDArray[Any]) -> None:
    """Resample a part of an image into another one.

    Parameters
    ----------
    image : (rows, columns, channels), contiguous.
    left, top, right, bottom : the part, in pixels from the image's corner; inside the image.
    out : (new rows, new columns, channels), filled; integers are rounded to the nearest.
    """
    rows, columns, channels = out.shape
    y_low, y_high, y_begin, y_finish = _edges(top, bottom, rows, image.shape[0])
    x_low, x_high, x_begin, x_finish = _edges(left, right, columns, image.shape[1])
    first, width = x_low[0] * channels, (x_high[-1] + 1 - x_low[0]) * channels
    flat = image.reshape(image.shape[0], image.shape[1] * channels)
    line = np.empty(width, np.float32)
    area = np.float32((bottom - top) / rows * ((right - left) / columns))
    for i in range(rows):
        weight = y_begin[i]
        source = flat[y_low[i], first : first + width]
        for k in range(width):
            line[k] = weight * np.float32(source[k])
        for row in range(y_low[i] + 1, y_high[i]):
            source = flat[row, first : first + width]
            for k in range(width):
                line[k] += np.float32(source[k])
        if y_high[i] > y_low[i]:
            weight = y_finish[i]
            source = flat[y_high[i], first : first + width]
            for k in range(width):
                line[k] += weight * np.float32(source[k])
        for j in range(columns):
            a, b = (x_low[j] - x_low[0]) * channels, (x_high[j] - x_low[0]) * channels
            for c in range(channels):
                total = x_begin[j] * line[a + c]
                for k in range(a + channels, b, channels):
                    total += line[k + c]
                if b > a:
                    total += x_finish[j] * line[b + c]
                out[i, j, c] = _stored(total / area, out)


@njit(cache=True, inline="always")
def _stored(value: Any, out: NDArray[Any]) -> Any:
    """Prepare a value for storing: integers are rounded to the nearest."""
    return value + np.float32(0.5) if out.itemsize < 4 else value
