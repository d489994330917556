"""The classical Runge–Kutta method of order four, its linear part exact, and the choice of the step.

With E = exp(L h/2) the integrating factor gives, from rates a, b, c, d of the nonlinear part at the four stages,

    u = E y,  stage 2 = u + h/2 E a,  stage 3 = u + h/2 b,  stage 4 = E(u + h c),  y' = E²y + h/6 (E²a + 2E(b + c) + d).

Only the state, the next stage and a running total are kept. Source: Cox and Matthews, J. Comput. Phys. 176 (2002) 430.
"""

import dataclasses
import math

import numba

LANDING = 1e-9  # relative: an interval that is this little longer than a whole number of steps takes no further step


@numba.njit(cache=True)
def first(state, rate, e, half, sixth, total, stage):  # type: ignore[no-untyped-def]
    """Stage 1: state, total and stage (2, rows, modes) from its rate; e is E, shape (2, 2, rows, modes)."""
    for i in range(state.shape[1]):
        for j in range(state.shape[2]):
            e00, e01, e10, e11 = e[0, 0, i, j], e[0, 1, i, j], e[1, 0, i, j], e[1, 1, i, j]
            n, w = e00 * state[0, i, j] + e01 * state[1, i, j], e10 * state[0, i, j] + e11 * state[1, i, j]
            rn, rw = e00 * rate[0, i, j] + e01 * rate[1, i, j], e10 * rate[0, i, j] + e11 * rate[1, i, j]
            state[0, i, j], state[1, i, j] = n, w
            stage[0, i, j], stage[1, i, j] = n + half * rn, w + half * rw
            total[0, i, j], total[1, i, j] = n + sixth * rn, w + sixth * rw


@numba.njit(cache=True)
def second(state, rate, half, third_, total, stage):  # type: ignore[no-untyped-def]
    """Stage 2: stage = u + h/2 b, total += h/3 b."""
    for f in range(2):
        for i in range(state.shape[1]):
            for j in range(state.shape[2]):
                stage[f, i, j] = state[f, i, j] + half * rate[f, i, j]
                total[f, i, j] += third_ * rate[f, i, j]


@numba.njit(cache=True)
def third(state, rate, e, whole, third_, total, stage):  # type: ignore[no-untyped-def]
    """Stage 3: stage = E(u + h c), total = E(total + h/3 c)."""
    for i in range(state.shape[1]):
        for j in range(state.shape[2]):
            e00, e01, e10, e11 = e[0, 0, i, j], e[0, 1, i, j], e[1, 0, i, j], e[1, 1, i, j]
            n, w = state[0, i, j] + whole * rate[0, i, j], state[1, i, j] + whole * rate[1, i, j]
            tn, tw = total[0, i, j] + third_ * rate[0, i, j], total[1, i, j] + third_ * rate[1, i, j]
            stage[0, i, j], stage[1, i, j] = e00 * n + e01 * w, e10 * n + e11 * w
            total[0, i, j], total[1, i, j] = e00 * tn + e01 * tw, e10 * tn + e11 * tw


@numba.njit(cache=True)
def fourth(state, rate, sixth, total):  # type: ignore[no-untyped-def]
    """Stage 4: the new state, total + h/6 d."""
    for f in range(2):
        for i in range(state.shape[1]):
            for j in range(state.shape[2]):
                state[f, i, j] = total[f, i, j] + sixth * rate[f, i, j]


@dataclasses.dataclass
class Pace:
    """Steps that are left of an interval, all of one length; shortened when the flow has become too fast for it.

    Parameters
    ----------
    left : time to the end of the interval.
    step : fixed length of a step, or None for the longest that Courant's number allows.
    courant : Courant number that is aimed at.
    longest : longest step.

    """

    left: float
    step: float | None
    courant: float
    longest: float
    _length: float = 0.0
    _count: int = 0

    def next(self, speed: float) -> float:
        """Length of the next step, where the fastest flow crosses `speed` grid spacings per unit time.

        A step is kept as long as its Courant number is at most a fifth above the aim, so that what depends on its
        length need not be made anew at each step.
        """
        if self._count == 0 or (self.step is None and speed * self._length > 1.2 * self.courant):
            limit = self.step or min(self.longest, self.courant / speed if speed > 0 else math.inf)
            self._count = max(1, math.ceil(self.left / limit * (1 - LANDING)))
            self._length = self.left / self._count
        return self._length

    def taken(self) -> bool:
        """Count a step; return whether the interval has ended."""
        self._count -= 1
        self.left -= self._length
        return self._count == 0
