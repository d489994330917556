"""The equations of `physics` as the fast integrator evaluates them, in (u = r², T), with their analytic Jacobian.

There are two forms: that of the original model, and that with corrections for small, salty and falling droplets. The
type of the constants chooses between them when a kernel is compiled, so the original pays nothing for the corrections.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numba import njit
from numba.extending import overload
from numpy.typing import NDArray

from scimill.droplets.kernels.physics import DRAG_COEFFICIENT, AnyConstants, CloudConstants, Constants

SMALLEST_U, SMALLEST_T = 1e-40, 1.0  # m², K: a trial point beyond them is rejected
DRY = 1e-6  # a droplet has dried if its radius exceeds that of its dry core by less than this share

# Rows of the lane array: the state of each lane, the air around its droplet, and what the corrections need.
(
    U, TEMPERATURE, LEFT, STEP, STEPS, EVENT, VAPOUR, PRESSURE, INVERSE_AIR, SOLUTE, COOLING, AIR, FLOOR, EDGE,
    VAPOUR_SHIFT, VAPOUR_LENGTH, VAPOUR_AREA, HEAT_SHIFT, HEAT_LENGTH, HEAT_AREA, CORE, ATTRACTION, LIFT, DRAG, ROWS,
) = range(25)  # fmt: skip

F = TypeVar("F", bound=Callable[..., Any])
Array = NDArray[np.float64]
Slopes = tuple[float, float]
SlopesAndJacobian = tuple[float, float, float, float, float, float]

# Neither "nnan" nor "ninf": a trial step may overflow, and the overflow must be detected.
FAST = {"contract", "nsz", "reassoc", "arcp"}
inlined = njit(fastmath=FAST, error_model="numpy", inline="always")


class Air(NamedTuple):
    """The air and solute terms that the equations use for a droplet."""

    vapour: float  # RH e/Tf
    pressure: float  # e
    inverse: float  # Λ/Tf
    solute: float  # σ S
    cooling: float  # b ρ
    heat: float  # b ρ Tf


class CloudAir(NamedTuple):
    """The same for the form with corrections."""

    vapour: float
    pressure: float
    inverse: float
    solute: float  # σ S, 0 with a dry core
    cooling: float
    heat: float
    vapour_shift: float  # m, p, q of vapour
    vapour_length: float
    vapour_area: float
    heat_shift: float  # m, p, q of heat
    heat_length: float
    heat_area: float
    edge: float  # rd², or SMALLEST_U
    core: float  # rd³
    attraction: float  # σ S with a dry core, otherwise 0
    lift: float  # 4 B, B = g (ρw/ρ − 1)
    drag: float  # √(6 C B)


class TransferFactors(NamedTuple):
    """φv and φh, and their derivatives by u."""

    vapour: float
    heat: float
    vapour_u: float
    heat_u: float


@inlined
def exponential(x: float) -> float:
    """Compute exp(x), constant beyond x = ±64, by a Taylor polynomial that is squared six times.

    The error is 2e-14, absolute for x <= 0 and relative for |x| <= 8. That is enough: the result is compared with
    numbers near 1, and exponents above 8 occur at trial points only. The polynomial is summed in pairs (Estrin), since
    the chain of dependent operations limits the speed of a sweep.
    """
    y = min(max(x, -64.0), 64.0) * (1.0 / 64.0)
    y2 = y * y
    y4 = y2 * y2
    low = (1.0 + y) + (1.0 / 2.0 + y * (1.0 / 6.0)) * y2
    middle = (1.0 / 24.0 + y * (1.0 / 120.0)) + (1.0 / 720.0 + y * (1.0 / 5040.0)) * y2
    high = (1.0 / 40320.0 + y * (1.0 / 362880.0)) + (1.0 / 3628800.0) * y2
    p = low + y4 * (middle + y4 * high)
    p *= p
    p *= p
    p *= p
    p *= p
    p *= p
    return p * p


@inlined
def powers(u: float, T: float) -> tuple[float, float, float, float]:
    """Return 1/(rT), 1/r, 1/T and 1/u; trial points outside the physical domain are moved to its edge."""
    u = max(u, SMALLEST_U)
    inverse_u = 1.0 / u
    inverse_T = 1.0 / max(T, SMALLEST_T)
    inverse_r = math.sqrt(u) * inverse_u
    return inverse_r * inverse_T, inverse_r, inverse_T, inverse_u


# ---- the original model -----------------------------------------------------------------------------------------


def original_slopes(u: float, T: float, air: Air, k: Constants) -> Slopes:
    """Return du/dt and dT/dt of the original model."""
    w, inverse_r, inverse_T, inverse_u = powers(u, T)
    E = air.inverse - k.clapeyron * inverse_T + k.kelvin * w - air.solute * inverse_r * inverse_u
    aG = k.growth * (air.vapour - air.pressure * inverse_T * exponential(E))
    return 2.0 * aG, (k.latent * aG - air.cooling * T + air.heat) * inverse_u


def original_jacobian(u: float, T: float, air: Air, k: Constants) -> SlopesAndJacobian:
    """Return du/dt, dT/dt, and the derivatives of both by u and T, of the original model."""
    w, inverse_r, inverse_T, inverse_u = powers(u, T)
    salt = air.solute * inverse_r * inverse_u
    E = air.inverse - k.clapeyron * inverse_T + k.kelvin * w - salt
    aF = k.growth * air.pressure * inverse_T * exponential(E)
    aG = k.growth * air.vapour - aF
    aGu = aF * (0.5 * k.kelvin * w - 1.5 * salt) * inverse_u
    aGT = aF * (1.0 - k.clapeyron * inverse_T + k.kelvin * w) * inverse_T
    fT = (k.latent * aG - air.cooling * T + air.heat) * inverse_u
    return (
        2.0 * aG,
        fT,
        2.0 * aGu,
        2.0 * aGT,
        (k.latent * aGu - fT) * inverse_u,
        (k.latent * aGT - air.cooling) * inverse_u,
    )


# ---- with corrections -------------------------------------------------------------------------------------------


@inlined
def exchange(
    u: float, r: float, inverse_r: float, inverse_u: float, air: CloudAir, k: CloudConstants
) -> TransferFactors:
    """Return φv and φh with their derivatives; code that does not use the derivatives does not compute them."""
    drag = air.drag * r * math.sqrt(r)
    resistance = 1.0 / (18.0 * k.viscosity + drag)
    sinking = air.lift * u * resistance
    root = math.sqrt(2.0 * r * (k.slip + sinking) / k.viscosity)
    root_u = 0.5 * root * inverse_u * (0.5 + sinking / (k.slip + sinking) * (1.0 - 0.75 * drag * resistance))
    vapour = 1.0 / (u + air.vapour_length * r + air.vapour_area)
    heat = 1.0 / (u + air.heat_length * r + air.heat_area)
    fv = (u + air.vapour_shift * r) * vapour
    fh = (u + air.heat_shift * r) * heat
    fv_u = (1.0 + 0.5 * air.vapour_shift * inverse_r - fv * (1.0 + 0.5 * air.vapour_length * inverse_r)) * vapour
    fh_u = (1.0 + 0.5 * air.heat_shift * inverse_r - fh * (1.0 + 0.5 * air.heat_length * inverse_r)) * heat
    blown_v = 1.0 + k.vapour_ventilation * root
    blown_h = 1.0 + k.heat_ventilation * root
    return TransferFactors(
        fv * blown_v,
        fh * blown_h,
        fv_u * blown_v + fv * k.vapour_ventilation * root_u,
        fh_u * blown_h + fh * k.heat_ventilation * root_u,
    )


def cloud_slopes(u: float, T: float, air: CloudAir, k: CloudConstants) -> Slopes:
    """Return du/dt and dT/dt with the corrections."""
    u = max(u, air.edge)
    w, inverse_r, inverse_T, inverse_u = powers(u, T)
    r = u * inverse_r
    water = max(r * u - air.core, 0.0)
    activity = water / (water + air.attraction)
    phi = exchange(u, r, inverse_r, inverse_u, air, k)
    E = air.inverse - k.clapeyron * inverse_T + k.kelvin * w - air.solute * inverse_r * inverse_u
    aG = k.growth * phi.vapour * (air.vapour - air.pressure * inverse_T * activity * exponential(E))
    return 2.0 * aG, (k.latent * aG + phi.heat * (air.heat - air.cooling * T)) * inverse_u


def cloud_jacobian(u: float, T: float, air: CloudAir, k: CloudConstants) -> SlopesAndJacobian:
    """Return du/dt, dT/dt, and the derivatives of both by u and T, with the corrections."""
    u = max(u, air.edge)
    w, inverse_r, inverse_T, inverse_u = powers(u, T)
    r = u * inverse_r
    water = max(r * u - air.core, 0.0)
    share = 1.0 / (water + air.attraction)
    phi = exchange(u, r, inverse_r, inverse_u, air, k)
    salt = air.solute * inverse_r * inverse_u
    aP = k.growth * air.pressure * inverse_T * exponential(air.inverse - k.clapeyron * inverse_T + k.kelvin * w - salt)
    aF = aP * water * share
    aG = k.growth * air.vapour - aF
    aGu = aF * (0.5 * k.kelvin * w - 1.5 * salt) * inverse_u - aP * 1.5 * r * air.attraction * share * share
    aGT = aF * (1.0 - k.clapeyron * inverse_T + k.kelvin * w) * inverse_T
    growth_u = phi.vapour_u * aG + phi.vapour * aGu
    warmth = air.heat - air.cooling * T
    fT = (k.latent * phi.vapour * aG + phi.heat * warmth) * inverse_u
    return (
        2.0 * phi.vapour * aG,
        fT,
        2.0 * growth_u,
        2.0 * phi.vapour * aGT,
        (k.latent * growth_u + phi.heat_u * warmth - fT) * inverse_u,
        (k.latent * phi.vapour * aGT - phi.heat * air.cooling) * inverse_u,
    )


# ---- the choice between them, made when a kernel is compiled ------------------------------------------------------


def is_cloud(k: Any) -> bool:
    """Check whether constants, or their type in the compiler, are those of the form with corrections."""
    return getattr(k, "instance_class", type(k)) is CloudConstants


def slopes(u: float, T: float, air: Any, k: AnyConstants) -> Slopes:
    """Return du/dt and dT/dt (`physics`)."""
    form: Any = cloud_slopes if is_cloud(k) else original_slopes
    found: Slopes = form(u, T, air, k)
    return found


def jacobian(u: float, T: float, air: Any, k: AnyConstants) -> SlopesAndJacobian:
    """Return du/dt, dT/dt, and the derivatives of both by u and T."""
    form: Any = cloud_jacobian if is_cloud(k) else original_jacobian
    found: SlopesAndJacobian = form(u, T, air, k)
    return found


def surroundings(lanes: Array, i: int, k: AnyConstants) -> Air | CloudAir:
    """Read the air around the droplet in lane i."""
    return cloud_surroundings(lanes, i, k) if is_cloud(k) else original_surroundings(lanes, i, k)


def original_surroundings(lanes: Array, i: int, k: AnyConstants) -> Air:
    """Read the air around a droplet of the original model."""
    return Air(lanes[VAPOUR, i], lanes[PRESSURE, i], lanes[INVERSE_AIR, i], lanes[SOLUTE, i], lanes[COOLING, i],
               lanes[AIR, i])  # fmt: skip


def cloud_surroundings(lanes: Array, i: int, k: AnyConstants) -> CloudAir:
    """Read the air around a droplet with corrections."""
    return CloudAir(
        lanes[VAPOUR, i], lanes[PRESSURE, i], lanes[INVERSE_AIR, i], lanes[SOLUTE, i], lanes[COOLING, i], lanes[AIR, i],
        lanes[VAPOUR_SHIFT, i], lanes[VAPOUR_LENGTH, i], lanes[VAPOUR_AREA, i], lanes[HEAT_SHIFT, i],
        lanes[HEAT_LENGTH, i], lanes[HEAT_AREA, i], lanes[EDGE, i], lanes[CORE, i], lanes[ATTRACTION, i],
        lanes[LIFT, i], lanes[DRAG, i],
    )  # fmt: skip


def core_radius(S: float, k: AnyConstants) -> float:
    """Return the radius of the dry core, m; 0 without one."""
    return cloud_core(S, k) if is_cloud(k) else original_core(S, k)


def original_core(S: float, k: AnyConstants) -> float:
    """Return 0: the original model has no dry core."""
    return 0.0


def cloud_core(S: float, k: Any) -> float:
    """Return the radius of the dry core, m; 0 if it is off."""
    return float((k.core * k.raoult * S) ** (1.0 / 3.0))


def load_corrections(lanes: Array, i: int, S: float, Tf: float, rho: float, k: AnyConstants) -> None:
    """Put what the corrections need into lane i, after all else."""
    if is_cloud(k):
        load_cloud(lanes, i, S, Tf, rho, k)


def load_nothing(lanes: Array, i: int, S: float, Tf: float, rho: float, k: AnyConstants) -> None:
    """Leave lane i as it is: the original model has no corrections."""


def load_cloud(lanes: Array, i: int, S: float, Tf: float, rho: float, k: Any) -> None:
    """Put what the corrections need into lane i, after all else."""
    root = 1.0 / math.sqrt(Tf)
    lanes[VAPOUR_SHIFT, i], lanes[HEAT_SHIFT, i] = k.vapour_shift * root, k.heat_shift * root
    lanes[VAPOUR_LENGTH, i], lanes[HEAT_LENGTH, i] = k.vapour_length * root, k.heat_length * root
    lanes[VAPOUR_AREA, i], lanes[HEAT_AREA, i] = k.vapour_area / Tf, k.heat_area / Tf
    lanes[CORE, i], lanes[ATTRACTION, i] = k.core * k.raoult * S, 0.0
    if k.core > 0.0:
        lanes[ATTRACTION, i], lanes[SOLUTE, i] = lanes[SOLUTE, i], 0.0
    buoyancy = k.gravity * (k.water_density / rho - 1.0)
    lanes[LIFT, i], lanes[DRAG, i] = 4.0 * buoyancy, math.sqrt(6.0 * DRAG_COEFFICIENT * buoyancy)


def register(function: Any, original: Any, cloud: Any) -> None:
    """Have the compiler replace a function by the form for the type of its last argument, inlined."""

    def choose(*arguments: Any) -> Any:
        return cloud if is_cloud(arguments[-1]) else original

    overload(function, inline="always", strict=False)(choose)


register(slopes, original_slopes, cloud_slopes)
register(jacobian, original_jacobian, cloud_jacobian)
register(surroundings, original_surroundings, cloud_surroundings)
register(core_radius, original_core, cloud_core)
register(load_corrections, load_nothing, load_cloud)
