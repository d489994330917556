"""The Köhler curve: relative humidity in equilibrium with a droplet, RH = w exp(κ/(r Tf)), at the air's temperature.

w is the water activity (`physics.water_activity`).
"""

from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq

from scimill.droplets.kernels.physics import AnyConstants, Array, dry_core, has_core, water_activity

BISECTIONS = 60  # each halves an interval of at most a few decades: enough for all digits
LARGEST_RADIUS = 1.0  # m


def critical_radius(S: Array, Tf: Array, k: AnyConstants) -> Array:
    """Return the radius (m) at the maximum of the Köhler curve, for solute term S (kg) and temperature Tf (K)."""
    dilute: Array = np.sqrt(3 * k.raoult * S * Tf / k.kelvin)
    return _critical_radius(dilute, S, Tf, k) if has_core(k) else dilute


def _critical_radius(dilute: Array, S: Array, Tf: Array, k: AnyConstants) -> Array:
    """Bisect d ln RH/dr = −κ/(Tf r²) + 3 σS r²/(x (x + σS)), with x = r³ − rd³, in the logarithm of r.

    Where x > r³/2 and r > 2 dilute, the first term is the larger one: there is the upper end.
    """
    core, attraction = dry_core(S, k), k.raoult * S
    low, high = np.log(np.cbrt(core)), np.log(np.maximum(2 * dilute, 1.3 * np.cbrt(core)))
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        r = np.exp(middle)
        x = np.maximum(r**3 - core, 0.0)
        is_rising = k.kelvin / Tf * x * (x + attraction) < 3 * attraction * r**4
        low, high = np.where(is_rising, middle, low), np.where(is_rising, high, middle)
    radius: Array = np.exp((low + high) / 2)
    return radius


def critical_humidity(radius: Array, S: Array, Tf: Array, k: AnyConstants) -> Array:
    """Return the relative humidity at the maximum of the Köhler curve, given its radius (m)."""
    if has_core(k):
        return water_activity(radius, S, k) * np.exp(k.kelvin / (Tf * radius))
    humidity: Array = np.exp(2 * k.kelvin / (3 * Tf * radius))
    return humidity


def equilibrium_radius(S: float, Tf: float, humidity: float, k: AnyConstants) -> float | None:
    """Find the stable radius (m) of the Köhler curve at a humidity; None if there is none.

    Parameters
    ----------
    S, Tf, humidity : solute term (kg), temperature (K) of air and droplet, relative humidity.
    k : combined constants.

    """
    if S == 0 or humidity <= 0:
        return None
    return (_wet_radius if has_core(k) else _dilute_radius)(S, Tf, humidity, k)


def _dilute_radius(S: float, Tf: float, humidity: float, k: AnyConstants) -> float | None:
    curvature, solute, minus_log_humidity = k.kelvin / Tf, k.raoult * S, float(-np.log(humidity))

    def cubic(x: float) -> float:
        """Write the curve as a cubic in x = 1/r; beyond the curve's maximum its only root is the stable radius."""
        return solute * x * x * x - curvature * x - minus_log_humidity

    maximum, saturated = np.sqrt(curvature / (3 * solute)), np.sqrt(curvature / solute)
    x = root(cubic, float(maximum), 1.01 * float(saturated + np.cbrt(max(minus_log_humidity, 0.0) / solute)))
    return 1 / x if x else None


def _wet_radius(S: float, Tf: float, humidity: float, k: AnyConstants) -> float | None:
    """Search between the dry core and the maximum of the curve, in units of the core's radius."""
    solute, air = np.array(S), np.array(Tf)
    core = float(np.cbrt(dry_core(solute, k)))
    largest = float(critical_radius(solute, air, k)) if k.kelvin > 0 else LARGEST_RADIUS
    attraction = k.raoult * S / core**3

    def deficit(y: float) -> float:
        """Multiply humidity − curve by the denominator of the water activity, which is 0 nowhere."""
        water = y**3 - 1
        return humidity * (water + attraction) - water * float(np.exp(k.kelvin / (Tf * core * y)))

    y = root(deficit, 1.0, largest / core)
    return y * core if y else None


def root(function: Callable[[float], float], low: float, high: float) -> float | None:
    """Find the root between two points, to rounding; None if none is found."""
    if not function(low) * function(high) <= 0:
        return None
    found, report = brentq(function, low, high, xtol=1e-12, full_output=True, disp=False)
    return float(found) if report.converged else None
