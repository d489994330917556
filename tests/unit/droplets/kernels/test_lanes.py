import hashlib
from pathlib import Path

import numpy as np
import pytest
from numba import njit

from scimill.droplets import arguments
from scimill.droplets.kernels import equations, koehler, lanes, solver
from scimill.droplets.params import SolveConfig

GROWING = (1e-6, 290.0, 1e-18, 290.0, 1.02, 1.0)
PURE_IN_DRY_AIR = (1e-6, 290.0, 0.0, 290.0, 0.8, 1.0)


@pytest.fixture
def several(any_preset, configure, draw):
    """Return a preset's solver settings, 700 of its droplets, and their times."""
    config = configure(any_preset, seed=5)
    return arguments.solver_settings(config), *draw(config, 700)


def as_columns(*droplets):
    return np.array(droplets).T


# ---- how an integration ends ------------------------------------------------------------------------------------


@pytest.mark.parametrize("r", [1e-8, 1e-6, 1e-4])
@pytest.mark.parametrize("RH", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("t", [1e4, 1e9])
def test_a_pure_droplet_in_dry_air_dries_in_few_steps(r, RH, t, integrate):
    radius, temperature, status = integrate((r, 290.0, 0.0, 290.0, RH, 1.0), t, tolerance=1e-8, max_steps=1000)
    assert status[:, -1].tolist() == [lanes.DRIED]
    assert 0 <= radius[0, 0] <= 1e-9
    assert 200 < temperature[0, 0] < 300


def test_a_dried_droplet_keeps_its_last_state_at_all_later_times(integrate):
    times = [[1e-4, 1e-3, 1e2, 1e3, 1e4]]
    radius, temperature, status = integrate(PURE_IN_DRY_AIR, times)
    alone, _, _ = integrate(PURE_IN_DRY_AIR, 1e-3)
    assert status[:, -1].tolist() == [lanes.DRIED]
    assert radius[0, 0] > radius[0, 1] > 1e-9
    assert radius[0, 1] == pytest.approx(alone[0, 0], rel=1e-9)
    assert len(set(radius[0, 2:])) == len(set(temperature[0, 2:])) == 1
    assert radius[0, 2] <= 1e-9
    assert status[0].tolist() == [lanes.DONE] * 2 + [lanes.DRIED] * 3


def test_floor_is_the_radius_at_which_a_droplet_dries(integrate):
    salty = (1e-8, 290.0, 1e-22, 290.0, 0.6, 1.0)  # settles at 3e-9 m
    assert integrate(salty, 1.0, floor=2.5e-9)[2].tolist() == [[lanes.DONE]]
    assert integrate(salty, 1.0, floor=3.5e-9)[2].tolist() == [[lanes.DRIED]]


def test_at_time_zero_a_droplet_is_in_its_initial_state(integrate):
    radius, temperature, status = integrate(as_columns(GROWING, PURE_IN_DRY_AIR), [[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(radius[:, :2], 1e-6, rtol=1e-15)
    np.testing.assert_array_equal(temperature[:, :2], 290.0)
    assert status[:, -1].tolist() == [lanes.DONE, lanes.DONE]
    assert radius[0, 2] > 1.1e-6


@pytest.mark.parametrize(
    ("column", "value"),
    [
        (column, value)
        for column in range(6)
        for value in (np.nan, np.inf, -np.inf, -1.0, *([0.0] if column in (0, 1, 3, 5) else []), 1e6)
    ],
)
def test_unphysical_inputs_are_invalid_and_do_not_affect_neighbours(column, value, integrate):
    wrong = list(GROWING)
    wrong[column] = value
    with np.errstate(all="ignore"):
        radius, temperature, status = integrate(as_columns(GROWING, wrong, GROWING), [1.0, 1.0, 1.0])
    alone = integrate(GROWING, 1.0)
    assert status[:, -1].tolist() == [lanes.DONE, lanes.INVALID, lanes.DONE]
    assert np.isnan([radius[1, 0], temperature[1, 0]]).all()
    assert radius[0, 0] == radius[2, 0] == alone[0][0, 0]
    assert temperature[0, 0] == temperature[2, 0] == alone[1][0, 0]


@pytest.mark.parametrize(
    "times", [(-1.0, 1.0), (1.0, 0.5), (np.nan, 1.0), (1.0, np.nan), (0.5, np.inf), (1.0, 2.0, 1.5), (0.1, np.nan, 0.3)]
)
def test_times_that_do_not_ascend_from_zero_are_invalid(times, integrate):
    radius, _, status = integrate(GROWING, [times])
    assert status[:, -1].tolist() == [lanes.INVALID]
    assert np.isnan(radius).all()


def test_too_many_steps_end_an_integration(integrate):
    radius, _, status = integrate(as_columns(GROWING, GROWING), [1e-9, 10.0], max_steps=12)
    assert status[:, -1].tolist() == [lanes.DONE, lanes.TOO_MANY_STEPS]
    assert 0 < radius[1, 0] < 1


@pytest.mark.parametrize(
    ("droplet", "t"),
    [
        ((1e-6, 290.0, 1e-18, 290.0, 1.02, 1.0), 1e5),
        ((1e-6, 290.0, 1e-18, 290.0, 0.0, 1.0), 10.0),
        ((1e-8, 310.0, 1e-22, 273.0, 0.55, 1.3), 10.0),
        ((1e-9, 290.0, 1e-22, 290.0, 0.9, 1.0), 10.0),
        ((1e-8, 273.0, 1e-8, 276.0, 1.1, 0.8), 10.0),
        ((1e-3, 310.0, 1e-8, 273.0, 0.55, 0.8), 1e4),
    ],
)
def test_extreme_droplets_reach_their_time(droplet, t, integrate):
    radius, temperature, status = integrate(droplet, t, tolerance=1e-8, floor=1e-10, max_steps=2000)
    assert status[:, -1].tolist() == [lanes.DONE]
    assert 1e-10 < radius[0, 0] < 1e-2
    assert 200 < temperature[0, 0] < 500


def test_zero_droplets_are_allowed(configure):
    model = arguments.solver_settings(configure())
    radius, temperature, status = solver.solve(model, np.empty((6, 0), np.float32), np.empty((0, 3), np.float32))
    assert radius.shape == temperature.shape == (0, 3)
    assert status.shape == (0, 3)


# ---- a dry core -------------------------------------------------------------------------------------------------


@pytest.fixture
def cored():
    """Make constants with a dry core, and the solute term of a core of a radius."""

    def make(radius, kappa=1.2, **more):
        k = arguments.constants(SolveConfig(water_activity="kappa-koehler", hygroscopicity=kappa, **more))
        return k, kappa * radius**3 / k.raoult

    return make


CORRECTED = {"mass_accommodation": 1.0, "thermal_accommodation": 0.96, "ventilation": "terminal"}


@pytest.mark.parametrize("more", [{}, CORRECTED])
@pytest.mark.parametrize("tolerance", [1e-11, 1e-8, 1e-2])
@pytest.mark.parametrize("kappa", [1e-3, 0.1, 1.2])
def test_a_salty_droplet_in_dry_air_dries_to_its_core(kappa, tolerance, more, integrate, cored):
    core = 2e-8
    k, S = cored(core, kappa, **more)
    for start in (1.00001, 1.1, 5.0, 500.0):
        droplet = (start * core, 290.0, S, 290.0, 0.0, 1.0)
        radius, temperature, status = integrate(droplet, 1e4, k=k, tolerance=tolerance, max_steps=3000)
        assert status[0, 0] == lanes.DRIED
        assert core < radius[0, 0] <= core * (1 + 1.01e-6)
        assert 200 < temperature[0, 0] < 300


@pytest.mark.parametrize("tolerance", [1e-11, 1e-8, 1e-2])
@pytest.mark.parametrize("RH", [1e-4, 0.1, 0.6, 0.99])
@pytest.mark.parametrize("kappa", [1e-3, 0.1, 1.2])
def test_a_droplet_with_a_core_settles_at_its_equilibrium(kappa, RH, tolerance, integrate, cored):
    core = 2e-8
    k, S = cored(core, kappa)
    expected = koehler.equilibrium_radius(S, 290.0, RH, k)
    for start in (1.00001, 1.1, 5.0):
        droplet = (start * core, 290.0, S, 290.0, RH, 1.0)
        radius, _, status = integrate(droplet, 1e3, k=k, tolerance=tolerance, max_steps=3000)
        if expected > core * (1 + 2e-6):
            assert status[0, 0] == lanes.DONE
            # Rounding of r³ − rd³ limits how well the water is known.
            assert radius[0, 0] - core == pytest.approx(expected - core, rel=max(tolerance, 1e-8), abs=1e-14 * core)
        else:
            assert status[0, 0] == lanes.DRIED


@pytest.mark.parametrize("share", [0.5, 1.0, 1.0 + 1e-7])
def test_a_droplet_without_water_is_invalid_and_does_not_affect_its_neighbours(share, integrate, cored):
    k, S = cored(1e-7)
    wet, dry = (3e-7, 290.0, S, 290.0, 0.9, 1.0), (share * 1e-7, 290.0, S, 290.0, 0.9, 1.0)
    radius, temperature, status = integrate(as_columns(wet, dry, wet), [1.0, 1.0, 1.0], k=k)
    assert status[:, 0].tolist() == [lanes.DONE, lanes.INVALID, lanes.DONE]
    assert np.isnan([radius[1, 0], temperature[1, 0]]).all()
    assert radius[0, 0] == radius[2, 0] == integrate(wet, 1.0, k=k)[0][0, 0]


def test_without_a_core_salt_never_dries(integrate):
    radius, _, status = integrate((2e-8, 290.0, 1e-20, 290.0, 0.0, 1.0), 1e3, floor=1e-10)
    assert status.tolist() == [[lanes.DONE]]
    assert radius[0, 0] < 1.4e-8  # smaller than its salt would be, 1.26e-8 m with kappa 1.2 and a density of 2000 kg/m3


# ---- many at once equal one at a time ---------------------------------------------------------------------------


def test_results_do_not_depend_on_order_or_on_other_droplets(several):
    model, droplets, times = several
    radius, temperature, status = solver.solve(model, droplets, times)
    order = np.random.default_rng(1).permutation(len(times))
    for chosen in (order, order[:65], order[:64], order[:3], order[7:8]):
        again = solver.solve(model, np.ascontiguousarray(droplets[:, chosen]), times[chosen])
        np.testing.assert_array_equal(again[0], radius[chosen])
        np.testing.assert_array_equal(again[1], temperature[chosen])
        np.testing.assert_array_equal(again[2], status[chosen])


def test_memory_order_of_droplets_neither_changes_results_nor_recompiles(several, monkeypatch):
    model, droplets, times = several
    expected = solver.solve(model, droplets, times)
    compiled, contiguous = lanes._integrate, []

    def watched(*arguments_):
        contiguous.extend(value.flags.c_contiguous for value in arguments_ if isinstance(value, np.ndarray))
        compiled(*arguments_)

    monkeypatch.setattr(lanes, "_integrate", watched)
    found = solver.solve(model, np.asfortranarray(droplets), times)
    assert len(contiguous) == 11
    assert all(contiguous)  # another memory layout is another signature, which every rank would compile
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_many_times_equal_separate_integrations(several, integrate):
    model, droplets, _ = several
    columns = droplets.astype(float)
    columns[2] *= model.solute_per_salinity
    times = np.array([1e-4, 3e-2, 3e-2, 1.0, 9.0])
    together, together_T, _ = integrate(columns, np.tile(times, (columns.shape[1], 1)), k=model.constants)
    for sample, t in enumerate(times):
        alone, alone_T, _ = integrate(columns, np.full(columns.shape[1], t), k=model.constants)
        np.testing.assert_allclose(together[:, sample], alone[:, 0], rtol=1e-8)
        np.testing.assert_allclose(together_T[:, sample], alone_T[:, 0], rtol=1e-9)
    np.testing.assert_array_equal(together[:, 1], together[:, 2])


def test_solver_rounds_float64_results_of_float32_inputs_once(several, integrate):
    model, droplets, times = several
    columns = droplets.astype(float)
    columns[2] *= model.solute_per_salinity
    radius, temperature, _ = integrate(columns, times.astype(float), tolerance=1e-8, k=model.constants)
    single = solver.solve(model, droplets, times)
    assert single[0].dtype == single[1].dtype == np.float32
    np.testing.assert_array_equal(single[0], radius.astype(np.float32))
    np.testing.assert_array_equal(single[1], temperature.astype(np.float32))


def test_the_exponential_has_the_documented_accuracy():
    exponential = njit(lambda x: equations.exponential(x))  # noqa: PLW0108  (it is inlined: no function to call)
    x = np.linspace(-64, 8, 20_001)
    ours, exact = np.array([exponential(value) for value in x]), np.exp(x)
    np.testing.assert_allclose(ours[x <= 0], exact[x <= 0], rtol=0, atol=2e-14)
    np.testing.assert_allclose(ours[x >= -8], exact[x >= -8], rtol=3e-14)
    assert exponential(-700.0) == exponential(-64.0) < 1e-27


@pytest.mark.parametrize("name", lanes.COMPILED_FROM)
def test_checksums_of_the_kernels_sources_are_up_to_date(name):
    source = Path(lanes.__file__).with_name(name).read_bytes()
    assert lanes.COMPILED_FROM[name] == hashlib.sha256(source).hexdigest()[:16], "see the comment at COMPILED_FROM"
