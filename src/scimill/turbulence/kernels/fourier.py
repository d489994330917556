"""One-dimensional Fourier transforms of batches of rows, by FFTW.

The plans are FFTW's estimates for a batch of fixed size, stride and alignment. They depend on the grid only, neither on
timings nor on the number of ranks, and so do the last bits of what they give. This module alone imports pyfftw.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyfftw
from numpy.typing import DTypeLike, NDArray

LINE = 64  # bytes of a cache line: successive rows begin one line off a power of two, in other sets of the cache

Buffer = NDArray[np.complexfloating]
Reals = NDArray[np.floating]
Execute = Callable[[], object]


def rows_per_batch(points: int) -> int:
    """Rows that are transformed at once: few enough that seven fields of them stay in a core's second-level cache."""
    return max(4, min(16, 8192 // points))


def buffer(rows: int, length: int, dtype: DTypeLike) -> NDArray[Any]:
    """Zeroed rows, each beginning at its own place in the cache; shape (rows, at least length)."""
    per_line = LINE // np.dtype(dtype).itemsize
    pitch = (length + per_line - 1) // per_line * per_line + per_line
    made: NDArray[Any] = pyfftw.zeros_aligned((rows, pitch), dtype=dtype, n=LINE)
    return made


def transforms(first: Buffer | Reals, second: Buffer, points: int) -> tuple[Execute, Execute]:
    """Plan the transforms of the rows of one buffer into those of another, and back; neither is divided by `points`.

    Each destroys its source: in place, or with the source kept, FFTW's estimates are up to twice as slow.

    Parameters
    ----------
    first : `points` values in each row, complex or real.
    second : their modes in each row: `points`, or points/2 + 1 of real values.

    """
    modes = points if np.iscomplexobj(first) else points // 2 + 1
    values, transformed = first[:, :points], second[:, :modes]
    return _make_plan(values, transformed, "FFTW_FORWARD"), _make_plan(transformed, values, "FFTW_BACKWARD")


def _make_plan(source: NDArray[np.generic], target: NDArray[np.generic], direction: str) -> Execute:
    flags = ("FFTW_ESTIMATE", "FFTW_DESTROY_INPUT")
    plan = pyfftw.FFTW(source, target, axes=(1,), direction=direction, flags=flags, threads=1)
    execute: Execute = plan.execute
    return execute
