"""The two cameras of a Mobotix M16 node: where a pixel looks, and the presets of a scan.

The thermal camera is a pinhole camera; the optical image shows a larger field of view. A box relates the two: the edges
of the thermal field of view (left, top, right, bottom) as shares of the optical image's width and height.
"""

import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]

HALF_WIDTH = 0.41421356  # tangent of half the thermal camera's 45 degrees
HALF_HEIGHT = HALF_WIDTH * 252 / 336
# Alignment of a W02D camera, published with a burn scene: x 685 to 2627, y 215 to 1808 of 3072 x 2048 pixels.
PUBLISHED_BOX: Box = (685 / 3072, 215 / 2048, 2627 / 3072, 1808 / 2048)
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)

DIRECTIONS = ("S", "SW", "W", "NW", "N", "NE", "E", "SE")
TILTS = ("S", "H", "B", "G")  # sky, horizon, below the horizon, ground
TILT_DEGREES = (45.0, 10.0, -15.0, -45.0)
PRESETS = 32
AZIMUTHS = (180.0, 225.0, 270.0, 315.0, 0.0, 45.0, 90.0, 135.0)


def code(preset: int) -> str:
    """Return the compass code of a preset from 1 to 32, such as "SWH": direction, then tilt."""
    return DIRECTIONS[(preset - 1) // 4] + TILTS[(preset - 1) % 4]


CODES = {code(preset): preset for preset in range(1, PRESETS + 1)}


def is_sky(preset: int) -> bool:
    """Return whether a preset looks at the sky: 1, 5, … 29."""
    return 1 <= preset <= PRESETS and (preset - 1) % 4 == 0


def true_preset(preset: int, south: int) -> int:
    """Convert a node's preset to the standard numbering, in which preset 1 looks south.

    Parameters
    ----------
    preset : 1 to 32 in the numbering of the node; others are returned unchanged.
    south : the node's preset that looks at the southern sky: 1, 5, … 29.
    """
    return (preset - south) % PRESETS + 1 if 1 <= preset <= PRESETS else preset


def axes(azimuth: float, tilt: float) -> NDArray[np.float64]:
    """Return the forward, right and up directions of a camera, as rows of (east, north, up).

    Azimuth is in degrees from north, tilt in degrees above the horizontal.
    """
    a, e = np.radians(azimuth), np.radians(tilt)
    return np.array(
        [
            [np.cos(e) * np.sin(a), np.cos(e) * np.cos(a), np.sin(e)],
            [np.cos(a), -np.sin(a), 0.0],
            [-np.sin(e) * np.sin(a), -np.sin(e) * np.cos(a), np.cos(e)],
        ]
    )


def tangents(shape: tuple[int, int], box: Box) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the tangents of the angles, right and up, at which the columns and rows of an image look.

    Parameters
    ----------
    shape : rows and columns of the image.
    box : the thermal field of view as shares of the image; (0, 0, 1, 1) for a thermal image itself.
    """
    left, top, right, bottom = box
    x = ((np.arange(shape[1]) + 0.5) / shape[1] - left) / (right - left)
    y = ((np.arange(shape[0]) + 0.5) / shape[0] - top) / (bottom - top)
    return (2 * x - 1) * HALF_WIDTH, (1 - 2 * y) * HALF_HEIGHT
