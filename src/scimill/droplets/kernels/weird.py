"""Weird droplets: classes of results that no cloud droplet can have.

The classes, their names and their rules are those of the original generator, which users know; ``dried`` is new.
A droplet may be in several classes, so a record has one bit per class.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scimill.droplets.kernels import lanes

CLASSES = (
    "inputs-evaluation_warning",
    "inputs-failed_solve",
    "inputs-invalid_inputs",
    "inputs-timeout_inputs",
    "outputs-radius_nonpositive",
    "outputs-radius_too_small",
    "outputs-radius_too_large",
    "outputs-temperature_nonpositive",
    "outputs-temperature_too_small",
    "outputs-temperature_too_large",
    "dried",
)
"""Bit i of a record's classes stands for ``CLASSES[i]``."""

BITS = {name: np.uint16(1 << i) for i, name in enumerate(CLASSES)}
_ENDINGS = {
    lanes.NOT_FINITE: "inputs-evaluation_warning",
    lanes.STEP_TOO_SMALL: "inputs-failed_solve",
    lanes.INVALID: "inputs-invalid_inputs",
    lanes.TOO_MANY_STEPS: "inputs-timeout_inputs",
    lanes.DRIED: "dried",
}


class Limits(NamedTuple):
    """Accepted results: radius in m, temperature in K, limits included."""

    radius: tuple[float, float]
    temperature: tuple[float, float]


def classify(
    radius: NDArray[np.float32], temperature: NDArray[np.float32], status: NDArray[np.uint8], limits: Limits
) -> NDArray[np.uint16]:
    """Determine the classes of each record, shape (n, samples); 0 if it is accepted.

    Parameters
    ----------
    radius, temperature : values as stored (float32), shape (n, samples).
    status : how the integration ended (`lanes`), shape (n, samples).
    limits : the accepted values.

    """
    ended = np.zeros(max(_ENDINGS) + 1, dtype=np.uint16)
    for code, name in _ENDINGS.items():
        ended[code] = BITS[name]
    # The limits are rounded to float32, too, so that a stored value equal to a limit is accepted.
    (r_low, r_high), (T_low, T_high) = np.array(limits, dtype=np.float32)
    classes = ended[status]
    for name, condition in (
        ("inputs-evaluation_warning", ~(np.isfinite(radius) & np.isfinite(temperature)) & (classes == 0)),
        ("outputs-radius_nonpositive", radius <= 0),
        ("outputs-radius_too_small", (radius > 0) & (radius < r_low)),
        ("outputs-radius_too_large", radius > r_high),
        ("outputs-temperature_nonpositive", temperature <= 0),
        ("outputs-temperature_too_small", (temperature > 0) & (temperature < T_low)),
        ("outputs-temperature_too_large", temperature > T_high),
    ):
        classes[condition] |= BITS[name]
    return classes


def droplet_classes(classes: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Combine the classes of all times of a droplet, shape (n, samples), into those of the droplet, shape (n,)."""
    any_time: NDArray[np.uint16] = np.bitwise_or.reduce(classes, axis=1)
    return any_time


def count_classes(classes: NDArray[np.uint16]) -> NDArray[np.uint32]:
    """Count the records in each class."""
    return np.array([np.count_nonzero(classes & bit) for bit in BITS.values()], dtype=np.uint32)
