import numpy as np
import pytest

import droplets_reference
from droplets_reference import rates
from scimill.droplets.kernels import equations
from scimill.droplets.kernels.physics import vapour_excess


def test_constants_combine_to_the_published_numbers(constants):
    published = {
        "growth": 5.531308596546e-11,
        "conduction": 1.585771012907e-8,
        "latent": 1752.24408,
        "clapeyron": 5288.7016669874,
        "kelvin": 3.1547483883e-7,
        "raoult": 2.3873241464e-4,
    }
    digits = {name: len(f"{value:e}".split("e")[0].rstrip("0").replace(".", "")) for name, value in published.items()}
    for name, value in published.items():
        assert getattr(constants, name) == pytest.approx(value, rel=5.1 * 10.0 ** -digits[name]), name


@pytest.fixture
def state(saturation):
    """Return droplets of all sizes, some salty: y = (u, T) and their surroundings, each with 200 columns."""
    stream = np.random.default_rng(3)
    r, Tf = 10 ** stream.uniform(-8, -3, 200), stream.uniform(273, 310, 200)
    S = (
        10 ** stream.uniform(-3, 0.3, 200) * r**3 * 4e3
    )  # solute terms about 1, so that salt, curvature and heat all matter
    y = np.stack([r**2, Tf + stream.uniform(-3, 3, 200)])
    return y, np.stack([S, Tf, stream.uniform(0.5, 1.1, 200), stream.uniform(0.8, 1.3, 200), saturation(Tf)])


def by_differences(y, droplets, k, unknown):
    """Compute derivatives of the slopes by one unknown, from central differences of order four."""
    h = np.zeros_like(y)
    h[unknown] = 1e-3 * y[0] if unknown == 0 else 0.05

    def at(n):
        return droplets_reference.slopes(y + n * h, droplets, k)

    return (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * h[unknown])


def test_jacobian_is_the_derivative_of_the_slopes(state, constants):
    y, droplets = state
    J = droplets_reference.jacobian(y, droplets, constants)
    for unknown in (0, 1):
        np.testing.assert_allclose(J[:, unknown], by_differences(y, droplets, constants, unknown), rtol=1e-7)


def test_slopes_and_jacobian_of_the_lanes_equal_the_reference(state, constants):
    y, (S, Tf, RH, rho, e) = state
    cooling = constants.conduction * rho
    air = equations.Air(RH * e / Tf, e, constants.clapeyron / Tf, constants.raoult * S, cooling, cooling * Tf)
    expected = np.concatenate(
        [droplets_reference.slopes(*state, constants), *droplets_reference.jacobian(*state, constants)]
    )
    for i in range(y.shape[1]):
        surroundings = equations.Air(*(column[i] for column in air))
        found = equations.jacobian(*y[:, i], surroundings, constants)
        assert found == pytest.approx(expected[:, i], rel=1e-9)
        assert equations.slopes(*y[:, i], surroundings, constants) == pytest.approx(found[:2], rel=1e-12)


def test_rates_and_slopes_are_the_same_equations(state, constants):
    y, droplets = state
    r_rate, T_rate = rates(np.sqrt(y[0]), y[1], *droplets, constants)
    np.testing.assert_allclose(
        droplets_reference.slopes(y, droplets, constants), [2 * np.sqrt(y[0]) * r_rate, T_rate], rtol=1e-14
    )


def test_extreme_salt_and_curvature_do_not_overflow(constants, saturation):
    r, S = np.array([1e-9, 1e-9]), np.array([1e-8, 0.0])
    with np.errstate(all="raise", under="ignore"):
        excess = vapour_excess(r, np.array([290.0, 1.0]), S, 290.0, 0.8, saturation(290.0), constants)
    assert np.isfinite(excess).all()
    assert excess[0] > 0
