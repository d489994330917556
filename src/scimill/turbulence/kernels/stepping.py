"""The classical fourth-order Runge–Kutta method with an exact linear part, and the choice of the step.

With the integrating factor E = exp(L h/2) and rates a, b, c, d of the nonlinear part at the four stages,

    u = E y,  stage 2 = u + h/2 E a,  stage 3 = u + h/2 b,  stage 4 = E(u + h c),  y' = E²y + h/6 (E²a + 2E(b + c) + d).

Only the state, the next stage and a running total are kept. Source: Cox and Matthews, J. Comput. Phys. 176 (2002) 430.
"""

import dataclasses
import math

import numba
import numpy as np

INTERVAL_ROUNDING = 1e-9
"""Relative excess of an interval over a whole number of steps that adds no further step."""


# Each kernel processes columns `start` to `stop` of arrays (2, columns, modes); `rate` begins at `start`. The innermost
# loops are short and use few arrays; otherwise the compiler would not use wide vectors.


@numba.njit(cache=True)
def first(state, rate, e, half, sixth, total, stage, start, stop):  # type: ignore[no-untyped-def]
    """Stage 1: set state, total and stage from the rate; e is E, shape (2, 2, columns, modes)."""
    u, r = np.empty((2, 2, state.shape[2]), state.dtype)
    for i in range(start, stop):
        for f in range(2):
            _propagate(e[f, 0, i], e[f, 1, i], state[0, i], state[1, i], u[f])
            _propagate(e[f, 0, i], e[f, 1, i], rate[0, i - start], rate[1, i - start], r[f])
        for f in range(2):
            _scaled_sum(u[f], half, r[f], stage[f, i])
            _scaled_sum(u[f], sixth, r[f], total[f, i])
            state[f, i] = u[f]


@numba.njit(cache=True)
def second(state, rate, half, third_, total, stage, start, stop):  # type: ignore[no-untyped-def]
    """Stage 2: stage = u + h/2 b, total += h/3 b."""
    for i in range(start, stop):
        for f in range(2):
            _scaled_sum(state[f, i], half, rate[f, i - start], stage[f, i])
            _scaled_sum(total[f, i], third_, rate[f, i - start], total[f, i])


@numba.njit(cache=True)
def third(state, rate, e, whole, third_, total, stage, start, stop):  # type: ignore[no-untyped-def]
    """Stage 3: stage = E(u + h c), total = E(total + h/3 c)."""
    u, sums = np.empty((2, 2, state.shape[2]), state.dtype)
    for i in range(start, stop):
        for f in range(2):
            _scaled_sum(state[f, i], whole, rate[f, i - start], u[f])
            _scaled_sum(total[f, i], third_, rate[f, i - start], sums[f])
        for f in range(2):
            _propagate(e[f, 0, i], e[f, 1, i], u[0], u[1], stage[f, i])
            _propagate(e[f, 0, i], e[f, 1, i], sums[0], sums[1], total[f, i])


@numba.njit(cache=True)
def fourth(state, rate, sixth, total, start, stop):  # type: ignore[no-untyped-def]
    """Stage 4: the new state, total + h/6 d."""
    for i in range(start, stop):
        for f in range(2):
            _scaled_sum(total[f, i], sixth, rate[f, i - start], state[f, i])


@numba.njit(cache=True)
def _propagate(a, b, n, w, out):  # type: ignore[no-untyped-def]
    """Set out to one row of E, which is (a, b) at each mode, times (n, w)."""
    for j in range(len(n)):
        out[j] = a[j] * n[j] + b[j] * w[j]


@numba.njit(cache=True)
def _scaled_sum(base, factor, rate, out):  # type: ignore[no-untyped-def]
    for j in range(len(base)):
        out[j] = base[j] + factor * rate[j]


@dataclasses.dataclass
class StepControl:
    """Chooses the steps of an interval: all of equal length, shortened if the flow becomes too fast.

    Parameters
    ----------
    remaining : time to the end of the interval.
    step : longest step, or None to let the Courant number set it.
    courant : target Courant number.
    longest : longest step that the Courant number may set.
    stable : largest Courant number of a stable step.

    """

    remaining: float
    step: float | None
    courant: float
    longest: float
    stable: float = math.inf
    _length: float = 0.0
    _count: int = 0

    def next(self, speed: float) -> float:
        """Return the length of the next step, given the largest speed in grid spacings per unit time.

        The length stays the same while the step is stable and its Courant number exceeds the target by at most a
        fifth, so the integrating factor need not be recomputed at each step.
        """
        if self._count == 0 or (self.step is None and speed * self._length > self._courant_limit):
            limit = self.step or min(self.longest, self.courant / speed if speed > 0 else math.inf)
            self._count = max(1, math.ceil(self.remaining / limit * (1 - INTERVAL_ROUNDING)))
            self._length = self.remaining / self._count
        return self._length

    @property
    def _courant_limit(self) -> float:
        return min(1.2 * self.courant, self.stable)

    def count_step(self) -> bool:
        """Count a finished step; return whether the interval has ended."""
        self._count -= 1
        self.remaining -= self._length
        return self._count == 0
