import numpy as np
import pytest

import droplets_reference
from droplets_reference import rates
from scimill.droplets import arguments
from scimill.droplets.kernels import equations, lanes, physics
from scimill.droplets.kernels.physics import CloudConstants, Constants, dry_core, vapour_excess
from scimill.droplets.params import SolveConfig


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


CORRECTIONS = {
    "mass accommodation": {"mass_accommodation": 0.5},
    "thermal accommodation": {"thermal_accommodation": 0.7},
    "fuchs-sutugin": {"mass_accommodation": 0.3, "thermal_accommodation": 0.9, "transition": "fuchs-sutugin"},
    "dry core": {"water_activity": "kappa-koehler", "hygroscopicity": 0.3},
    "slip": {"ventilation": "constant", "relative_velocity": 0.7},
    "terminal": {"ventilation": "terminal"},
    "all": {"mass_accommodation": 0.5, "thermal_accommodation": 0.7, "water_activity": "kappa-koehler",
            "ventilation": "terminal"},
}  # fmt: skip


@pytest.fixture(params=[None, *CORRECTIONS])
def any_constants(request):
    """Return the constants of the original model, or with corrections."""
    return arguments.constants(SolveConfig(**CORRECTIONS.get(request.param, {})))


@pytest.fixture
def wet_state(state, any_constants):
    """Return the state with droplets that are larger than their salt, some of them hardly."""
    y, (S, *air) = state
    core = S * any_constants.raoult / 0.3  # the smallest hygroscopicity of the constants above
    share = np.geomspace(1e-3, 0.999, len(S))
    return y, np.stack([np.minimum(S, share * y[0] ** 1.5 * S / core), *air])


def by_differences(y, droplets, k, unknown):
    """Compute derivatives of the slopes by one unknown, from central differences of order four."""
    h = np.zeros_like(y)
    h[unknown] = 1e-3 * y[0] if unknown == 0 else 0.05

    def at(n):
        return droplets_reference.slopes(y + n * h, droplets, k)

    return (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * h[unknown])


def test_jacobian_is_the_derivative_of_the_slopes(wet_state, any_constants):
    y, droplets = wet_state
    J = droplets_reference.jacobian(y, droplets, any_constants)
    r3, core = y[0] ** 1.5, dry_core(droplets[0], any_constants)
    far = core < 0.5 * r3  # closer to the core, differences over 0.2 % of u are not exact enough
    for unknown in (0, 1):
        found = by_differences(y, droplets, any_constants, unknown)
        np.testing.assert_allclose(J[:, unknown, far], found[:, far], rtol=2e-7)


def test_slopes_and_jacobian_of_the_lanes_equal_the_reference(wet_state, any_constants):
    y, droplets = wet_state
    expected = np.concatenate(
        [droplets_reference.slopes(*wet_state, any_constants), *droplets_reference.jacobian(*wet_state, any_constants)]
    )
    for i, (S, Tf, RH, rho, e) in enumerate(droplets.T):
        loaded = np.zeros((equations.ROWS, lanes.WIDTH))
        r = np.sqrt(y[0, i])
        lanes.load(loaded, 0, r, y[1, i], S, Tf, RH, rho, e, 1.0, 1e-9, any_constants)
        surroundings = equations.surroundings(loaded, 0, any_constants)
        found = equations.jacobian(*y[:, i], surroundings, any_constants)
        # Close to a dry core, r³ − rd³ loses digits.
        precision = 1e-9 / (1 - dry_core(S, any_constants) / r**3)
        assert found == pytest.approx(expected[:, i], rel=precision)
        assert equations.slopes(*y[:, i], surroundings, any_constants) == pytest.approx(found[:2], rel=1e-12)


def test_rates_and_slopes_are_the_same_equations(wet_state, any_constants):
    y, droplets = wet_state
    r_rate, T_rate = rates(np.sqrt(y[0]), y[1], *droplets, any_constants)
    np.testing.assert_allclose(
        droplets_reference.slopes(y, droplets, any_constants), [2 * np.sqrt(y[0]) * r_rate, T_rate], rtol=1e-14
    )


def test_extreme_salt_and_curvature_do_not_overflow(constants, saturation):
    r, S = np.array([1e-9, 1e-9]), np.array([1e-8, 0.0])
    with np.errstate(all="raise", under="ignore"):
        excess = vapour_excess(r, np.array([290.0, 1.0]), S, 290.0, 0.8, saturation(290.0), constants)
    assert np.isfinite(excess).all()
    assert excess[0] > 0


# ---- corrections ------------------------------------------------------------------------------------------------


def cloud(**values):
    return arguments.constants(SolveConfig(**values))


def test_the_original_constants_are_used_unless_a_correction_is_on():
    assert type(cloud(hygroscopicity=0.5, transition="fuchs-sutugin")) is Constants
    for values in CORRECTIONS.values():
        assert type(cloud(**values)) is CloudConstants


@pytest.mark.parametrize("name", CORRECTIONS)
def test_corrections_that_are_off_are_exactly_one(name, state):
    (u, _), (_, Tf, _, rho, _) = state
    vapour, heat = physics.transfer(np.sqrt(u), Tf, rho, cloud(**CORRECTIONS[name]))
    changes_vapour = name not in ("dry core", "thermal accommodation")
    changes_heat = name not in ("dry core", "mass accommodation")
    assert (vapour != 1).any() == changes_vapour
    assert (heat != 1).any() == changes_heat


def test_constants_are_restored_from_a_list():
    for k in (cloud(), cloud(ventilation="terminal")):
        assert physics.restore_constants(list(k)) == k
        assert type(physics.restore_constants(list(k))) is type(k)


@pytest.mark.parametrize("accommodation", [1.0, 0.3])
def test_both_forms_of_the_transition_share_their_limits(accommodation):
    values = {"mass_accommodation": accommodation, "thermal_accommodation": accommodation}
    air = np.array(290.0), np.array(1.2)
    for r, same in ((1e-12, 1e-3), (1e-2, 1e-3)):
        jump = physics.transfer(np.array(r), *air, cloud(**values))
        smooth = physics.transfer(np.array(r), *air, cloud(**values, transition="fuchs-sutugin"))
        np.testing.assert_allclose(jump, smooth, rtol=same)
    middle = [
        physics.transfer(np.array(1e-7), *air, cloud(**values, transition=form))[0]
        for form in ("jump", "fuchs-sutugin")
    ]
    assert 0.005 < abs(middle[0] / middle[1] - 1) < 0.2


def test_tiny_droplets_grow_at_the_rate_of_free_molecules():
    """Hertz-Knudsen: dr/dt = α (p − e)/(ρw √(2π Rv T)), without surface tension, at the air's temperature."""
    k, r, T, e, excess = cloud(mass_accommodation=0.4, surface_tension=0.0), 1e-12, 290.0, 1900.0, 1e-3
    growth, _ = rates(np.array(r), np.array(T), np.array(0.0), np.array(T), 1 + excess, 1.2, np.array(e), k)
    vapour_constant = 8.3144 / 0.018015
    expected = 0.4 * excess * e / (1000 * np.sqrt(2 * np.pi * vapour_constant * T))
    assert growth == pytest.approx(expected, rel=1e-4)


GUNN_KINZER = ((0.1, 0.27), (0.2, 0.72), (0.5, 2.06), (1.0, 4.03), (1.4, 5.17), (2.0, 6.49))  # diameter, mm; m/s


@pytest.mark.parametrize(("diameter", "velocity"), GUNN_KINZER)
def test_terminal_velocity_agrees_with_measurements(diameter, velocity):
    k = cloud(ventilation="terminal", air_viscosity=1.51e-5)
    assert physics.terminal_velocity(diameter * 5e-4, 1.2, k) == pytest.approx(velocity, rel=0.13)


def test_small_droplets_fall_by_stokes_law():
    k, r = cloud(ventilation="terminal"), 5e-6
    stokes = 2 / 9 * (1000 - 1.2) * 9.80665 * r**2 / (1.2 * 1.57e-5)
    assert physics.terminal_velocity(r, 1.2, k) == pytest.approx(stokes, rel=0.01)


def test_ventilation_is_that_of_ranz_and_marshall():
    r, v, nu = 3e-4, 2.0, 1.57e-5
    vapour, heat = physics.transfer(np.array(r), 290.0, 1.2, cloud(ventilation="constant", relative_velocity=v))
    reynolds = 2 * r * v / nu
    assert 2 * vapour == pytest.approx(2 + 0.6 * reynolds**0.5 * 0.615 ** (1 / 3))
    assert 2 * heat == pytest.approx(2 + 0.6 * reynolds**0.5 * 0.715 ** (1 / 3))


def test_water_activity_is_that_of_petters_and_kreidenweis():
    kappa, salt, r = 0.61, 1e-18, np.array([1e-7, 2e-7, 1e-6])
    k = cloud(water_activity="kappa-koehler", hygroscopicity=kappa, salt_density=1770.0)
    cube = 3 * salt / (4 * np.pi * 1770.0)
    S = np.array(kappa * salt * 1000.0 / 1770.0)
    assert dry_core(S, k) == pytest.approx(cube)
    expected = (r**3 - cube) / (r**3 - cube * (1 - kappa))
    np.testing.assert_allclose(physics.water_activity(r, S, k), expected, rtol=1e-12)
    np.testing.assert_allclose(physics.water_activity(r[2:], S, k), np.exp(-k.raoult * S / r[2:] ** 3), rtol=1e-6)
