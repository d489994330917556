import math
import re

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from scimill.config import Layer, build
from scimill.droplets import solve
from scimill.droplets.kernels import koehler, lanes
from scimill.droplets.params import SolveConfig
from scimill.errors import ConfigError, NumericalError

PURE = {"radius": 1e-5, "temperature": 287.852209, "salinity": 0.0, "relative_humidity": 0.6, "time": 10.0}


def configured(r, T, S, Tf, RH, rho, t, **more):
    return SolveConfig(
        radius=r, temperature=T, salinity=S, salinity_kind="solute-term", air_temperature=Tf,
        relative_humidity=RH, air_density=rho, time=t, **more,
    )  # fmt: skip


# ---- trajectories -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("droplet", "r", "T", "precision"),
    [
        ((1e-5, 293.15, 6e-19, 293.15, 0.65, 1.2, 1), 3.727812859114e-7, 288.5685804019, 1e-6),
        ((3.59981e-5, 290.672, 1.236042e-12, 309.598, 1.08544, 1.18962, 1), 3.676693974173e-5, 311.0417311100, 1e-9),
        ((1e-8, 290, 1e-12, 290, 0.8, 1.2, 10), 1.022476490511e-5, 290.0008531539, 1e-9),
        ((1e-7, 300, 1e-20, 297, 0.55, 1.3, 10), 1.529441240872e-8, 297.0, 1e-9),
        ((1e-7, 285, 6e-20, 285, 1.05, 1.0, 10), 9.681675301525e-6, 285.5189878965, 1e-9),
        ((1e-4, 280, 1e-13, 283, 0.95, 1.1, 10), 9.960293240130e-5, 282.5176666860, 1e-9),
        ((1e-3, 275, 1e-10, 278, 0.7, 0.8, 10), 9.997909329584e-4, 275.0133985663, 1e-9),
        ((1e-8, 273, 1e-22, 276, 0.55, 1.3, 0.01), 2.885187026713e-9, 276.0, 1e-9),
        ((2e-6, 310, 1e-18, 307, 1.1, 0.8, 0.1), 2.510277431137e-6, 308.5940294294, 1e-9),
        ((5e-6, 288, 1e-17, 290, 1.0, 1.2, 10), 4.955058636390e-6, 289.9977577486, 1e-9),
    ],
)
def test_trajectory_ends_on_the_frozen_solution(droplet, r, T, precision):
    path = solve.trajectory(configured(*droplet, tolerance=1e-11))
    assert path.radius[-1] == pytest.approx(r, rel=precision)
    assert path.temperature[-1] == pytest.approx(T, rel=precision)
    assert path.ending == f"reached {droplet[-1]:g} s"


def test_trajectory_begins_at_the_initial_state_and_ascends_to_the_end():
    path = solve.trajectory(SolveConfig(radius=3e-6, temperature=280, time=2))
    assert (path.times[0], path.radius[0], path.temperature[0]) == (0, pytest.approx(3e-6, rel=1e-15), 280)
    assert path.times[-1] == 2
    assert np.all(np.diff(path.times) > 0)
    assert {array.dtype for array in (path.times, path.radius, path.temperature)} == {np.dtype(float)}


def test_every_sample_equals_a_separate_integration_to_that_time(integrate):
    path = solve.trajectory(SolveConfig(temperature=285, tolerance=1e-10))
    for i in range(1, len(path.times), 250):
        droplet = (1e-5, 285.0, 0.6e-18, 293.15, 0.8, 1.2)
        radius, temperature, _ = integrate(droplet, path.times[i], tolerance=1e-11)
        assert path.radius[i] == pytest.approx(radius[0, 0], rel=1e-7)
        assert path.temperature[i] == pytest.approx(temperature[0, 0], rel=1e-8)


def test_droplet_starts_at_the_air_temperature_by_default():
    path = solve.trajectory(SolveConfig(air_temperature=281.5))
    assert path.temperature[0] == 281.5


# ---- endings ----------------------------------------------------------------------------------------------------


def dried_at(path):
    return float(re.fullmatch(r"dried at (\S+) s", path.ending).group(1))


def test_pure_droplet_dries_at_the_time_given_by_the_d2_law():
    when = dried_at(solve.trajectory(SolveConfig(**PURE)))
    assert when == pytest.approx(1e-10 / 1.15067311e-10, rel=1e-3)  # curvature speeds it up by 0.05 %


def test_drying_time_is_when_an_integration_first_finds_the_droplet_dry(integrate):
    path = solve.trajectory(SolveConfig(**PURE))
    when = dried_at(path)
    droplet = (1e-5, 287.852209, 0.0, 293.15, 0.6, 1.2)
    status = [integrate(droplet, when * factor, tolerance=1e-8)[2][0, 0] for factor in (0.999, 1.001)]
    assert status == [lanes.DONE, lanes.DRIED]
    assert 1e-9 < path.radius[-1] == path.radius.min() < 5e-8  # the trajectory ends just before the droplet is dry
    assert path.times[-1] == pytest.approx(when, rel=1e-4)


def test_ending_gives_an_interval_if_the_drying_time_is_not_refined(monkeypatch):
    when = dried_at(solve.trajectory(SolveConfig(**PURE)))
    monkeypatch.setattr(solve, "REFINEMENTS", 0)
    ending = solve.trajectory(SolveConfig(**PURE)).ending
    before, after = (float(x) for x in re.fullmatch(r"dried between (\S+) and (\S+) s", ending).groups())
    assert before <= when <= after
    assert before < after < 1.02 * before


def test_failed_integration_is_reported_and_has_no_later_states():
    full = solve.trajectory(SolveConfig())
    path = solve.trajectory(SolveConfig(max_steps=10))
    assert re.fullmatch(r"failed between \S+ and \S+ s: max_steps was reached", path.ending)
    assert 1 < len(path.times) < len(full.times)
    assert np.array_equal(path.radius, full.radius[: len(path.radius)])


def test_samples_do_not_count_against_max_steps(integrate):
    alone = integrate((1e-5, 293.15, 0.6e-18, 293.15, 0.8, 1.2), 10.0, tolerance=1e-8, max_steps=300)
    assert alone[2].tolist() == [[lanes.DONE]]
    assert solve.trajectory(SolveConfig(max_steps=300)).ending == "reached 10 s"


def test_droplet_that_fails_at_once_has_only_its_initial_state():
    path = solve.trajectory(SolveConfig(surface_tension=1e6))
    assert path.ending.startswith("failed between 0 and ")
    assert path.times.tolist() == [0]
    assert len(solve.describe_trajectory(path, 5).splitlines()) == 11


def test_dry_droplet_is_refused():
    with pytest.raises(ConfigError, match="dry from the start"):
        solve.trajectory(SolveConfig(radius=1e-9))


@pytest.mark.parametrize(
    "constants",
    [
        {"schmidt": 1e-200, "water_density": 1e-200},
        {"hygroscopicity": 1e300},
        {"saturation_slope": 1e5},
    ],
)
def test_constants_that_cannot_be_evaluated_are_refused(constants):
    with pytest.raises(NumericalError, match="cannot be evaluated"):
        solve.trajectory(SolveConfig(**constants))


@pytest.mark.parametrize("name", ["sherwood", "nusselt", "schmidt", "latent_heat", "gas_constant", "surface_tension"])
@pytest.mark.parametrize("value", [1e-300, 1e-9, 1e9, 1e300])
def test_absurd_constants_give_a_table_or_an_error(name, value):
    try:
        path = solve.trajectory(SolveConfig(**{name: value, "max_steps": 100}))
    except NumericalError as error:
        assert "cannot be evaluated" in str(error)
    else:
        assert np.isfinite(path.radius).all()
        assert path.ending in solve.describe_trajectory(path, 3)


# ---- theory -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("Tf", "RH", "rho", "expected"),
    [
        (293.15, 0.60, 1.20, 287.852209),
        (293.15, 0.65, 1.20, 288.570448),
        (283.15, 0.80, 1.25, 281.272528),
        (303.15, 0.55, 1.15, 295.498521),
        (300.00, 0.75, 1.00, 296.117196),
        (285.00, 1.05, 1.20, 285.486448),
    ],
)
def test_wet_bulb_temperature(Tf, RH, rho, expected):
    config = SolveConfig(air_temperature=Tf, relative_humidity=RH, air_density=rho)
    assert solve.theory(config).wet_bulb == pytest.approx(expected, abs=6e-7)


def test_wet_bulb_temperature_without_latent_heat_is_that_of_the_air():
    assert solve.theory(SolveConfig(latent_heat=0)).wet_bulb == pytest.approx(293.15, abs=1e-9)


@pytest.mark.parametrize(
    ("salt", "RH", "Tf", "equilibrium", "critical", "supersaturation"),
    [
        (1e-18, 0.65, 293.15, 6.8456181053e-8, 6.319090e-7, 1.135993e-3),
        (1e-18, 0.90, 293.15, 1.0747787797e-7, 6.319090e-7, 1.135993e-3),
        (1e-18, 0.99, 293.15, 2.1150869425e-7, 6.319090e-7, 1.135993e-3),
        (1e-15, 0.90, 293.15, 1.1044063378e-6, 1.998272e-5, 3.590350e-5),
        (1e-20, 0.90, 283.15, 2.0812192822e-8, 6.210376e-8, 1.203203e-2),
        (1e-12, 0.80, 300.00, 8.6247600626e-6, 6.392492e-4, 1.096686e-6),
    ],
)
def test_koehler_radii(salt, RH, Tf, equilibrium, critical, supersaturation):
    theory = solve.theory(SolveConfig(salinity=salt, relative_humidity=RH, air_temperature=Tf))
    assert theory.equilibrium_radius == pytest.approx(equilibrium, rel=1e-10)
    assert theory.critical_radius == pytest.approx(critical, rel=1e-6)
    assert theory.critical_supersaturation == pytest.approx(supersaturation, rel=1e-6)


@pytest.mark.parametrize("RH", [1.0, 1.0005, 1.00113])
def test_equilibrium_in_moist_air_is_the_stable_root_below_the_critical_radius(RH, constants):
    r = koehler.equilibrium_radius(6e-19, 293.15, RH, constants)
    left = constants.kelvin / (r * 293.15) - constants.raoult * 6e-19 / r**3
    assert left == pytest.approx(math.log(RH), abs=1e-12)
    assert 3.6e-7 < r < 6.319090e-7


def test_a_droplet_settles_on_its_equilibrium():
    path = solve.trajectory(SolveConfig(radius=1.5e-7, salinity=1e-18, relative_humidity=0.9, time=50, tolerance=1e-11))
    assert path.radius[-1] == pytest.approx(path.theory.equilibrium_radius, rel=1e-10)


@pytest.mark.parametrize(("S", "RH"), [(0.0, 0.9), (6e-19, 0.0), (6e-19, 1.00114), (6e-19, 1.1)])
def test_no_equilibrium_without_salt_vapour_or_beyond_the_critical_humidity(S, RH, constants):
    assert koehler.equilibrium_radius(S, 293.15, RH, constants) is None


def test_without_surface_tension_no_radius_is_critical():
    theory = solve.theory(SolveConfig(surface_tension=0, relative_humidity=0.8))
    assert (theory.critical_radius, theory.critical_supersaturation) == (None, None)
    by_hand = (3 * 0.6e-18 / (4 * math.pi * 1000 * -math.log(0.8))) ** (1 / 3)
    assert theory.equilibrium_radius == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize(("r", "seconds"), [(1e-8, 5.2551e-9), (1e-6, 5.2551e-5), (1e-4, 0.52551), (1e-3, 52.551)])
def test_conduction_time(r, seconds):
    assert solve.theory(SolveConfig(radius=r)).conduction_time == pytest.approx(seconds, rel=1e-5)


# ---- a dry core -------------------------------------------------------------------------------------------------

SALT = {"salinity": 1e-18, "salt_density": 2000.0, "hygroscopicity": 1.2, "water_activity": "kappa-koehler"}
CORE = (3e-18 / (4 * math.pi * 2000)) ** (1 / 3)  # 4.92e-8 m


def curve(r, Tf=293.15, kappa=1.2, core=CORE):
    """Return the supersaturation of the Köhler curve of Petters & Kreidenweis 2007, with the presets' constants."""
    kelvin = 2 * 0.018015 * 7.28e-2 / (8.3144 * 1000 * Tf * r)
    return (r**3 - core**3) / (r**3 - core**3 * (1 - kappa)) * math.exp(kelvin) - 1


@pytest.mark.parametrize("kappa", [0.01, 0.3, 1.2])
def test_critical_point_with_a_core_is_the_maximum_of_the_curve(kappa):
    theory = solve.theory(SolveConfig(**SALT | {"hygroscopicity": kappa}))
    found = minimize_scalar(
        lambda x: -curve(math.exp(x), kappa=kappa),
        bounds=(math.log(CORE), math.log(100 * CORE)),
        options={"xatol": 1e-9},
    )
    assert theory.critical_radius == pytest.approx(math.exp(found.x), rel=1e-5)
    assert theory.critical_supersaturation == pytest.approx(-found.fun, rel=1e-9)


@pytest.mark.parametrize("RH", [0.05, 0.8, 1.0, 1.0008])
def test_equilibrium_with_a_core_is_the_root_of_the_curve(RH):
    theory = solve.theory(SolveConfig(relative_humidity=RH, **SALT))
    assert curve(theory.equilibrium_radius) + 1 == pytest.approx(RH, rel=1e-9)
    assert CORE < theory.equilibrium_radius < theory.critical_radius


def test_a_dilute_droplet_has_the_same_critical_point_with_and_without_a_core():
    with_core, without = (
        solve.theory(SolveConfig(**SALT | {"salinity": 1e-14, "water_activity": form}))
        for form in ("kappa-koehler", "dilute")
    )
    assert with_core.critical_radius == pytest.approx(without.critical_radius, rel=1e-3)
    assert with_core.critical_supersaturation == pytest.approx(without.critical_supersaturation, rel=1e-3)


def test_no_equilibrium_with_a_core_beyond_the_critical_humidity():
    assert solve.theory(SolveConfig(relative_humidity=1.01, **SALT)).equilibrium_radius is None


def test_without_surface_tension_a_core_has_an_equilibrium_by_hand():
    theory = solve.theory(SolveConfig(relative_humidity=0.8, surface_tension=0, **SALT))
    assert theory.critical_radius is None
    assert theory.equilibrium_radius == pytest.approx(CORE * (1 + 1.2 * 0.8 / 0.2) ** (1 / 3), rel=1e-9)


def test_a_droplet_dries_to_its_core():
    path = solve.trajectory(SolveConfig(radius=1e-6, relative_humidity=0, **SALT))
    assert path.ending.startswith("dried at")
    assert path.radius[-1] == pytest.approx(CORE, rel=0.1)
    assert (path.radius > CORE).all()


def test_a_droplet_without_water_is_refused():
    with pytest.raises(ConfigError, match="holds no water") as caught:
        solve.trajectory(SolveConfig(radius=4e-8, **SALT))
    assert "4.92" in str(caught.value)


def test_solute_term_and_kappa_give_the_same_core_as_the_salt():
    by_salt = solve.theory(SolveConfig(**SALT))
    by_solute = solve.theory(SolveConfig(**SALT | {"salinity": 0.6e-18, "salinity_kind": "solute-term"}))
    assert by_solute == pytest.approx(by_salt, rel=1e-12)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"water_activity": "kappa-koehler", "hygroscopicity": 0}, "hygroscopicity above 0"),
        ({"ventilation": "constant"}, "needs relative_velocity"),
        ({"relative_velocity": 1.0}, "no effect"),
        ({"mass_accommodation": 1.5}, "mass-accommodation"),
    ],
)
def test_corrections_that_contradict_each_other_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        build(SolveConfig, [Layer("flags", values)])


# ---- the table --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def path():
    return solve.trajectory(SolveConfig(radius=2e-5, salinity=1e-18, relative_humidity=0.65))


def numbers(text):
    """Parse the rows of a table below its heading."""
    lines = text.splitlines()
    return [[float(word) for word in line.split()] for line in lines[lines.index("") + 2 :]]


@pytest.mark.parametrize("rows", [1, 2, 7, 20, 500])
def test_table_has_the_rows_asked_for_and_ends_with_the_trajectory(rows, path):
    found = numbers(solve.describe_trajectory(path, rows))
    assert len(found) == rows
    time, radius, relative, temperature = found[-1]
    assert time == 10
    assert radius == pytest.approx(path.radius[-1], rel=1e-7)
    assert relative == pytest.approx(path.radius[-1] / 2e-5, rel=1e-4)
    assert temperature == pytest.approx(path.temperature[-1], abs=1e-5)


def test_table_rows_are_states_of_the_trajectory_at_logarithmic_times(path):
    found = np.array(numbers(solve.describe_trajectory(path, 12)))
    steps = np.diff(np.log(found[:, 0]))
    assert np.allclose(steps, steps.mean(), rtol=0.01)
    for time, radius, _, temperature in found:
        i = np.abs(path.times / time - 1).argmin()
        assert path.times[i] == pytest.approx(time, rel=1e-4)
        assert path.radius[i] == pytest.approx(radius, rel=1e-7)
        assert path.temperature[i] == pytest.approx(temperature, abs=1e-5)


def test_table_is_aligned(path):
    lines = solve.describe_trajectory(path, 20).splitlines()
    heading = lines.index("") + 1
    assert {len(line) for line in lines[heading:]} == {len(lines[heading])}
    assert {line[26] for line in lines[: heading - 1]} == {" "}
    assert " " not in {line[27] for line in lines[: heading - 1]}


def test_table_describes_the_droplet_and_the_theory(path):
    text = solve.describe_trajectory(path, 3)
    for fact in ("20 µm", "salt 1e-18 kg", "293.15 K", "0.65", "68.456 nm", "631.91 nm", "0.1136 %", "reached 10 s"):
        assert fact in text


def test_chosen_rows_are_distinct_and_include_the_last():
    times = np.array([0.0, 1e-3, 1e-2, 1e-1, 1.0, 10.0])
    assert solve.choose_rows(times, 5) == [1, 2, 3, 4, 5]
    assert solve.choose_rows(times, 3) == [1, 3, 5]
    assert solve.choose_rows(times, 1) == [5]
    assert solve.choose_rows(times, 99) == [1, 2, 3, 4, 5]
