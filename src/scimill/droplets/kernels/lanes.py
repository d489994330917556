"""The fast integrator: Rodas5P in (u = r², T) for many droplets, compiled.

WIDTH droplets advance together, one adaptive step each per sweep, in arrays ("lanes") that the compiler turns into
vector instructions. When a lane's droplet is finished, the lane takes the next droplet at once, so no lane waits for
the slowest. A sweep has no branches: it selects values instead, and the exponential is a polynomial. The tests compare
it with a readable numpy version of the same method, `tests/droplets_reference.py`.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

from scimill.droplets.kernels.equations import (
    AIR,
    COOLING,
    DRY,
    EDGE,
    EVENT,
    FAST,
    FLOOR,
    INVERSE_AIR,
    LEFT,
    PRESSURE,
    ROWS,
    SMALLEST_T,
    SMALLEST_U,
    SOLUTE,
    STEP,
    STEPS,
    TEMPERATURE,
    VAPOUR,
    U,
    core_radius,
    inlined,
    jacobian,
    load_corrections,
    slopes,
    surroundings,
)  # fmt: skip
from scimill.droplets.kernels.physics import AnyConstants
from scimill.droplets.kernels.rodas5p import GAMMA, LARGEST_FACTOR, SAFETY, SMALLEST_FACTOR, A, C

WIDTH = 64  # lanes: 8 vectors of 8 doubles hide the latency of division and square root; fastest of 16 to 128

DONE, DRIED, TOO_MANY_STEPS, STEP_TOO_SMALL, INVALID, NOT_FINITE, RUNNING = range(7)
"""How the integration of a droplet ended."""

FIRST_STEP = 1e-2  # fraction of the conduction time u/(bρ)
SHORTEST_STEP = 1e-10  # fraction of the conduction time; rounding dominates shorter steps

((A21,), (A31, A32), (A41, A42, A43), (A51, A52, A53, A54), (A61, A62, A63, A64, A65)) = A
((C21,), (C31, C32), (C41, C42, C43), (C51, C52, C53, C54), (C61, C62, C63, C64, C65),
 (C71, C72, C73, C74, C75, C76), (C81, C82, C83, C84, C85, C86, C87)) = C  # fmt: skip

# The cache of the compiled kernel only notices changes of this file. After changing a file that the kernel is compiled
# from, enter its new checksum here (a test compares), or the outdated kernel stays in use.
COMPILED_FROM = {"rodas5p.py": "d1eca8877e316350", "physics.py": "49b43f19c4f93529", "equations.py": "6c8dc93a77c1f6fa"}

F = TypeVar("F", bound=Callable[..., Any])

Array = NDArray[np.float64]


class Inverse(NamedTuple):
    """Inverse of I/(hγ) − J."""

    uu: float
    uT: float  # noqa: N815  (the matrix element of u and T)
    Tu: float
    TT: float


@inlined
def invert(d: float, Juu: float, JuT: float, JTu: float, JTT: float) -> Inverse:
    """Return the inverse of d/γ − J."""
    muu = d * (1.0 / GAMMA) - Juu
    mTT = d * (1.0 / GAMMA) - JTT
    s = 1.0 / (muu * mTT - JuT * JTu)
    return Inverse(mTT * s, JuT * s, JTu * s, muu * s)


@inlined
def stage(u: float, T: float, cu: float, cT: float, m: Inverse, air: Any, k: AnyConstants) -> tuple[float, float]:
    """Evaluate one stage: m · (f(u, T) + c)."""
    f, g = slopes(u, T, air, k)
    f += cu
    g += cT
    return m.uu * f + m.uT * g, m.Tu * f + m.TT * g


@inlined
def step(u: float, T: float, h: float, air: Any, k: AnyConstants) -> tuple[float, float, float, float]:
    """Make a trial step of Rodas5P: new u, new T, and the error estimates of both (module `rodas5p`)."""
    d = 1.0 / h
    f, g, Juu, JuT, JTu, JTT = jacobian(u, T, air, k)
    m = invert(d, Juu, JuT, JTu, JTT)
    u1, T1 = m.uu * f + m.uT * g, m.Tu * f + m.TT * g
    u2, T2 = stage(u + A21 * u1, T + A21 * T1, d * (C21 * u1), d * (C21 * T1), m, air, k)
    u3, T3 = stage(u + A31 * u1 + A32 * u2, T + A31 * T1 + A32 * T2,
                   d * (C31 * u1 + C32 * u2), d * (C31 * T1 + C32 * T2), m, air, k)  # fmt: skip
    u4, T4 = stage(u + A41 * u1 + A42 * u2 + A43 * u3, T + A41 * T1 + A42 * T2 + A43 * T3,
                   d * (C41 * u1 + C42 * u2 + C43 * u3), d * (C41 * T1 + C42 * T2 + C43 * T3), m, air, k)  # fmt: skip
    u5, T5 = stage(u + A51 * u1 + A52 * u2 + A53 * u3 + A54 * u4, T + A51 * T1 + A52 * T2 + A53 * T3 + A54 * T4,
                   d * (C51 * u1 + C52 * u2 + C53 * u3 + C54 * u4),
                   d * (C51 * T1 + C52 * T2 + C53 * T3 + C54 * T4), m, air, k)  # fmt: skip
    u += A61 * u1 + A62 * u2 + A63 * u3 + A64 * u4 + A65 * u5
    T += A61 * T1 + A62 * T2 + A63 * T3 + A64 * T4 + A65 * T5
    u6, T6 = stage(u, T, d * (C61 * u1 + C62 * u2 + C63 * u3 + C64 * u4 + C65 * u5),
                   d * (C61 * T1 + C62 * T2 + C63 * T3 + C64 * T4 + C65 * T5), m, air, k)  # fmt: skip
    u += u6
    T += T6
    u7, T7 = stage(u, T, d * (C71 * u1 + C72 * u2 + C73 * u3 + C74 * u4 + C75 * u5 + C76 * u6),
                   d * (C71 * T1 + C72 * T2 + C73 * T3 + C74 * T4 + C75 * T5 + C76 * T6), m, air, k)  # fmt: skip
    u += u7
    T += T7
    u8, T8 = stage(u, T, d * (C81 * u1 + C82 * u2 + C83 * u3 + C84 * u4 + C85 * u5 + C86 * u6 + C87 * u7),
                   d * (C81 * T1 + C82 * T2 + C83 * T3 + C84 * T4 + C85 * T5 + C86 * T6 + C87 * T7),
                   m, air, k)  # fmt: skip
    return u + u8, T + T8, u8, T8


@inlined
def squared_error(
    u: float, T: float, un: float, Tn: float, eu: float, eT: float, tolerance: float, edge: float
) -> float:
    """Return the mean squared relative error in units of the tolerance; huge outside the physical domain."""
    outside = (un <= edge) | (Tn <= SMALLEST_T)
    q = eu * eu / (u * max(un, SMALLEST_U)) + eT * eT / (T * T)
    return 1e30 if outside else 0.5 * q / (tolerance * tolerance)


@inlined
def step_factor(q: float) -> float:
    """Return SAFETY · q^(−3/32), clipped to its limits; uses square roots only."""
    p = math.sqrt(math.sqrt(math.sqrt(math.sqrt(math.sqrt(min(max(q, 1e-20), 1e20))))))
    return min(max(SAFETY / (p * p * p), SMALLEST_FACTOR), LARGEST_FACTOR)


@njit(fastmath=FAST, error_model="numpy")
def sweep(lanes: Array, tolerance: float, max_steps: float, k: AnyConstants) -> None:
    """Advance every lane by one trial step, accepted if its error is within the tolerance."""
    for i in range(WIDTH):
        air = surroundings(lanes, i, k)
        u, T, left, wanted = lanes[U, i], lanes[TEMPERATURE, i], lanes[LEFT, i], lanes[STEP, i]
        h = min(wanted, left)
        un, Tn, eu, eT = step(u, T, h, air, k)
        q = squared_error(u, T, un, Tn, eu, eT, tolerance, lanes[EDGE, i])
        accepted = q <= 1.0
        proposed = h * step_factor(q)
        u = un if accepted else u
        left = left - h if accepted else left
        # A step cut short to land on an output time says little about the next step: keep the step size.
        proposed = max(proposed, wanted) if accepted and h < wanted else proposed
        steps = lanes[STEPS, i] + 1.0
        lanes[U, i] = u
        lanes[TEMPERATURE, i] = Tn if accepted else T
        lanes[LEFT, i] = left
        lanes[STEP, i] = proposed
        lanes[STEPS, i] = steps
        failed = (steps >= max_steps) | (proposed * air.cooling < SHORTEST_STEP * u)
        lanes[EVENT, i] = 1.0 if (left <= 0.0) | (u <= lanes[FLOOR, i]) | failed else 0.0


@njit(error_model="numpy")
def is_valid(
    r: float, T: float, S: float, Tf: float, RH: float, rho: float, e: float, times: Array, k: AnyConstants
) -> bool:
    """Check that the inputs are physical and the output times non-negative and ascending."""
    positive = (
        core_radius(S, k) * (1.0 + DRY) < r < 1.0
        and SMALLEST_T < T < 1e4
        and SMALLEST_T < Tf < 1e4
        and 0.0 < rho < 1e4
        and 0.0 < e < 1e12
    )
    ordered = times[0] >= 0.0 and times[-1] < 1e30 and bool(np.all(times[1:] >= times[:-1]))
    return positive and 0.0 <= S < 1e3 and 0.0 <= RH < 1e3 and ordered


@njit(error_model="numpy")
def load(
    lanes: Array, i: int, r: float, T: float, S: float, Tf: float, RH: float, rho: float, e: float, time: float,
    floor: float, k: AnyConstants,
) -> None:  # fmt: skip
    """Put a droplet into lane i."""
    core = core_radius(S, k)
    lanes[U, i] = r * r
    lanes[TEMPERATURE, i] = T
    lanes[LEFT, i] = time
    lanes[STEPS, i] = 0.0
    lanes[VAPOUR, i] = RH * e / Tf
    lanes[PRESSURE, i] = e
    lanes[INVERSE_AIR, i] = k.clapeyron / Tf
    lanes[SOLUTE, i] = k.raoult * S
    lanes[COOLING, i] = k.conduction * rho
    lanes[AIR, i] = k.conduction * rho * Tf
    lanes[STEP, i] = FIRST_STEP * lanes[U, i] / lanes[COOLING, i]
    lanes[EDGE, i] = max(core * core, SMALLEST_U)
    lanes[FLOOR, i] = max(floor * floor, lanes[EDGE, i] * (1.0 + DRY) ** 2)
    load_corrections(lanes, i, S, Tf, rho, k)


@njit(error_model="numpy")
def advance(lanes: Array, i: int, s: int, times: Array, radius: Array, temperature: Array) -> int:
    """Store the samples that lane i has reached; return the index of the next one."""
    while s < len(times) and lanes[LEFT, i] <= 0.0:
        radius[s] = math.sqrt(lanes[U, i])
        temperature[s] = lanes[TEMPERATURE, i]
        s += 1
        if s < len(times):
            lanes[LEFT, i] = times[s] - times[s - 1]
    return s


@njit(error_model="numpy")
def ending(lanes: Array, i: int, max_steps: float) -> int:
    """Return how the droplet in lane i ended, or RUNNING."""
    if not (0.0 < lanes[U, i] < 1e4 and 0.0 < lanes[TEMPERATURE, i] < 1e9):
        return NOT_FINITE
    if lanes[U, i] <= lanes[FLOOR, i]:
        return DRIED
    if lanes[STEPS, i] >= max_steps:
        return TOO_MANY_STEPS
    return RUNNING if lanes[STEP, i] * lanes[COOLING, i] >= SHORTEST_STEP * lanes[U, i] else STEP_TOO_SMALL


def cached(function: F) -> F:
    """Compile on the first call, and cache the result on disk if a cache directory is writable."""
    try:
        compiled = njit(cache=True, error_model="numpy", nogil=True)(function)
    except RuntimeError:  # read-only installation and no home directory
        compiled = njit(error_model="numpy", nogil=True)(function)
    return cast(F, compiled)


@cached
def _integrate(
    r: Array, T: Array, S: Array, Tf: Array, RH: Array, rho: Array, e: Array, times: Array, k: AnyConstants,
    tolerance: float, max_steps: float, floor: float, radius: Array, temperature: Array, status: NDArray[np.uint8],
) -> None:  # fmt: skip
    samples = times.shape[1]
    lanes = np.ones((ROWS, WIDTH))  # idle lanes compute, too; ones are harmless
    droplet = np.full(WIDTH, -1)
    sample = np.zeros(WIDTH, dtype=np.int64)
    given, busy = 0, 0
    while busy > 0 or given < len(r):
        for i in range(WIDTH):
            d = droplet[i]
            if d >= 0 and lanes[EVENT, i] != 0.0:
                sample[i] = advance(lanes, i, sample[i], times[d], radius[d], temperature[d])
                how = DONE if sample[i] == samples else ending(lanes, i, max_steps)
                if how != RUNNING:
                    status[d, sample[i] :] = how
                    radius[d, sample[i] :] = math.sqrt(max(lanes[U, i], 0.0))
                    temperature[d, sample[i] :] = lanes[TEMPERATURE, i]
                    droplet[i] = -1
                    busy -= 1
            while droplet[i] < 0 and given < len(r):
                d = given
                given += 1
                if not is_valid(r[d], T[d], S[d], Tf[d], RH[d], rho[d], e[d], times[d], k):
                    radius[d], temperature[d], status[d] = np.nan, np.nan, INVALID
                    continue
                load(lanes, i, r[d], T[d], S[d], Tf[d], RH[d], rho[d], e[d], times[d, 0], floor, k)
                sample[i] = advance(lanes, i, 0, times[d], radius[d], temperature[d])
                status[d] = DONE
                if sample[i] < samples:
                    droplet[i] = d
                    busy += 1
        sweep(lanes, tolerance, max_steps, k)


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
    max_steps: int = 100_000,
    floor: float = 1e-9,
) -> tuple[Array, Array, NDArray[np.uint8]]:
    """Integrate droplets to their output times.

    Parameters
    ----------
    r, T, S, Tf, RH, rho, e : float64, shape (n,); initial state and surrounding air, e at Tf.
    times : float64, shape (n, samples), ascending along the samples, s.
    k : combined constants.
    tolerance : relative error allowed per step, of u and of T.
    max_steps : maximum number of trial steps per droplet.
    floor : radius (m) at which a droplet counts as dry; it then keeps its last state.

    Returns
    -------
    radius, temperature : float64, shape (n, samples); NaN if the inputs are invalid.
    status : uint8, shape (n, samples); DONE if the sample was reached, otherwise why the droplet ended before it:
        DRIED, TOO_MANY_STEPS, STEP_TOO_SMALL, INVALID or NOT_FINITE.

    """
    radius, temperature = np.empty_like(times), np.empty_like(times)
    status = np.empty(times.shape, dtype=np.uint8)
    # Positional arguments of fixed types: any other signature would be compiled again.
    _integrate(r, T, S, Tf, RH, rho, e, times, k, tolerance, float(max_steps), floor, radius, temperature, status)
    return radius, temperature, status
