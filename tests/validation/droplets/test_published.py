"""The droplet kernels agree with published formulas, frozen solutions and exact properties of the equations.

Symbols: r radius (m), T droplet temperature (K), S solute term (kg), Tf air temperature (K), RH relative humidity,
rho air density (kg/m3), e saturation vapour pressure at Tf (Pa).
"""

import numpy as np
import pytest
from scipy.optimize import brentq

import droplets_reference
from droplets_reference import rates
from scimill.droplets.kernels import lanes
from scimill.droplets.kernels.physics import vapour_excess

# ---- saturation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("T", "pascal"),
    [(273.15, 610.9400), (283.15, 1226.0546), (293.15, 2333.5648), (303.15, 4236.9761), (310.0, 6220.3312)],
)
def test_saturation_pressure(T, pascal, saturation):
    assert saturation(T) == pytest.approx(pascal, abs=5.1e-5)


# ---- wet bulb and the d²-law ------------------------------------------------------------------------------------

D2_LAW = [
    # Tf, RH, rho, wet-bulb T, K = -dr²/dt (m²/s), t (s), r by the law (m), r by the equations, their deviation
    (293.15, 0.60, 1.20, 287.852209, 1.15067311e-10, 21.726414, 86.602540e-6, 86.602194751e-6, -4.0e-6),
    (293.15, 0.65, 1.20, 288.570448, 9.94672497e-11, 25.133901, 86.602540e-6, 86.602134846e-6, -4.7e-6),
    (283.15, 0.80, 1.25, 281.272528, 4.24775436e-11, 58.854627, 86.602540e-6, 86.601742783e-6, -9.2e-6),
    (303.15, 0.55, 1.15, 295.498521, 1.59264549e-10, 15.697153, 86.602540e-6, 86.602255416e-6, -3.3e-6),
    (300.00, 0.75, 1.00, 296.117196, 7.02783116e-11, 35.572852, 86.602540e-6, 86.601960418e-6, -6.7e-6),
    (285.00, 1.05, 1.20, 285.486448, -1.05655815e-11, 10.0, 100.52689100e-6, 100.52676881e-6, -1.2e-6),
]
LARGE = 100e-6  # m


@pytest.fixture
def flat(constants):
    """Return the constants without surface tension: the d²-law ignores curvature."""
    return constants._replace(kelvin=0.0)


def wet_bulb(Tf, RH, rho, e, k):
    return brentq(lambda T: rates(LARGE, T, 0.0, Tf, RH, rho, e, k)[1], Tf - 20, Tf + 20, xtol=1e-10)


@pytest.mark.parametrize(("Tf", "RH", "rho", "bulb", "K"), [row[:5] for row in D2_LAW])
def test_wet_bulb_and_evaporation_constant(Tf, RH, rho, bulb, K, flat, saturation):
    e = saturation(Tf)
    found = wet_bulb(Tf, RH, rho, e, flat)
    r_rate, _ = rates(LARGE, found, 0.0, Tf, RH, rho, e, flat)
    assert found == pytest.approx(bulb, abs=5.1e-7)
    assert -2 * LARGE * r_rate == pytest.approx(K, rel=5.1e-9)


@pytest.mark.parametrize(("Tf", "RH", "rho", "bulb", "K", "t", "law", "r", "deviation"), D2_LAW)
def test_large_droplet_follows_the_d2_law_except_for_curvature(
    Tf, RH, rho, bulb, K, t, law, r, deviation, integrate
):  # fmt: skip
    radius, temperature, _ = integrate([LARGE, bulb, 1e-22, Tf, RH, rho], t)
    # t and K are given to eight digits, so r is not known any better.
    assert radius[0, 0] == pytest.approx(r, rel=3e-9)
    assert radius[0, 0] / law - 1 == pytest.approx(deviation, abs=0.06e-6)
    assert temperature[0, 0] == pytest.approx(bulb, abs=0.01)


@pytest.mark.parametrize(("Tf", "RH", "rho"), [row[:3] for row in D2_LAW])
def test_without_curvature_and_salt_the_d2_law_is_exact(Tf, RH, rho, flat, saturation, integrate):
    bulb = wet_bulb(Tf, RH, rho, saturation(Tf), flat)
    K = -2 * LARGE * rates(LARGE, bulb, 0.0, Tf, RH, rho, saturation(Tf), flat)[0]
    times = np.array([[0.1, 0.5, 0.9, 0.99]]) * LARGE**2 / abs(K)
    radius, _, _ = integrate([LARGE, bulb, 0.0, Tf, RH, rho], times, k=flat)
    np.testing.assert_allclose(radius, np.sqrt(LARGE**2 - K * times), rtol=1e-9)


def test_lifetime_of_a_ten_micrometre_droplet(flat, saturation, integrate):
    droplet = [10e-6, wet_bulb(293.15, 0.6, 1.2, saturation(293.15), flat), 0.0, 293.15, 0.6, 1.2]
    _, _, status = integrate(np.array([droplet, droplet]).T, [0.8690, 0.8692], k=flat)
    assert status[:, 0].tolist() == [lanes.DONE, lanes.DRIED]


# ---- Köhler -----------------------------------------------------------------------------------------------------

KOEHLER = [
    # salt mass (kg), RH, Tf, equilibrium r, critical r, critical supersaturation, time to settle (s)
    (1e-18, 0.65, 293.15, 6.8456181053e-8, 6.319090e-7, 1.135993e-3, 50),
    (1e-18, 0.90, 293.15, 1.0747787797e-7, 6.319090e-7, 1.135993e-3, 50),
    (1e-18, 0.99, 293.15, 2.1150869425e-7, 6.319090e-7, 1.135993e-3, 50),
    (1e-15, 0.90, 293.15, 1.1044063378e-6, 1.998272e-5, 3.590350e-5, 50),
    (1e-20, 0.90, 283.15, 2.0812192822e-8, 6.210376e-8, 1.203203e-2, 50),
    (1e-12, 0.80, 300.00, 8.6247600626e-6, 6.392492e-4, 1.096686e-6, 5000),
]
SOLUTE_PER_SALT = 0.6


@pytest.mark.parametrize(("salt", "RH", "Tf", "r_eq"), [row[:4] for row in KOEHLER])
def test_koehler_equilibrium_is_the_root_of_the_vapour_excess(salt, RH, Tf, r_eq, constants, saturation):
    S, e = SOLUTE_PER_SALT * salt, saturation(Tf)
    root = brentq(lambda r: vapour_excess(r, Tf, S, Tf, RH, e, constants), 0.5 * r_eq, 2 * r_eq, xtol=1e-22, rtol=1e-14)
    assert root == pytest.approx(r_eq, rel=6e-11)


@pytest.mark.parametrize(("salt", "RH", "Tf", "r_eq", "r_crit", "supersaturation", "t"), KOEHLER)
@pytest.mark.parametrize("start", [0.7, 1.0, 1.5])
def test_droplet_settles_at_its_koehler_equilibrium(
    start, salt, RH, Tf, r_eq, r_crit, supersaturation, t, integrate
):  # fmt: skip
    radius, temperature, status = integrate([start * r_eq, Tf, SOLUTE_PER_SALT * salt, Tf, RH, 1.2], t)
    assert (status == lanes.DONE).all()
    assert radius[0, 0] == pytest.approx(r_eq, rel=1e-10)
    assert temperature[0, 0] == pytest.approx(Tf, rel=1e-11)


@pytest.mark.parametrize(("salt", "Tf", "r_crit", "supersaturation"), [(row[0], row[2], *row[4:6]) for row in KOEHLER])
def test_critical_point_is_the_maximum_of_the_koehler_curve(salt, Tf, r_crit, supersaturation, constants, saturation):
    S, e = SOLUTE_PER_SALT * salt, saturation(Tf)
    equilibrium_humidity = 1 - vapour_excess(r_crit * np.array([0.99, 1, 1.01]), Tf, S, Tf, 1.0, e, constants) * Tf / e
    below, at, above = equilibrium_humidity - 1
    assert at == pytest.approx(supersaturation, rel=1e-6)
    assert below < at > above


# ---- relaxation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("r", "conduction", "with_latent_heat"),
    [
        (1e-8, 5.2551e-9, 1.5655e-9),
        (1e-6, 5.2551e-5, 1.5655e-5),
        (1e-4, 0.52551, 0.15655),
        (1e-3, 52.551, 15.655),
    ],
)
def test_relaxation_time(r, conduction, with_latent_heat, flat, saturation, integrate):
    Tf, disturbance = 293.15, 1e-4
    for k, tau in ((flat, with_latent_heat), (flat._replace(latent=0.0, growth=0.0), conduction)):
        droplet = np.array([[0.0], [Tf], [1.0], [1.2], [saturation(Tf)]])
        by_temperature = droplets_reference.jacobian(np.array([[r**2], [Tf]]), droplet, k)[1, 1, 0]
        assert -1 / by_temperature == pytest.approx(tau, rel=2e-5)
        _, temperature, _ = integrate([r, Tf + disturbance, 0.0, Tf, 1.0, 1.2], tau, k=k, tolerance=1e-12)
        assert (temperature[0, 0] - Tf) / disturbance == pytest.approx(np.exp(-1), rel=1e-4)


# ---- frozen solutions -------------------------------------------------------------------------------------------

FROZEN = [
    # r0, T0, S, Tf, RH, rho, t, r(t), T(t): Radau IIA at 1e-12 in (ln r, T), confirmed by Rodas4
    (1e-5, 293.15, 6e-19, 293.15, 0.65, 1.2, 1, 3.727812859114e-7, 288.5685804019),
    (3.59981e-5, 290.672, 1.236042e-12, 309.598, 1.08544, 1.18962, 1, 3.676693974173e-5, 311.0417311100),
    (1e-8, 290, 1e-12, 290, 0.8, 1.2, 10, 1.022476490511e-5, 290.0008531539),
    (1e-7, 300, 1e-20, 297, 0.55, 1.3, 10, 1.529441240872e-8, 297.0000000000),
    (1e-7, 285, 6e-20, 285, 1.05, 1.0, 10, 9.681675301525e-6, 285.5189878965),
    (1e-4, 280, 1e-13, 283, 0.95, 1.1, 10, 9.960293240130e-5, 282.5176666860),
    (1e-3, 275, 1e-10, 278, 0.7, 0.8, 10, 9.997909329584e-4, 275.0133985663),
    (1e-8, 273, 1e-22, 276, 0.55, 1.3, 0.01, 2.885187026713e-9, 276.0000000000),
    (2e-6, 310, 1e-18, 307, 1.1, 0.8, 0.1, 2.510277431137e-6, 308.5940294294),
    (5e-6, 288, 1e-17, 290, 1.0, 1.2, 10, 4.955058636390e-6, 289.9977577486),
]
ILL_CONDITIONED = 0  # this droplet has almost evaporated: two solvers agree on nine digits of its radius


@pytest.mark.parametrize("by", ["lanes", "reference"])
def test_frozen_solutions(by, integrate):
    *droplets, t, radius, temperature = np.array(FROZEN).T
    found_radius, found_temperature = integrate(droplets, t, by=by, tolerance=1e-12)[:2]
    error = np.abs(found_radius[:, 0] / radius - 1)
    allowed = np.full(len(FROZEN), 1.5e-12)
    allowed[ILL_CONDITIONED] = 1e-9
    assert (error <= allowed).all(), error
    np.testing.assert_allclose(found_temperature[:, 0], temperature, rtol=0, atol=2e-10 * temperature.max() / 4)


# ---- the method -------------------------------------------------------------------------------------------------


def fixed_steps(y, t, steps, droplet, k):
    for _ in range(steps):
        y, _ = droplets_reference.step(y, np.array([t / steps]), droplet, k)
    return y


@pytest.fixture
def smooth(saturation):
    """Return a cold droplet in warm, damp air: start (u, T), surroundings, and a time of eight relaxations."""
    Tf = 290.0
    return np.array([[1e-12], [280.0]]), np.array([[1e-18], [Tf], [1.1], [1.1], [saturation(Tf)]]), 2e-4


def test_rodas5p_converges_with_order_five(smooth, constants):
    y, droplet, t = smooth
    exact = fixed_steps(y, t, 1024, droplet, constants)
    errors = [abs(fixed_steps(y, t, n, droplet, constants)[0, 0] / exact[0, 0] - 1) for n in (16, 32, 64, 128)]
    assert errors[-1] < 1e-11
    np.testing.assert_allclose(np.log2(errors[:-1]) - np.log2(errors[1:]), 5, atol=0.15)


def test_embedded_error_estimate_has_local_order_five(smooth, constants):
    y, droplet, t = smooth
    h = t / np.array([256, 512])
    _, estimate = droplets_reference.step(np.repeat(y, 2, axis=1), h, np.repeat(droplet, 2, axis=1), constants)
    np.testing.assert_allclose(np.log2(np.abs(estimate[:, 0] / estimate[:, 1])), 5, atol=0.35)


def test_a_step_of_any_length_damps_a_stiff_disturbance(constants, saturation):
    """L-stability: the disturbance is gone after one step, whereas an A-stable method would mirror it."""
    salt, RH, Tf, r_eq, *_ = KOEHLER[0]
    droplet = np.array([[SOLUTE_PER_SALT * salt], [Tf], [RH], [1.2], [saturation(Tf)]])
    y, _ = droplets_reference.step(np.array([[r_eq**2], [Tf + 1e-3]]), np.array([1e3]), droplet, constants)
    assert abs(y[1, 0] - Tf) < 1e-9


# ---- exact properties -------------------------------------------------------------------------------------------


@pytest.fixture
def random_droplets(preset, configure, draw):
    """Draw rows r, T, S, Tf, RH, rho of 2000 droplets of a preset, and times (n,)."""
    config = configure(preset, seed=46)
    droplets, times = draw(config, 2000)
    columns = droplets.astype(float)
    columns[2] *= SOLUTE_PER_SALT if config.salinity_kind == "salt-mass" else 1.0
    return columns, times[:, 0].astype(float)


def test_two_short_integrations_equal_one_long_one(random_droplets, integrate):
    droplets, t = random_droplets
    whole, whole_T, _ = integrate(droplets, t)
    r, T, _ = integrate(droplets, 0.3 * t)
    r, T, _ = integrate([r[:, 0], T[:, 0], *droplets[2:]], t - 0.3 * t)
    error = np.abs(r / whole - 1)
    assert np.median(error) < 1e-12
    assert error.max() < 1e-8
    np.testing.assert_allclose(T, whole_T, rtol=1e-9)


def test_growth_does_not_depend_on_air_density(random_droplets, constants, saturation):
    (r, T, S, Tf, RH, rho), _ = random_droplets
    e = saturation(Tf)
    thin, thin_T = rates(r, T, S, Tf, RH, rho, e, constants)
    dense, dense_T = rates(r, T, S, Tf, RH, 2 * rho, e, constants)
    np.testing.assert_array_equal(thin, dense)
    assert (thin_T != dense_T).all()


def test_lengths_scale_with_the_root_of_time_without_curvature_and_salt(random_droplets, flat, integrate):
    droplets, t = random_droplets
    droplets[2] = 0.0
    doubled, tripled = droplets.copy(), droplets.copy()
    doubled[0] *= 2
    tripled[0] *= 3
    r, T, status = integrate(droplets, t, k=flat, floor=1e-9)
    r2, T2, status2 = integrate(doubled, 4 * t, k=flat, floor=2e-9)
    r3, T3, _ = integrate(tripled, 9 * t, k=flat, floor=3e-9)
    settled = status[:, 0] == lanes.DONE
    assert settled.sum() > 500
    assert (~settled).sum() > 500
    # Doubling only changes the exponents of all numbers.
    np.testing.assert_array_equal(r2, 2 * r)
    np.testing.assert_array_equal(T2, T)
    np.testing.assert_array_equal(status2, status)
    np.testing.assert_allclose(r3[settled], 3 * r[settled], rtol=1e-7)
    np.testing.assert_allclose(T3[settled], T[settled], rtol=1e-7)


def test_a_droplet_with_salt_never_vanishes_and_forgets_its_start(integrate):
    grids = np.meshgrid([1e-8, 1e-6, 1e-4], [1e-22, 1e-18, 1e-14], [0.0, 0.3, 0.6], indexing="ij")
    r0, S, RH = (grid.ravel() for grid in grids)
    n = len(r0)
    droplets = [r0, np.full(n, 310.0), S, np.full(n, 273.0), RH, np.full(n, 1.0)]
    radius, temperature, status = integrate(droplets, np.full(n, 1e5), floor=1e-12)
    assert (status == lanes.DONE).all()
    assert radius.min() > 8e-10  # even in completely dry air, where salt would hold the last water forever
    np.testing.assert_allclose(temperature, 273.0, rtol=1e-10)
    small, medium, large = radius.reshape(3, 9)[:, RH[:9] > 0]
    np.testing.assert_allclose(small, large, rtol=1e-12)
    np.testing.assert_allclose(medium, large, rtol=1e-12)


def test_droplet_is_colder_than_the_air_if_and_only_if_it_evaporates(flat, integrate):
    RH = np.concatenate([np.linspace(0.5, 0.999, 50), np.linspace(1.001, 1.1, 50)])
    n = len(RH)
    droplets = [np.full(n, 1e-4), np.full(n, 290.0), np.zeros(n), np.full(n, 290.0), RH, np.full(n, 1.1)]
    radius, temperature, _ = integrate(droplets, np.full(n, 2.0), k=flat)
    np.testing.assert_array_equal(temperature[:, 0] < 290, RH < 1)
    np.testing.assert_array_equal(radius[:, 0] < 1e-4, RH < 1)


def test_a_large_pure_droplet_in_saturated_air_stays_as_it_is(integrate):
    radius, temperature, _ = integrate([1e-3, 290.0, 0.0, 290.0, 1.0, 1.2], 10.0)
    assert radius[0, 0] == pytest.approx(1e-3, rel=1e-8)
    assert temperature[0, 0] == pytest.approx(290.0, abs=1e-3)
