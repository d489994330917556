"""A synthetic sky for both cameras: one cloud layer, moved by the wind, in colour and thermal infrared.

The cloud field f has a power spectrum k^-3. Its threshold is the quantile that gives the wanted cover; above it the
optical depth is 6 (f - threshold)^1.2. At elevation e, the clear sky's temperature is
T_air - 8 K - 95 K exp(-0.45 / sin e): close to the air temperature at the horizon, about -60 °C for dry air at the
zenith. The numbers are chosen to look like published frames of the nodes (-53 to +6 °C); this is not a radiative
transfer model.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[np.float64]

EXTENT = 24_000.0  # m, side of the periodic field
LAPSE = 8.0  # K/km between the ground and the cloud base
NOISE = 0.07  # K, noise of the thermal camera
ABSORPTION = 1.2  # a cloud's emissivity is 1 - exp(-ABSORPTION · optical depth)
LOWEST = 0.03  # sine of the elevation below which clouds are not traced


class Sky(NamedTuple):
    """The sky at one instant."""

    cover: float
    """share of the sky that is cloudy"""
    threshold: float
    """value of the field above which there is cloud"""
    base: float
    """cloud base, m above the camera"""
    air: float
    """air temperature, °C"""
    sun: tuple[float, float]
    """azimuth and elevation, degrees"""
    shift: tuple[float, float]
    """displacement of the field to the east and north, m"""


def cloud_field(stream: np.random.Generator, size: int) -> NDArray[np.float32]:
    """Make a periodic random field of unit variance, (size, size), with power spectrum k^-3."""
    k = np.hypot(np.fft.fftfreq(size, 1 / size)[:, None], np.fft.rfftfreq(size, 1 / size)[None, :])
    k[0, 0] = np.inf
    spectrum = np.fft.rfft2(stream.standard_normal((size, size))) * k**-1.5
    field = np.fft.irfft2(spectrum, (size, size))
    scaled: NDArray[np.float32] = (field / field.std()).astype(np.float32)
    return scaled


@njit(cache=True)
def _depth(field: NDArray[np.float32], east: float, north: float, threshold: float) -> float:
    """Interpolate the optical depth of the layer linearly at a point, in m."""
    size = field.shape[0]
    x, y = (east / EXTENT) % 1.0 * size, (north / EXTENT) % 1.0 * size
    i, j = math.floor(y), math.floor(x)
    v, u = y - i, x - j
    i, j = i % size, j % size
    below, right = (i + 1) % size, (j + 1) % size
    low = field[i, j] * (1 - u) + field[i, right] * u
    high = field[below, j] * (1 - u) + field[below, right] * u
    excess = low * (1 - v) + high * v - threshold
    return 6.0 * excess**1.2 if excess > 0 else 0.0


@njit(cache=True)
def depths(
    field: NDArray[np.float32], axes: Array, x: Array, y: Array, base: float, shift: Array, threshold: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Compute the sine of the elevation and the optical depth of each pixel, (rows, columns) each.

    Parameters
    ----------
    field : from `cloud_field`.
    axes : directions of the camera, from `camera.axes`.
    x, y : tangents of the columns and rows, from `camera.tangents`.
    base, shift, threshold : as in `Sky`.
    """
    sine = np.empty((len(y), len(x)), dtype=np.float32)
    depth = np.zeros((len(y), len(x)), dtype=np.float32)
    for row in range(len(y)):
        for column in range(len(x)):
            east = axes[0, 0] + x[column] * axes[1, 0] + y[row] * axes[2, 0]
            north = axes[0, 1] + x[column] * axes[1, 1] + y[row] * axes[2, 1]
            up = axes[0, 2] + x[column] * axes[1, 2] + y[row] * axes[2, 2]
            sine[row, column] = up / math.sqrt(east * east + north * north + up * up)
            if sine[row, column] > LOWEST:
                scale = base / up
                depth[row, column] = _depth(field, east * scale - shift[0], north * scale - shift[1], threshold)
    return sine, depth


def temperature(sine: NDArray[np.float32], depth: NDArray[np.float32], sky: Sky) -> NDArray[np.float32]:
    """Compute the brightness temperature, °C, of pixels from the results of `depths`."""
    clear = sky.air - 8.0 - 95.0 * np.exp(-0.45 / np.maximum(sine, LOWEST))
    cloud = sky.air - LAPSE * sky.base / 1000.0
    emissivity = 1.0 - np.exp(-ABSORPTION * depth)
    seen = emissivity * cloud + (1.0 - emissivity) * clear
    result: NDArray[np.float32] = np.where(sine > 0, seen, sky.air - 1.0).astype(np.float32)
    return result


def daylight(elevation: float) -> float:
    """Compute the brightness of the sky from the sun's elevation in degrees: 1 by day, 0.03 at night."""
    return 0.03 + 0.97 / (1.0 + math.exp(-(elevation + 3.0) / 2.5))


def colour(
    sine: NDArray[np.float32], depth: NDArray[np.float32], glow: NDArray[np.float32], sky: Sky
) -> NDArray[np.float32]:
    """Compute red, green and blue from 0 to 1, (rows, columns, 3).

    Parameters
    ----------
    sine, depth : of each pixel, from `depths`.
    glow : cosine of the angle to the sun.
    sky : the sky.
    """
    height = np.clip(sine, 0.0, 1.0)[..., None]
    clear = (1 - height) * np.array([0.70, 0.80, 0.92], np.float32) + height * np.array([0.15, 0.32, 0.68], np.float32)
    transmission = np.exp(-depth)[..., None]
    brightness = (0.92 - 0.12 * np.minimum(depth, 4.0))[..., None]
    cloud = brightness * np.array([1.0, 1.0, 1.02], np.float32)
    seen = transmission * clear + (1 - transmission) * cloud
    if sky.sun[1] > 0:
        seen = seen + transmission * (np.maximum(glow, 0.0) ** 60)[..., None]
    ground = np.array([0.22, 0.24, 0.17], np.float32)
    seen = np.where(sine[..., None] > 0, seen, ground)
    return np.clip(seen * np.float32(daylight(sky.sun[1])), 0.0, 1.0).astype(np.float32)


def glow(axes: Array, x: Array, y: Array, sun: tuple[float, float]) -> NDArray[np.float32]:
    """Compute the cosine of the angle between each pixel and the sun, (rows, columns)."""
    azimuth, elevation = np.radians(sun[0]), np.radians(sun[1])
    towards = np.array([np.cos(elevation) * np.sin(azimuth), np.cos(elevation) * np.cos(azimuth), np.sin(elevation)])
    forward, right, up = axes @ towards
    along = forward + x[None, :] * right + y[:, None] * up
    length = np.sqrt(1 + x[None, :] ** 2 + y[:, None] ** 2)
    cosine: NDArray[np.float32] = (along / length).astype(np.float32)
    return cosine
