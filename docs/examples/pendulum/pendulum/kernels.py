"""The physics: pure functions of arrays."""

import numpy as np
from scipy.constants import g
from scipy.integrate import solve_ivp


def swing(angle, length, time):
    """Return the angle (rad) at a time (s) after the release from rest: angle'' = -g/length sin(angle)."""

    def slope(_, state):  # the time runs from 0 to 1 for each pendulum
        angle, speed = state.reshape(2, -1)
        return np.concatenate([time * speed, -time * g / length * np.sin(angle)])

    start = np.concatenate([angle, 0 * angle])
    return solve_ivp(slope, (0, 1), start, method="DOP853", rtol=1e-10, atol=1e-12).y[: len(angle), -1]
