"""One-dimensional Fourier transforms of batches of rows, in place, by FFTW.

The plans are FFTW's estimates for a batch of fixed size, stride and alignment. They depend on the grid only, neither on
timings nor on the number of ranks, and so do the last bits of what they give. This module alone imports pyfftw.
"""

from collections.abc import Callable

import numpy as np
import pyfftw
from numpy.typing import DTypeLike, NDArray

LINE = 64  # bytes of a cache line: successive rows begin one line off a power of two, in other sets of the cache

Buffer = NDArray[np.complexfloating]
Execute = Callable[[], object]


def rows_per_batch(points: int) -> int:
    """Rows that are transformed at once: few enough that seven fields of them stay in a core's second-level cache."""
    return max(4, min(16, 8192 // points))


def buffer(rows: int, length: int, dtype: DTypeLike) -> Buffer:
    """Zeroed rows of complex numbers, each beginning at its own place in the cache; shape (rows, at least length)."""
    per_line = LINE // np.dtype(dtype).itemsize
    pitch = (length + per_line - 1) // per_line * per_line + per_line
    made: Buffer = pyfftw.zeros_aligned((rows, pitch), dtype=dtype, n=LINE)
    return made


def reals(rows: Buffer) -> NDArray[np.floating]:
    """The same memory as real numbers, two for each complex one."""
    return rows.view(rows.real.dtype)


def along_x(rows: Buffer, points: int, *, forward: bool) -> Execute:
    """Plan complex transforms of each row; the inverse is not divided by `points`."""
    view = rows[:, :points]
    return _plan(view, view, forward)


def along_y(rows: Buffer, points: int, *, forward: bool) -> Execute:
    """Plan transforms of each row between `points` real values and points/2 + 1 modes; the inverse is not divided."""
    real, modes = reals(rows)[:, :points], rows[:, : points // 2 + 1]
    return _plan(real, modes, forward) if forward else _plan(modes, real, forward)


def _plan(source: NDArray[np.generic], target: NDArray[np.generic], forward: bool) -> Execute:
    direction = "FFTW_FORWARD" if forward else "FFTW_BACKWARD"
    plan = pyfftw.FFTW(source, target, axes=(1,), direction=direction, flags=("FFTW_ESTIMATE",), threads=1)
    execute: Execute = plan.execute
    return execute
