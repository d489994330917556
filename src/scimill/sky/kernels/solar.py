"""Elevation of the sun by the low-precision formulas of the Astronomical Almanac: 0.01 degrees, 1950 to 2050."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

NANOSECONDS_PER_DAY = 86_400 * 10**9
J2000 = 10_957.5  # days from 1970-01-01 to 2000-01-01 12:00


def elevation(time: ArrayLike, latitude: ArrayLike, longitude: ArrayLike) -> NDArray[np.float64]:
    """Compute the geometric elevation of the sun's centre, without refraction.

    Parameters
    ----------
    time : int64, ns since 1970-01-01 00:00 UTC.
    latitude, longitude : degrees, north and east positive.

    Returns
    -------
    Degrees, in the broadcast shape of the arguments.

    """
    ticks = np.asarray(time, dtype=np.int64)
    day, rest = np.divmod(ticks, NANOSECONDS_PER_DAY)  # float64 cannot hold days to the nanosecond
    n = (day - J2000) + rest / NANOSECONDS_PER_DAY
    right_ascension, declination = position(n)
    sidereal = 280.46062 + 360.98564737 * n
    hour_angle = np.radians(sidereal + np.asarray(longitude, dtype=float)) - right_ascension
    phi = np.radians(np.asarray(latitude, dtype=float))
    sine = np.sin(phi) * np.sin(declination) + np.cos(phi) * np.cos(declination) * np.cos(hour_angle)
    degrees: NDArray[np.float64] = np.degrees(np.arcsin(np.clip(sine, -1.0, 1.0)))
    return degrees


def position(n: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute right ascension and declination of the sun, radians; n: days since J2000."""
    anomaly = np.radians(357.528 + 0.9856003 * n)
    longitude = np.radians(280.460 + 0.9856474 * n + 1.915 * np.sin(anomaly) + 0.020 * np.sin(2 * anomaly))
    obliquity = np.radians(23.439 - 4e-7 * n)
    right_ascension = np.arctan2(np.cos(obliquity) * np.sin(longitude), np.cos(longitude))
    return right_ascension, np.arcsin(np.sin(obliquity) * np.sin(longitude))
