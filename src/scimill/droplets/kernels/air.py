"""Fluctuating air: Ornstein-Uhlenbeck processes, sampled exactly at any time step.

A process x with mean m, standard deviation s and correlation time τ obeys x' = m + (x − m) a + s √(1 − a²) ξ, where
a = exp(−dt/τ) and ξ is a standard normal number (Gillespie 1996, Phys. Rev. E 54, 2084). Mean, deviation and
correlation do not depend on dt.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def ornstein_uhlenbeck(
    mean: Sequence[float],
    deviation: Sequence[float],
    *,
    time_step: float,
    correlation_time: float,
    count: int,
    stream: np.random.Generator,
) -> Iterator[Array]:
    """Yield the states of independent processes without end, one time step apart.

    Parameters
    ----------
    mean, deviation : of each of k quantities; the deviation is that of all times, also of the first.
    time_step, correlation_time : in the same unit.
    count : number n of independent processes of each quantity.
    stream : source of the random numbers.

    Yields
    ------
    float64, shape (k, n), a new array each time.

    """
    m, s = (np.asarray(values, dtype=np.float64)[:, None] for values in (mean, deviation))
    memory = math.exp(-time_step / correlation_time)
    noise = s * math.sqrt(-math.expm1(-2 * time_step / correlation_time))
    state = m + s * stream.standard_normal((len(m), count))
    while True:
        yield state
        state = m + (state - m) * memory + noise * stream.standard_normal(state.shape)
