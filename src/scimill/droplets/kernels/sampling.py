"""Random droplets: initial state, surrounding air and output times.

Each coordinate is uniform on its range, or log-uniform if the range spans decades. The six inputs may instead follow a
scrambled Sobol sequence (Sobol 1967; Owen 1998), which fills the ranges more evenly. Times and resampled droplets are
always random: a point of the sequence that gives a weird droplet can only be skipped.
"""

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Single = NDArray[np.float32]

INPUTS = ("initial_radius", "initial_temperature", "salinity", "air_temperature", "relative_humidity", "air_density")
SOBOL_BITS = 32  # with more bits, scipy cannot start in the middle of the sequence
SOBOL_LENGTH = 1 << SOBOL_BITS


class Ranges(NamedTuple):
    """Ranges of the inputs (SI units) and of time (s), and how salinity and temperature depend on other inputs."""

    radius: tuple[float, float]
    temperature: tuple[float, float]
    temperature_offset: tuple[float, float] | None
    salinity: tuple[float, float]
    air_temperature: tuple[float, float]
    relative_humidity: tuple[float, float]
    air_density: tuple[float, float]
    time: tuple[float, float]
    most_salt_per_volume: float | None
    """stored salinity per droplet volume, kg/m³: limits salinity where it is below the end of the range"""


def _linear(x: Array, bounds: tuple[float, float]) -> Array:
    return bounds[0] + x * (bounds[1] - bounds[0])


def _logarithmic(x: Array, low: float, high: float | Array) -> Array:
    return low * np.exp(x * np.log(np.asarray(high) / low))


def inputs(x: Array, ranges: Ranges) -> Single:
    """Map points of the unit cube, shape (n, 6), to droplets, float32 of shape (6, n), in the order of INPUTS.

    Salinity is log-uniform up to the end of its range, or up to the cap for the droplet's volume. The cap uses the
    radius rounded to float32, so that the stored droplet respects it.
    """
    out = np.empty((6, len(x)), dtype=np.float32)
    out[0] = _logarithmic(x[:, 0], *ranges.radius)
    out[3] = _linear(x[:, 3], ranges.air_temperature)
    out[4] = _linear(x[:, 4], ranges.relative_humidity)
    out[5] = _linear(x[:, 5], ranges.air_density)
    if ranges.temperature_offset is None:
        out[1] = _linear(x[:, 1], ranges.temperature)
    else:
        out[1] = out[3] + _linear(x[:, 1], ranges.temperature_offset)
    out[2] = _logarithmic(x[:, 2], ranges.salinity[0], _most_salt(out[0].astype(float), ranges))
    return out


def _most_salt(radius: Array, ranges: Ranges) -> float | Array:
    if ranges.most_salt_per_volume is None:
        return ranges.salinity[1]
    return np.minimum(ranges.salinity[1], ranges.most_salt_per_volume * (4 / 3) * np.pi * radius**3)


def times(stream: np.random.Generator, n: int, samples: int, ranges: Ranges) -> Single:
    """Draw log-uniform times, float32 of shape (n, samples), ascending along the samples."""
    drawn: Single = _logarithmic(stream.random((n, samples)), *ranges.time).astype(np.float32)
    drawn.sort(axis=1)
    return drawn


class Sobol:
    """Points of one scrambled Sobol sequence, by index; fastest in ascending order."""

    def __init__(self, stream: np.random.Generator) -> None:
        from scipy.stats import qmc  # slower to import than everything else that --help needs

        self._engine = qmc.Sobol(len(INPUTS), scramble=True, bits=SOBOL_BITS, rng=stream)

    def points(self, first: int, n: int) -> Array:
        """Return points first … first + n − 1, float64 of shape (n, 6)."""
        if first < self._engine.num_generated:
            self._engine.reset()
        if first > self._engine.num_generated:
            self._engine.fast_forward(first - self._engine.num_generated)
        with warnings.catch_warnings():
            # scipy warns unless a power of two is drawn; here the next block continues the sequence.
            warnings.simplefilter("ignore", UserWarning)
            points: Array = self._engine.random(n)
        return points
