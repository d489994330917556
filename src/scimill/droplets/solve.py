"""Solve a single droplet: its trajectory, and the theoretical values to compare it with."""

from typing import NamedTuple

import numpy as np

from scimill.droplets import arguments
from scimill.droplets.kernels import koehler, lanes
from scimill.droplets.kernels.equations import DRY, SMALLEST_T
from scimill.droplets.kernels.physics import AnyConstants, Array, dry_core, saturation_pressure, transfer, vapour_excess
from scimill.droplets.kernels.solver import SolverSettings
from scimill.droplets.params import SolveConfig, solute_per_salinity
from scimill.errors import ConfigError, NumericalError

SAMPLES = 2000  # times of a trajectory, logarithmically spaced
FIRST_TIME = 1e-2  # fraction of the conduction time, before which the state has hardly changed
REFINEMENTS, REFINED_SAMPLES = 6, 100  # each refinement narrows down the drying time by a factor of 100

_FAILURES = {
    lanes.TOO_MANY_STEPS: "max_steps was reached",
    lanes.STEP_TOO_SMALL: "the step size fell below rounding",
    lanes.NOT_FINITE: "the state became infinite or not a number",
}


class Theory(NamedTuple):
    """Quasi-steady values for a droplet; None if there is no such state."""

    conduction_time: float
    """r²/(bρφh), s: time in which heat leaves the initial droplet"""
    wet_bulb: float | None
    """temperature of a large droplet of pure water, which exchanges vapour and heat like the initial droplet, K"""
    equilibrium_radius: float | None
    """stable Köhler radius at the air's temperature and humidity, m"""
    critical_radius: float | None
    """Köhler radius above which a droplet is activated and grows without limit, m"""
    critical_supersaturation: float | None
    """relative humidity − 1 that the air must exceed to activate the droplet"""


class Trajectory(NamedTuple):
    """States of a droplet over time, from the initial one to the end."""

    config: SolveConfig
    times: Array
    """s, ascending from 0; then logarithmically spaced, and finer where the droplet dries; shape (n,)"""
    radius: Array
    """m, shape (n,)"""
    temperature: Array
    """K, shape (n,)"""
    ending: str
    """how the integration ended, as text"""
    theory: Theory


# ---- integration ------------------------------------------------------------------------------------------------


def trajectory(config: SolveConfig) -> Trajectory:
    """Integrate a droplet and sample it densely.

    If the droplet dries or the solver fails, the trajectory ends with the last state before that.

    Raises
    ------
    ConfigError : the droplet is not larger than `dry_radius`, or than its dry core.
    NumericalError : the equations cannot be evaluated with these parameters.

    """
    try:
        with np.errstate(all="ignore"):  # constants are arbitrary; the results are checked
            return _trajectory(config)
    except ArithmeticError:
        raise _no_value_error() from None


def _no_value_error() -> NumericalError:
    return NumericalError(
        "the equations cannot be evaluated with these parameters", remedy="check the physical constants"
    )


def _trajectory(config: SolveConfig) -> Trajectory:
    if config.radius <= config.dry_radius:
        what = f"a droplet of radius {config.radius:g} m is dry from the start"
        raise ConfigError(what, where="radius", allowed=f"more than dry_radius, {config.dry_radius:g} m")
    _require_water(config)
    settings, expected = arguments.solver_settings(config), theory(config)
    first = FIRST_TIME * min(expected.conduction_time, config.time)
    times = np.concatenate([[0.0], np.geomspace(first, config.time, max(SAMPLES, config.rows))])
    path = _sample(config, settings, times)
    for _ in range(REFINEMENTS):
        if path.status != lanes.DRIED or len(_distinct(path)) == 1:
            break
        finer = np.linspace(path.times[path.reached - 1], path.times[path.reached], REFINED_SAMPLES + 2)
        path = _sample(config, settings, np.union1d(path.times, finer))
    n = path.reached
    return Trajectory(config, path.times[:n], path.radius[:n], path.temperature[:n], _describe_ending(path), expected)


def _require_water(config: SolveConfig) -> None:
    k, S = arguments.constants(config), np.array(solute_per_salinity(config) * config.salinity)
    core = float(np.cbrt(dry_core(S, k)))
    if config.radius <= core * (1 + DRY):
        what = f"a droplet of radius {config.radius:g} m holds no water: that is the radius of its salt, or less"
        raise ConfigError(what, where="radius", allowed=f"more than the dry core's radius, {core:g} m")


class _Path(NamedTuple):
    """Samples of one integration, which ended after the first `reached` of them."""

    times: Array
    radius: Array
    temperature: Array
    status: int
    reached: int


def _sample(config: SolveConfig, settings: SolverSettings, times: Array) -> _Path:
    """Integrate the droplet of a configuration to the given times."""
    Tf = config.air_temperature
    T = Tf if config.temperature is None else config.temperature
    S = settings.solute_per_salinity * config.salinity
    state = [config.radius, T, S, Tf, config.relative_humidity, config.air_density]
    r, T0, solute, air, humidity, density = np.array(state)[:, None]
    radius, temperature, status = lanes.integrate(
        r, T0, solute, air, humidity, density, saturation_pressure(air, *settings.saturation), times[None],
        settings.constants, tolerance=settings.tolerance, floor=settings.dry_radius,
        max_steps=settings.max_steps + len(times),  # samples cost extra steps, which should not count against the limit
    )  # fmt: skip
    if status[0, 0] == lanes.INVALID:
        raise _no_value_error()
    reached = int(np.count_nonzero(status == lanes.DONE))
    return _Path(times, radius[0], temperature[0], int(status[0, -1]), reached)


def _distinct(path: _Path) -> list[str]:
    """Return the printed times between which the integration ended; a single one if they print the same."""
    return sorted({f"{time:.4g}" for time in path.times[path.reached - 1 : path.reached + 1]}, key=float)


def _describe_ending(path: _Path) -> str:
    if path.status == lanes.DONE:
        return f"reached {path.times[-1]:.4g} s"
    shown = _distinct(path)
    when = f"at {shown[0]} s" if len(shown) == 1 else f"between {shown[0]} and {shown[1]} s"
    return f"dried {when}" if path.status == lanes.DRIED else f"failed {when}: {_FAILURES[path.status]}"


# ---- theory -----------------------------------------------------------------------------------------------------


def theory(config: SolveConfig) -> Theory:
    """Compute the quasi-steady values for a droplet."""
    k, S, Tf = arguments.constants(config), solute_per_salinity(config) * config.salinity, config.air_temperature
    solute, air = np.array(S), np.array(Tf)
    has_barrier = S > 0 and k.kelvin > 0
    critical = float(koehler.critical_radius(solute, air, k)) if has_barrier else None
    humidity = critical and float(koehler.critical_humidity(np.array(critical), solute, air, k))
    _, heat = transfer(np.array(config.radius), air, np.array(config.air_density), k)
    return Theory(
        conduction_time=config.radius**2 / (k.conduction * config.air_density * float(heat)),
        wet_bulb=wet_bulb(config, k),
        equilibrium_radius=koehler.equilibrium_radius(S, Tf, config.relative_humidity, k),
        critical_radius=critical,
        critical_supersaturation=humidity and humidity - 1,
    )


def wet_bulb(config: SolveConfig, k: AnyConstants) -> float | None:
    """Find the temperature (K) at which condensation heats a large pure droplet as fast as air cools it."""
    Tf = np.array(config.air_temperature)
    e = saturation_pressure(Tf, config.saturation_pressure, config.saturation_slope, config.saturation_offset)
    vapour, heat = transfer(np.array(config.radius), Tf, np.array(config.air_density), k)
    conduction, heating = k.conduction * config.air_density * heat, k.latent * k.growth * vapour

    def gain(T: float) -> float:
        large, pure, humidity = np.array(np.inf), np.array(0.0), np.array(config.relative_humidity)
        excess = vapour_excess(large, np.array(T), pure, Tf, humidity, e, k)
        return float(heating * excess - conduction * (T - Tf))

    warmest = float(Tf + heating * config.relative_humidity * e / Tf / conduction)  # if nothing evaporated
    return koehler.root(gain, SMALLEST_T, warmest)


# ---- table ------------------------------------------------------------------------------------------------------


def describe_trajectory(trajectory: Trajectory, rows: int) -> str:
    """Describe a trajectory: droplet, theory, and a table of `rows` logarithmically spaced times."""
    lines = [f"{name:<26} {text}" for name, text in describe_facts(trajectory).items()]
    lines += ["", f"{'time (s)':>12} {'radius (m)':>14} {'r/r0':>11} {'temperature (K)':>16}"]
    for i in choose_rows(trajectory.times, rows):
        r = trajectory.radius[i]
        relative = r / trajectory.config.radius
        lines.append(f"{trajectory.times[i]:12.4e} {r:14.7e} {relative:11.5g} {trajectory.temperature[i]:16.5f}")
    return "\n".join(lines)


def choose_rows(times: Array, rows: int) -> list[int]:
    """Choose at most `rows` indices of ascending times, evenly spaced in log t, including the last."""
    if len(times) == 1:
        return [0]
    logs = np.log(times[1:])  # the first time is 0
    wanted = np.linspace(logs[-1], logs[0], rows)
    return sorted({int(np.abs(logs - t).argmin()) + 1 for t in wanted})


def describe_facts(trajectory: Trajectory) -> dict[str, str]:
    """Describe a droplet, its air, theory and ending, by name."""
    config, expected = trajectory.config, trajectory.theory
    kind = "salt" if config.salinity_kind == "salt-mass" else "solute term"
    return {
        "droplet": f"{_length(config.radius)}, {trajectory.temperature[0]:.2f} K, {kind} {config.salinity:.4g} kg",
        "air": f"{config.air_temperature:.2f} K, relative humidity {config.relative_humidity:g}, "
        f"{config.air_density:g} kg/m³",
        "conduction time": f"{expected.conduction_time:.4g} s",
        "wet-bulb temperature": "none" if expected.wet_bulb is None else f"{expected.wet_bulb:.7g} K",
        "equilibrium radius": _length(expected.equilibrium_radius),
        "critical radius": _length(expected.critical_radius),
        "critical supersaturation": _percent(expected.critical_supersaturation),
        "ending": trajectory.ending,
    }


def _length(metres: float | None) -> str:
    """Format a length in a suitable unit."""
    if metres is None:
        return "none"
    factor, unit = (1e9, "nm") if metres < 1e-6 else (1e6, "µm") if metres < 1e-3 else (1e3, "mm")
    return f"{metres * factor:.5g} {unit}"


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.4g} %"
