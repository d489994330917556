"""Fluctuating air has the mean, deviation and correlation that it was asked for, at any time step."""

from itertools import islice

import numpy as np
import pytest

from scimill.droplets.kernels.air import ornstein_uhlenbeck

MEAN, DEVIATION, CORRELATION_TIME, COUNT = (290.0, 1.01), (0.5, 0.015), 2.0, 100_000


def states(time_step: float, steps: int, seed: int = 5) -> np.ndarray:
    """Return states, standardised, shape (steps, 2, COUNT)."""
    found = ornstein_uhlenbeck(
        MEAN, DEVIATION, time_step=time_step, correlation_time=CORRELATION_TIME, count=COUNT,
        stream=np.random.default_rng(seed),
    )  # fmt: skip
    values = np.stack(list(islice(found, steps)))
    return (values - np.array(MEAN)[:, None]) / np.array(DEVIATION)[:, None]


@pytest.mark.parametrize("time_step", [0.01, 1.0, 30.0])
def test_mean_and_deviation_are_stationary(time_step: float) -> None:
    for state in states(time_step, 4):
        assert np.abs(state.mean(1)) == pytest.approx(0, abs=5 / np.sqrt(COUNT))
        assert state.std(1) == pytest.approx(1, abs=5 / np.sqrt(2 * COUNT))


@pytest.mark.parametrize("time_step", [0.01, 1.0, 3.0])
def test_autocorrelation_decays_exponentially(time_step: float) -> None:
    found = states(time_step, 4)
    for lag in (1, 3):
        correlation = np.mean(found[0] * found[lag], axis=1)
        assert correlation == pytest.approx(np.exp(-lag * time_step / CORRELATION_TIME), abs=5 / np.sqrt(COUNT))


def test_temperature_and_humidity_and_the_processes_are_independent() -> None:
    temperature, humidity = states(1.0, 2)[1]
    assert np.mean(temperature * humidity) == pytest.approx(0, abs=5 / np.sqrt(COUNT))
    assert np.mean(temperature[1:] * temperature[:-1]) == pytest.approx(0, abs=5 / np.sqrt(COUNT))


def test_increments_of_short_steps_have_their_variance() -> None:
    """Var(x' − x) = 2 s² (1 − a): cancellation must not spoil it."""
    first, second = states(1e-6, 2)
    assert np.std(second - first, axis=1) == pytest.approx(np.sqrt(2 * 1e-6 / CORRELATION_TIME), rel=0.02)


def test_the_stream_alone_decides_and_states_are_not_overwritten() -> None:
    assert np.array_equal(states(0.1, 2), states(0.1, 2))
    assert not np.array_equal(states(0.1, 2), states(0.1, 2, seed=6))
    assert not np.array_equal(*states(0.1, 2))
