"""One-dimensional Fourier transforms of batches of rows, by FFTW.

FFTW estimates its plans for batches of fixed size, stride and alignment. So the plans, and the last bits of the
results, depend on the grid only, not on timings or the number of ranks. Only this module imports pyfftw.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyfftw
from numpy.typing import DTypeLike, NDArray

LINE = 64  # bytes of a cache line: rows are offset by one line, so they lie in different sets of the cache

Buffer = NDArray[np.complexfloating]
Reals = NDArray[np.floating]
Execute = Callable[[], object]


def rows_per_batch(points: int) -> int:
    """Return the rows per transform: few enough that seven fields of them fit in the second-level cache of a core."""
    return max(4, min(16, 8192 // points))


def buffer(rows: int, length: int, dtype: DTypeLike) -> NDArray[Any]:
    """Return zeroed rows that start in different sets of the cache; shape (rows, at least length)."""
    per_line = LINE // np.dtype(dtype).itemsize
    pitch = (length + per_line - 1) // per_line * per_line + per_line
    made: NDArray[Any] = pyfftw.zeros_aligned((rows, pitch), dtype=dtype, n=LINE)
    return made


def transforms(first: Buffer | Reals, second: Buffer, points: int) -> tuple[Execute, Execute]:
    """Plan the transforms of the rows of one buffer into those of another, and back; neither divides by `points`.

    Each transform destroys its source: estimated plans that keep it, or work in place, are up to twice as slow.

    Parameters
    ----------
    first : `points` values in each row, complex or real.
    second : modes in each row: `points`, or points/2 + 1 if the values are real.

    """
    modes = points if np.iscomplexobj(first) else points // 2 + 1
    values, transformed = first[:, :points], second[:, :modes]
    return _make_plan(values, transformed, "FFTW_FORWARD"), _make_plan(transformed, values, "FFTW_BACKWARD")


def _make_plan(source: NDArray[np.generic], target: NDArray[np.generic], direction: str) -> Execute:
    flags = ("FFTW_ESTIMATE", "FFTW_DESTROY_INPUT")
    plan = pyfftw.FFTW(source, target, axes=(1,), direction=direction, flags=flags, threads=1)
    execute: Execute = plan.execute
    return execute
