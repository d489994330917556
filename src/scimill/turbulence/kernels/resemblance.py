"""Comparison of states on grids that may differ: errors, correlations, fluxes, spectra.

States are compared on the modes that both dealiased grids resolve. The horizon as a measure is from Kochkov et al.,
PNAS 118 (2021) e2101784118, who use the time at which the correlation of the vorticities falls below 0.95.
"""

from typing import NamedTuple

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from scimill.turbulence.kernels.spectral import highest_mode

Grid = NDArray[np.floating]
Numbers = NDArray[np.float64]


class Agreement(NamedTuple):
    """Agreement of a state with the truth."""

    density_error: float
    """root mean square of the difference, relative to that of the truth"""
    vorticity_error: float
    """as density_error"""
    correlation: float
    """correlation of the vorticities"""


def resample(field: Grid, points: int) -> Numbers:
    """Put a field, shape (..., n, n), on another grid of the same box, with the modes that both grids resolve."""
    n = field.shape[-1]
    m = min(highest_mode(n), highest_mode(points))
    modes = scipy.fft.rfft2(field.astype(np.float64))
    kept = np.zeros((*field.shape[:-2], points, points // 2 + 1), complex)
    kept[..., : m + 1, : m + 1] = modes[..., : m + 1, : m + 1]
    kept[..., -m:, : m + 1] = modes[..., -m:, : m + 1]
    made: Numbers = scipy.fft.irfft2(kept * (points / n) ** 2, s=(points, points))
    return made


def measure_agreement(state: Numbers, truth: Numbers) -> Agreement:
    """Compare density and vorticity, shape (2, x, y), with the truth on the same grid."""
    density, vorticity = (_error(*pair) for pair in zip(state, truth, strict=True))
    ours, theirs = (field - field.mean() for field in (state[1], truth[1]))
    return Agreement(density, vorticity, float((ours * theirs).sum() / np.sqrt((ours**2).sum() * (theirs**2).sum())))


def _error(field: Numbers, truth: Numbers) -> float:
    return float(np.sqrt(((field - truth) ** 2).sum() / (truth**2).sum()))


def horizon(times: Numbers, correlations: Numbers, threshold: float) -> float:
    """Return the time at which a correlation, 1 at time 0, falls below a threshold; the last time if it never does.

    The correlation is interpolated linearly. NaN, from a run that has diverged, counts as below the threshold.
    """
    below = ~(correlations >= threshold)
    if not below.any():
        return float(times[-1])
    at = int(np.argmax(below))
    before = (0.0, 1.0) if at == 0 else (times[at - 1], correlations[at - 1])
    after = (times[at], correlations[at])
    if not np.isfinite(after[1]):
        return float(before[0])
    share = (before[1] - threshold) / (before[1] - after[1])
    return float(before[0] + share * (after[0] - before[0]))


def flux(state: Numbers, box: float) -> float:
    """Return the particle flux Γn = −⟨n ∂φ/∂y⟩ of density and vorticity, shape (2, x, y)."""
    points = state.shape[-1]
    k = 2 * np.pi / box * scipy.fft.fftfreq(points, 1 / points)
    ky = k[: points // 2 + 1].copy()
    ky[-1] = 0  # the Nyquist mode has no derivative
    k2 = k[:, None] ** 2 + k[None, : points // 2 + 1] ** 2
    k2[0, 0] = 1
    slope = -1j * ky * scipy.fft.rfft2(state[1]) / k2
    slope[0, 0] = 0
    return float(-(state[0] * scipy.fft.irfft2(slope, s=state.shape[1:])).mean())


def spectrum(vorticity: Numbers) -> Numbers:
    """Return ½⟨ω²⟩ by shell of wavenumbers m − ½ … m + ½, in units of 2π/box, m = 0 … points/2 − 1."""
    points = vorticity.shape[-1]
    modes = scipy.fft.rfft2(vorticity) / points**2
    weight = np.full(points // 2 + 1, 2.0)
    weight[[0, -1]] = 1.0
    rows = scipy.fft.fftfreq(points, 1 / points)[:, None]
    shell = np.rint(np.hypot(rows, np.arange(points // 2 + 1)[None, :])).astype(int)
    energy: Numbers = (0.5 * weight * np.abs(modes) ** 2).ravel()
    return np.bincount(shell.ravel(), energy, points)[: points // 2].astype(np.float64)
