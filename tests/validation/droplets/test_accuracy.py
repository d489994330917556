"""Random droplets of each preset agree with an independent solver, within the precision of float32 inputs.

The condition is |Δr/r| <= max(6e-8, sensitivity), and the same with 1e-7 for T. The sensitivity is how much the result
changes when the stored inputs change by up to half their last bit. The oracle is scipy's Radau in (ln r, T) with its
right-hand side written out below, from the published form of the equations; it uses nothing of scimill.
"""

import math

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from scimill.droplets import arguments
from scimill.droplets.kernels import lanes, solver

DROPLETS = 100_000
ORACLE_RANDOM, ORACLE_HARDEST = 250, 50
PERTURBATIONS = 6
RADIUS_LIMIT, TEMPERATURE_LIMIT = 6e-8, 1e-7


class Solved:
    """The droplets of a preset: exact float64 results for their float32 inputs, and scimill's results."""

    def __init__(self, config, draw):
        self.model = arguments.solver_settings(config)
        self.inputs, self.times = draw(config, DROPLETS)
        self.radius, self.temperature, self.status = self.integrate(self.inputs, self.times, config.tolerance)
        self.exact_radius, self.exact_temperature, _ = self.integrate(self.inputs, self.times, 1e-12)

    def integrate(self, inputs, times, tolerance):
        r, T, salinity, Tf, RH, rho = np.ascontiguousarray(inputs, dtype=float)
        e = 610.94 * np.exp(17.6257 * (Tf - 273.15) / (243.04 + (Tf - 273.15)))
        radius, temperature, status = lanes.integrate(
            r, T, self.solute(salinity), Tf, RH, rho, e, times.astype(float), self.model.constants, tolerance=tolerance
        )
        return radius[:, 0], temperature[:, 0], status[:, 0]

    def solute(self, salinity):
        return self.model.solute_per_salinity * salinity

    def sensitivity(self):
        """Estimate the largest relative change of r and T when all inputs move at random within their rounding."""
        stream = np.random.default_rng(53)
        radius_moves, temperature_moves = np.zeros(DROPLETS), np.zeros(DROPLETS)
        for _ in range(PERTURBATIONS):
            inputs, times = moved(stream, self.inputs), moved(stream, self.times)
            radius, temperature, _ = self.integrate(inputs, times, 1e-10)
            radius_moves = np.maximum(radius_moves, abs(radius / self.exact_radius - 1))
            temperature_moves = np.maximum(temperature_moves, abs(temperature / self.exact_temperature - 1))
        return radius_moves, temperature_moves


def moved(stream, single):
    """Move float32 values, as float64, by up to half their last bit."""
    return single.astype(float) + stream.uniform(-0.5, 0.5, single.shape) * np.spacing(single).astype(float)


@pytest.fixture(scope="module", params=["classic", "ntlp-2026"])
def solved(request, configure, draw):
    return Solved(configure(request.param, seed=53), draw)


@pytest.fixture(scope="module")
def allowed(solved):
    radius_moves, temperature_moves = solved.sensitivity()
    return np.maximum(RADIUS_LIMIT, radius_moves), np.maximum(TEMPERATURE_LIMIT, temperature_moves)


# ---- the oracle -------------------------------------------------------------------------------------------------


def right_hand_side(S, Tf, RH, air_density):
    """Return d(ln r)/dt and dT/dt, with upstream's form of the equations and its constants."""
    sherwood = nusselt = 2.0
    schmidt, prandtl, viscosity, air_heat = 0.615, 0.715, 1.57e-5, 1006.0
    water_density, water_heat, molar_mass, gas_constant = 1000.0, 4179.0, 0.018015, 8.3144
    surface_tension, latent_heat = 7.28e-2, (25.0 - 0.02274 * 26) * 1e5
    saturation = 610.94 * math.exp(17.6257 * (Tf - 273.15) / (243.04 + (Tf - 273.15)))
    far_humidity = RH * saturation * molar_mass / (gas_constant * Tf * air_density)

    def derivative(_, y):
        r, T = math.exp(y[0]), y[1]
        clapeyron = latent_heat * molar_mass / gas_constant * (1 / Tf - 1 / T)
        kelvin = 2 * molar_mass * surface_tension / (gas_constant * water_density * r * T)
        raoult = S / (water_density * 4 / 3 * math.pi * r**3)
        exponent = max(clapeyron + kelvin - raoult, -700.0)
        surface_humidity = saturation * molar_mass / (gas_constant * T * air_density) * math.exp(exponent)
        growth = (
            sherwood / schmidt * viscosity * air_density / water_density / r * (far_humidity - surface_humidity) / 2
        )
        conduction = nusselt / prandtl * air_heat / water_heat * viscosity * air_density / water_density * (T - Tf)
        return growth / r, -1.5 * conduction / r**2 + 3 * latent_heat / (water_heat * r) * growth

    return derivative


def oracle(droplet, t):
    """Compute radius and temperature at time t."""
    r, T, S, Tf, RH, air_density = droplet
    solution = solve_ivp(
        right_hand_side(S, Tf, RH, air_density), (0, t), [math.log(r), T], method="Radau", rtol=1e-9, atol=[1e-10, 1e-8]
    )
    assert solution.success, solution.message
    return math.exp(solution.y[0, -1]), solution.y[1, -1]


# ---- tests ------------------------------------------------------------------------------------------------------


def test_every_droplet_is_solved(solved):
    radius, temperature, status = solver.solve(solved.model, solved.inputs, solved.times)
    assert (status == lanes.DONE).all()
    assert np.isfinite(radius).all()
    assert np.isfinite(temperature).all()
    assert radius.min() > 0
    np.testing.assert_array_equal(radius[:, 0], solved.radius.astype(np.float32))
    np.testing.assert_array_equal(temperature[:, 0], solved.temperature.astype(np.float32))


def test_default_tolerance_is_exact_for_float32_inputs(solved, allowed):
    radius_error = abs(solved.radius / solved.exact_radius - 1)
    temperature_error = abs(solved.temperature / solved.exact_temperature - 1)
    assert (radius_error <= allowed[0]).all(), (radius_error / allowed[0]).max()
    assert (temperature_error <= allowed[1]).all(), (temperature_error / allowed[1]).max()
    assert np.median(radius_error) <= 1e-10
    assert np.quantile(radius_error, 0.99) <= 1e-7


def test_random_and_hardest_droplets_agree_with_an_independent_solver(solved, allowed):
    random = np.random.default_rng(54).choice(DROPLETS, ORACLE_RANDOM, replace=False)
    chosen = np.union1d(random, np.argsort(allowed[0])[-ORACLE_HARDEST:])
    inputs = solved.inputs.astype(float)
    inputs[2] = solved.solute(inputs[2])
    truth = np.array([oracle(inputs[:, i], float(solved.times[i, 0])) for i in chosen])
    radius_error = abs(solved.radius[chosen] / truth[:, 0] - 1)
    temperature_error = abs(solved.temperature[chosen] / truth[:, 1] - 1)
    assert (radius_error <= allowed[0][chosen]).all(), (radius_error / allowed[0][chosen]).max()
    assert (temperature_error <= allowed[1][chosen]).all(), (temperature_error / allowed[1][chosen]).max()
    assert np.median(radius_error) <= 1e-10
    # The solution that the first test treats as exact agrees with the oracle to its last digits.
    exact_error = abs(solved.exact_radius[chosen] / truth[:, 0] - 1)
    assert (exact_error <= 1e-2 * allowed[0][chosen]).all(), (exact_error / allowed[0][chosen]).max()


def test_lanes_agree_with_the_readable_reference(any_preset, configure, draw, integrate):
    config = configure(any_preset, seed=55)
    droplets, times = draw(config, 4000)
    droplets = droplets.astype(float)
    model = arguments.solver_settings(config)
    droplets[2] *= model.solute_per_salinity
    fast, fast_T, _ = integrate(droplets, times, tolerance=1e-8, k=model.constants)
    plain, plain_T = integrate(droplets, times, tolerance=1e-8, by="reference", k=model.constants)
    # The steps are the same, except that the last bits of exp change the acceptance of one step in many thousands.
    for difference, most in ((abs(fast / plain - 1), RADIUS_LIMIT), (abs(fast_T / plain_T - 1), TEMPERATURE_LIMIT)):
        assert np.median(difference) < 1e-13
        assert np.quantile(difference, 0.99) < 1e-11
        assert difference.max() < most
