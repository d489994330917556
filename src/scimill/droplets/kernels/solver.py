"""Solve stored droplets: float32 inputs and outputs, float64 in between."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scimill.droplets.kernels import lanes
from scimill.droplets.kernels.physics import AnyConstants, saturation_pressure

Single = NDArray[np.float32]


class SolverSettings(NamedTuple):
    """Everything that a result depends on, apart from the droplet itself."""

    constants: AnyConstants
    saturation: tuple[float, float, float]
    """e0 (Pa), a, b (K) of `physics.saturation_pressure`"""
    solute_per_salinity: float
    """factor from the stored salinity to the solute term S (kg)"""
    tolerance: float
    max_steps: int
    dry_radius: float
    """m"""


def solve(settings: SolverSettings, droplets: Single, times: Single) -> tuple[Single, Single, NDArray[np.uint8]]:
    """Integrate droplets to their output times.

    Parameters
    ----------
    settings : constants and accuracy.
    droplets : float32, shape (6, n), in the order of `sampling.INPUTS`.
    times : float32, shape (n, samples), s.

    Returns
    -------
    radius (m), temperature (K) : float32, shape (n, samples).
    status : uint8, shape (n, samples); see `lanes.integrate`.

    """
    # The kernel is compiled for contiguous arrays; selecting rows gives arrays that are not.
    r, T, salinity, Tf, RH, rho = droplets.astype(np.float64, order="C")
    precise = times.astype(np.float64, order="C")
    with np.errstate(all="ignore"):  # the status reports unphysical droplets
        e = saturation_pressure(Tf, *settings.saturation)
        radius, temperature, status = lanes.integrate(
            r, T, settings.solute_per_salinity * salinity, Tf, RH, rho, e, precise, settings.constants,
            tolerance=settings.tolerance, max_steps=settings.max_steps, floor=settings.dry_radius,
        )  # fmt: skip
        return radius.astype(np.float32), temperature.astype(np.float32), status
