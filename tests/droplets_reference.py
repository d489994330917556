"""A readable numpy version of the solver in `kernels.lanes` (Rodas5P); all droplets step together.

It is ten times slower. The tests compare the two with each other, and both with scipy.
"""

import numpy as np

from scimill.droplets.kernels.physics import AnyConstants, Array, dry_core, has_core, transfer, vapour_excess
from scimill.droplets.kernels.rodas5p import GAMMA, LARGEST_FACTOR, SAFETY, SMALLEST_FACTOR, A, C


def rates(
    r: Array, T: Array, S: Array, Tf: Array, RH: Array, rho: Array, e: Array, k: AnyConstants
) -> tuple[Array, Array]:
    """Return dr/dt (m/s) and dT/dt (K/s)."""
    G = vapour_excess(r, T, S, Tf, RH, e, k)
    vapour, heat = transfer(r, Tf, rho, k)
    return (
        k.growth * vapour * G / r,
        (k.latent * k.growth * vapour * G - heat * k.conduction * rho * (T - Tf)) / r**2,
    )


def integrate(
    r: Array,
    T: Array,
    S: Array,
    Tf: Array,
    RH: Array,
    rho: Array,
    e: Array,
    times: Array,
    k: AnyConstants,
    *,
    tolerance: float,
) -> tuple[Array, Array]:
    """Integrate valid droplets to their output times like `lanes.integrate`; return radius and temperature."""
    droplets = np.stack([S, Tf, RH, rho, e])
    y = np.stack([r**2, T])
    h = 1e-2 * r**2 / (k.conduction * rho)
    radius, temperature = np.empty_like(times), np.empty_like(times)
    for sample in range(times.shape[1]):
        left = times[:, sample] - (times[:, sample - 1] if sample else 0.0)
        y, h = _reach(y, h, left.copy(), droplets, k, tolerance)
        radius[:, sample], temperature[:, sample] = np.sqrt(y[0]), y[1]
    return radius, temperature


def _reach(y: Array, h: Array, left: Array, droplets: Array, k: AnyConstants, tolerance: float) -> tuple[Array, Array]:
    """Advance the state y = (u, T) by the remaining times; return it with the next step sizes."""
    while (active := np.flatnonzero(left > 0)).size:
        wanted = h[active]
        tried = np.minimum(wanted, left[active])
        y_new, error = step(y[:, active], tried, droplets[:, active], k)
        q = _squared_error(y[:, active], y_new, error, tolerance, smallest_u(droplets[0, active], k))
        accepted = q <= 1
        factor = np.clip(SAFETY * np.maximum(q, 1e-20) ** (-3 / 32), SMALLEST_FACTOR, LARGEST_FACTOR)
        h[active] = np.where(accepted & (tried < wanted), np.maximum(tried * factor, wanted), tried * factor)
        done = active[accepted]
        y[:, done] = y_new[:, accepted]
        left[done] -= tried[accepted]
    return y, h


def step(y: Array, h: Array, droplets: Array, k: AnyConstants) -> tuple[Array, Array]:
    """Make one step of Rodas5P of sizes h from y = (u, T), shape (2, n); return new y and error estimate."""
    inverse = _inverse(1 / (h * GAMMA), jacobian(y, droplets, k))
    ks: list[Array] = []
    point = y
    for stage in range(8):
        if 0 < stage < 6:
            point = y + sum(a * k_ for a, k_ in zip(A[stage - 1], ks, strict=True))
        elif stage >= 6:
            point = point + ks[-1]
        coupling = sum((c * k_ for c, k_ in zip(C[stage - 1], ks, strict=True)), np.zeros_like(y)) if stage else 0.0
        ks.append(np.einsum("ijn,jn->in", inverse, slopes(point, droplets, k) + coupling / h))
    return point + ks[-1], ks[-1]


def smallest_u(S: Array, k: AnyConstants) -> Array:
    """Return the u at and below which a trial point is rejected: that of the dry core, if there is one, m²."""
    return np.maximum(dry_core(S, k) ** (2 / 3), 1e-40)


def slopes(y: Array, droplets: Array, k: AnyConstants) -> Array:
    """Return d(u, T)/dt."""
    S, Tf, RH, rho, e = droplets
    r = np.sqrt(np.maximum(y[0], smallest_u(S, k)))
    T = np.maximum(y[1], 1.0)
    r_rate, T_rate = rates(r, T, S, Tf, RH, rho, e, k)
    return np.stack([2 * r * r_rate, T_rate])


def jacobian(y: Array, droplets: Array, k: AnyConstants) -> Array:
    """Return the derivatives of `slopes` by u and T, shape (2, 2, n)."""
    S, Tf, RH, rho, e = droplets
    u, T = y
    r = np.sqrt(u)
    (vapour, heat), (vapour_u, heat_u) = transfer(r, Tf, rho, k), transfer_slopes(r, Tf, rho, k)
    E_u, E_T = -k.kelvin / (2 * r**3 * T), k.clapeyron / T**2 - k.kelvin / (r * T**2)
    activity_u = log_activity_slope(r, S, k)
    G = vapour_excess(r, T, S, Tf, RH, e, k)
    F = RH * e / Tf - G
    G_u, G_T = -F * (E_u + activity_u), -F * (E_T - 1 / T)
    flow_u, flow_T = k.growth * (vapour_u * G + vapour * G_u), k.growth * vapour * G_T
    gap = k.conduction * rho * (T - Tf)
    T_rate = (k.latent * k.growth * vapour * G - heat * gap) / u
    return np.array(
        [
            [2 * flow_u, 2 * flow_T],
            [(k.latent * flow_u - heat_u * gap - T_rate) / u, (k.latent * flow_T - heat * k.conduction * rho) / u],
        ]
    )


def log_activity_slope(r: Array, S: Array, k: AnyConstants) -> Array:
    """Return the derivative of the logarithm of the water activity by u."""
    if not has_core(k):
        return 1.5 * k.raoult * S / r**5
    water = r**3 - dry_core(S, k)
    return 1.5 * r * k.raoult * S / (water * (water + k.raoult * S))


def transfer_slopes(r: Array, Tf: Array, rho: Array, k: AnyConstants) -> tuple[Array, Array]:
    """Return the derivatives of `transfer` by u, from central differences of order four in the logarithm of u."""
    h = 1e-3

    def at(n: int) -> Array:
        return np.stack(transfer(r * np.exp(n * h / 2), Tf, rho, k))

    by_logarithm = (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * h)
    return by_logarithm[0] / r**2, by_logarithm[1] / r**2


def _inverse(diagonal: Array, J: Array) -> Array:
    """Return the inverse of diagonal·I − J, shape (2, 2, n)."""
    m = np.array([[diagonal - J[0, 0], -J[0, 1]], [-J[1, 0], diagonal - J[1, 1]]])
    adjugate: Array = np.array([[m[1, 1], -m[0, 1]], [-m[1, 0], m[0, 0]]])
    inverse: Array = adjugate / (m[0, 0] * m[1, 1] - m[0, 1] * m[1, 0])
    return inverse


def _squared_error(y: Array, y_new: Array, error: Array, tolerance: float, smallest: Array) -> Array:
    """Return the mean squared relative error in units of the tolerance; huge outside the physical domain."""
    inside = (y_new[0] > smallest) & (y_new[1] > 1.0)
    u_scale = y[0] * np.where(inside, y_new[0], 1.0)
    q = 0.5 * (error[0] ** 2 / u_scale + error[1] ** 2 / y[1] ** 2) / tolerance**2
    squared: Array = np.where(inside & np.isfinite(q), q, 1e30)
    return squared
