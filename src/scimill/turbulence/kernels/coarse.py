"""Fields on a coarser grid of the same periodic box.

The points of the coarse grid are every `factor`-th point of the fine grid in both directions. All three methods keep
the positions of these points, so nothing moves by a fraction of a cell.
"""

import numpy as np
import scipy.fft
from numpy.typing import NDArray

Field = NDArray[np.float64]

METHODS = ("spectral", "mean", "sample")
"""Methods to make a coarse field."""


def coarsen(field: Field, factor: int, method: str) -> Field:
    """Put a field on the coarse grid.

    Parameters
    ----------
    field : float64, shape (..., n, n), periodic; the factor divides n.
    factor : fine cells per coarse cell, in each direction.
    method : "spectral" keeps the Fourier modes that the coarse grid resolves, so nothing is aliased; "mean" averages
        over the coarse cell around each point; "sample" takes the values at the points and aliases finer modes.

    Returns
    -------
    Field : shape (..., n/factor, n/factor), a new array.

    Raises
    ------
    ValueError : the factor does not divide the grid, or the method is unknown.
    """
    if field.shape[-1] % factor or field.shape[-2] % factor:
        raise ValueError(f"{factor} does not divide a grid of {field.shape[-2]} x {field.shape[-1]} points")
    return {"spectral": truncate, "mean": average, "sample": sample}[_check_method(method)](field, factor)


def coarsen_state(density: Field, vorticity: Field, factor: int, method: str) -> tuple[Field, Field]:
    """Put a state on the coarse grid, with a vorticity that has a potential.

    Vorticity is a Laplacian in a periodic box, so its mean is zero. Sampling does not preserve this, so the mean is
    subtracted.

    Parameters
    ----------
    density, vorticity : float64, shape (..., n, n).
    factor, method : see `coarsen`.
    """
    coarse = coarsen(vorticity, factor, method)
    return coarsen(density, factor, method), coarse - coarse.mean(axis=(-2, -1), keepdims=True)


def _check_method(method: str) -> str:
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; allowed: {', '.join(METHODS)}")
    return method


def truncate(field: Field, factor: int) -> Field:
    """Keep the Fourier modes below the Nyquist mode of the coarse grid, whose phase is not resolved."""
    if factor == 1:
        return field.copy()
    fine, coarse = field.shape[-2:], tuple(n // factor for n in field.shape[-2:])
    rows, columns = (-(-n // 2) for n in coarse)  # modes from 0 to below Nyquist
    modes = scipy.fft.rfft2(field)
    kept = np.zeros((*field.shape[:-2], coarse[0], coarse[1] // 2 + 1), dtype=modes.dtype)
    kept[..., :rows, :columns] = modes[..., :rows, :columns]
    if rows > 1:
        kept[..., 1 - rows :, :columns] = modes[..., 1 - rows :, :columns]
    kept *= (coarse[0] * coarse[1]) / (fine[0] * fine[1])
    result: Field = scipy.fft.irfft2(kept, s=coarse)
    return result


def average(field: Field, factor: int) -> Field:
    """Average over the cells centred on coarse points; trapezoidal rule if cell edges lie on fine points.

    The mean over the fine points that start at a coarse point would belong to a place half a coarse cell away.
    """
    for axis in (-2, -1):
        field = _average_along(field, factor, axis)
    return field


def _average_along(field: Field, factor: int, axis: int) -> Field:
    reach = factor // 2
    points = np.arange(0, field.shape[axis], factor)
    total = np.zeros_like(np.take(field, points, axis))
    for offset in range(-reach, reach + 1):
        is_edge = factor % 2 == 0 and abs(offset) == reach
        weight = 0.5 if is_edge else 1.0
        total += weight * np.take(field, points + offset, axis, mode="wrap")
    return total / factor


def sample(field: Field, factor: int) -> Field:
    """Take the values at the coarse points."""
    return np.array(field[..., ::factor, ::factor])
