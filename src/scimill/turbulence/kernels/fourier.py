"""One-dimensional Fourier transforms of batches of rows, by FFTW or by SciPy.

Batches have a fixed size, stride and alignment, and FFTW estimates its plans from these. So the last bits of the
results depend on the library and the grid only, not on timings or the number of ranks. Only this module imports pyfftw.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
import scipy.fft
from numpy.typing import DTypeLike, NDArray

LINE = 64  # bytes of a cache line: rows are offset by one line, so they lie in different sets of the cache

Buffer = NDArray[np.complexfloating]
Reals = NDArray[np.floating]
Execute = Callable[[], NDArray[Any]]
Library = Literal["fftw", "scipy"]
Choice = Literal["auto", "fftw", "scipy"]


def choose_library(choice: Choice = "auto") -> Library:
    """Return the library to use: for "auto" FFTW, which is faster, or SciPy where pyfftw is not installed.

    Raises
    ------
    ModuleNotFoundError : FFTW is asked for, and pyfftw is not installed.
    """
    if choice == "scipy":
        return "scipy"
    try:
        import pyfftw  # noqa: F401
    except ImportError:
        if choice == "fftw":
            raise
        return "scipy"
    return "fftw"


def rows_per_batch(points: int) -> int:
    """Return the rows per transform: few enough that seven fields of them fit in the second-level cache of a core."""
    return max(4, min(16, 8192 // points))


def buffer(rows: int, length: int, dtype: DTypeLike) -> NDArray[Any]:
    """Return zeroed rows that start in different sets of the cache; shape (rows, at least length)."""
    item = np.dtype(dtype).itemsize
    per_line = LINE // item
    pitch = (length + per_line - 1) // per_line * per_line + per_line
    memory = np.zeros(rows * pitch * item + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    return memory[start : start + rows * pitch * item].view(dtype).reshape(rows, pitch)


def complex_pair(rows: int, points: int, dtype: DTypeLike, library: Library) -> tuple[Buffer, Buffer]:
    """Return the two buffers of complex transforms: one array for SciPy, which is fastest in place."""
    first = buffer(rows, points, dtype)
    return first, first if library == "scipy" else buffer(rows, points, dtype)


def transforms(first: Buffer | Reals, second: Buffer, points: int, library: Library) -> tuple[Execute, Execute]:
    """Plan the transforms of the rows of one buffer into those of another, and back; neither divides by `points`.

    Each returns the transformed rows: in the buffer, or in an array of its own. Each destroys its source: FFTW's
    estimated plans that keep it, or work in place, are up to twice as slow.

    Parameters
    ----------
    first : `points` values in each row, complex or real.
    second : modes in each row: `points`, or points/2 + 1 if the values are real.
    library : what transforms.

    """
    modes = points if np.iscomplexobj(first) else points // 2 + 1
    values, transformed = first[:, :points], second[:, :modes]
    if library == "fftw":
        return _fftw(values, transformed, second, "FFTW_FORWARD"), _fftw(transformed, values, first, "FFTW_BACKWARD")
    # The norm is the transform that divides.
    if np.iscomplexobj(first):
        return _scipy_in_place(scipy.fft.fft, values, "backward"), _scipy_in_place(scipy.fft.ifft, values, "forward")
    return (
        partial(scipy.fft.rfft, values, axis=1, norm="backward", overwrite_x=True),
        partial(scipy.fft.irfft, transformed, n=points, axis=1, norm="forward", overwrite_x=True),
    )


def _scipy_in_place(transform: Callable[..., NDArray[Any]], values: NDArray[Any], norm: str) -> Execute:
    def execute() -> NDArray[Any]:
        result = transform(values, axis=1, norm=norm, overwrite_x=True)
        if not np.may_share_memory(result, values):  # it may overwrite, but need not
            values[...] = result
        return values

    return execute


def _fftw(source: NDArray[Any], target: NDArray[Any], whole: NDArray[Any], direction: str) -> Execute:
    import pyfftw

    flags = ("FFTW_ESTIMATE", "FFTW_DESTROY_INPUT")
    plan = pyfftw.FFTW(source, target, axes=(1,), direction=direction, flags=flags, threads=1)

    def execute() -> NDArray[Any]:
        plan.execute()
        return whole

    return execute
