"""Judge networks by roll-outs: droplets that are carried through many steps, in air that changes between them.

This is how a large-eddy simulation uses a network: each step starts from the network's own last prediction, so its
errors add up. Beside it run the exact integrator, which defines the truth, the network's base (all weights zero), and
droplets that never change. All of them get the same droplets and the same air, which depend on the seed only.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scimill.droplets.kernels import lanes
from scimill.droplets.kernels.air import ornstein_uhlenbeck
from scimill.droplets.kernels.koehler import critical_radius, equilibrium_radius
from scimill.droplets.kernels.physics import AnyConstants, saturation_pressure
from scimill.droplets.learning.formulas import MODEL_INPUTS
from scimill.droplets.learning.network import DropletNetwork, clear, predict
from scimill.droplets.params import DropletsRolloutConfig
from scimill.errors import InputError, NumericalError

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

NETWORK, BASE, UNCHANGED = "network", "base", "no change"
SIZE_BINS = 40
CURVE_POINTS = 500  # steps of a curve that are kept, evenly spaced
# Beyond these limits a prediction is not a droplet. It is moved to the limit and the droplet counts as diverged.
RADIUS_LIMITS = (1e-10, 1e-1)  # m
TEMPERATURE_LIMITS = (100.0, 1000.0)  # K


class Physics(NamedTuple):
    """The equations that networks were trained on."""

    constants: AnyConstants
    saturation: tuple[float, float, float]
    """e0 (Pa), a, b (K) of `physics.saturation_pressure`"""


class Droplets(NamedTuple):
    """The droplets of a roll-out at its start, and what stays constant; float64, shape (n,)."""

    radius: Array
    """m"""
    temperature: Array
    """K"""
    solute: Array
    """kg"""
    critical_radius: Array
    """m, at the mean air temperature; a larger droplet is activated"""

    @property
    def state(self) -> Array:
        """Radius (m) and temperature (K), float64, shape (2, n)."""
        return np.stack((self.radius, self.temperature))


class AirStep(NamedTuple):
    """The air around each droplet during a step."""

    temperature: Array
    """K, shape (n,)"""
    humidity: Array
    """shape (n,)"""
    density: float
    """kg/m³"""
    dt: float
    """duration of the step, s"""


Step = Callable[[Array, AirStep], Array]
"""Carries the state of droplets, (2, n), through a step; returns the new state."""


class ContenderOutcome(NamedTuple):
    """How one contender did in a roll-out."""

    name: str
    kind: str
    """NETWORK, BASE or UNCHANGED"""
    rival: str
    """name of the network that a base belongs to, or of the contender itself"""
    curves: Mapping[str, Array]
    """by measure, at the steps of `Rollout.steps`: RMSE of log10 r and of T (K), water and activated share"""
    largest: Mapping[str, float]
    """the largest value of each RMSE along all steps"""
    radius: Array
    """at the end, m, shape (n,)"""
    diverged: float
    """share of droplets that left the limits at any step"""
    outside: Mapping[str, float]
    """share of droplet-steps with an input outside the network's ranges: any of them, and by input; empty if none"""


class Rollout(NamedTuple):
    """A case at one time step."""

    case: str
    dt: float
    steps: NDArray[np.int64]
    """the steps of all curves, from 1"""
    water: Array
    """sum of r³ of the exact droplets, over its initial value, at these steps"""
    activated: Array
    """share of exact droplets above their critical radius, at these steps"""
    radius: Array
    """of the exact droplets at the end, m"""
    outcomes: list[ContenderOutcome]


# ---- droplets and air -------------------------------------------------------------------------------------------


def draw_population(config: DropletsRolloutConfig, physics: Physics) -> Droplets:
    """Draw the droplets of a case; their salt is drawn first, so that it does not depend on the start."""
    stream, n, k = _streams(config.seed)[0], config.droplets, physics.constants
    spread = config.salt_radius_deviation ** stream.standard_normal(n)
    salt = np.clip(config.salt_radius * spread, *config.salt_radius_range)
    water_density = 3 / (4 * np.pi * k.raoult)
    solute = config.salt_hygroscopicity * 4 / 3 * np.pi * salt**3 * water_density
    temperature = np.full(n, config.mean_air_temperature)
    with np.errstate(divide="ignore"):  # without surface tension nothing activates
        critical = critical_radius(solute, temperature, k)
    return Droplets(_draw_radius(config, salt, solute, k, stream), temperature, solute, critical)


def _draw_radius(
    config: DropletsRolloutConfig, salt: Array, solute: Array, k: AnyConstants, stream: np.random.Generator
) -> Array:
    if config.start == "equilibrium":
        found = [equilibrium_radius(S, config.mean_air_temperature, config.start_humidity, k) for S in solute.tolist()]
        if None in found:
            raise NumericalError("found no equilibrium radius", where=f"start_humidity {config.start_humidity:g}")
        return np.array(found, dtype=np.float64)
    least: Array = config.start_multiple * salt
    if config.start == "multiple":
        return least
    low, high = config.start_range
    return np.maximum(low * (high / low) ** stream.random(len(salt)), least)


def draw_air(config: DropletsRolloutConfig, dt: float) -> Iterator[AirStep]:
    """Yield the air of each step, without end."""
    states = ornstein_uhlenbeck(
        (config.mean_air_temperature, config.mean_humidity),
        (config.air_temperature_deviation, config.humidity_deviation),
        time_step=dt, correlation_time=config.correlation_time, count=config.droplets, stream=_streams(config.seed)[1],
    )  # fmt: skip
    for temperature, humidity in states:
        yield AirStep(temperature, humidity, config.air_density, dt)


def _streams(seed: int) -> list[np.random.Generator]:
    """Return the streams of the droplets and of the air."""
    return [np.random.Generator(np.random.Philox(child)) for child in np.random.SeedSequence(seed).spawn(2)]


# ---- steps ------------------------------------------------------------------------------------------------------


def exact_step(physics: Physics, solute: Array, tolerance: float) -> Step:
    """Return the exact integrator as a step; it raises NumericalError if a droplet fails."""
    k = physics.constants

    def step(state: Array, air: AirStep) -> Array:
        n = state.shape[1]
        e = saturation_pressure(air.temperature, *physics.saturation)
        radius, temperature, status = lanes.integrate(
            state[0], state[1], solute, air.temperature, air.humidity, np.full(n, air.density), e,
            np.full((n, 1), air.dt), k, tolerance=tolerance,
        )  # fmt: skip
        if failed := int(np.count_nonzero(status != lanes.DONE)):
            raise NumericalError(
                f"the exact integrator failed for {failed} of {n} droplets", where=f"a step of {air.dt:g} s",
                remedy="check the parameters of the case",
            )  # fmt: skip
        return np.stack((radius[:, 0], temperature[:, 0]))

    return step


def keep_unchanged(state: Array, air: AirStep) -> Array:
    """Return the state as it was: the baseline without any physics."""
    return state


class NetworkStep:
    """A network as a step, which counts inputs outside the network's ranges.

    Parameters
    ----------
    model : the network.
    solute : solute term of each droplet, kg.

    """

    def __init__(self, model: DropletNetwork, solute: Array) -> None:
        self._model = model
        self._salinity = solute / model.spec.solute_per_salinity
        self._low, self._high = np.array(model.spec.ranges).T
        self._outside, self._inputs = np.zeros(len(MODEL_INPUTS) + 1, dtype=np.int64), 0

    def __call__(self, state: Array, air: AirStep) -> Array:
        """Predict the state after a step."""
        n = state.shape[1]
        columns = (*state, self._salinity, air.temperature, air.humidity, np.full(n, air.density), np.full(n, air.dt))
        inputs = np.stack(columns, 1)
        outside = (inputs < self._low) | (inputs > self._high)
        self._outside += np.array([outside.any(1).sum(), *outside.sum(0)])
        self._inputs += n
        return predict(self._model, inputs).T

    @property
    def outside(self) -> dict[str, float]:
        """Share of droplet-steps with an input outside the ranges: any of them, and by input."""
        shares = (self._outside / max(self._inputs, 1)).tolist()
        return dict(zip(("any", *MODEL_INPUTS), shares, strict=True))


# ---- contenders -------------------------------------------------------------------------------------------------


class Contender:
    """One of those that are compared with the exact droplets, and what it has done so far.

    Parameters
    ----------
    name, kind, rival : as in `ContenderOutcome`.
    step : carries its droplets.
    start : the droplets.

    """

    def __init__(self, name: str, kind: str, rival: str, step: Step, start: Droplets) -> None:
        self._about, self._step, self._start = (name, kind, rival), step, start
        self._state = start.state
        self._diverged = np.zeros(len(start.radius), dtype=bool)
        self._largest = np.zeros(2)
        self._curve: list[tuple[float, ...]] = []

    def advance(self, air: AirStep, exact: Array, *, keep: bool) -> None:
        """Carry the droplets through a step and compare them with the exact ones; keep the point if wanted."""
        with np.errstate(all="ignore"):  # a network may diverge; its droplets are counted
            self._state, left = limit(self._step(self._state, air), self._state)
        self._diverged |= left
        errors = rms_errors(self._state, exact)
        self._largest = np.maximum(self._largest, errors)
        if keep:
            activated = float(np.mean(self._state[0] > self._start.critical_radius))
            self._curve.append((*errors.tolist(), water(self._state) / water(exact), activated))

    def outcome(self) -> ContenderOutcome:
        """Return what the contender has done."""
        outside = self._step.outside if isinstance(self._step, NetworkStep) else {}
        curves = dict(zip(MEASURES, np.array(self._curve).T, strict=True))
        largest = dict(zip(MEASURES, self._largest.tolist(), strict=False))
        return ContenderOutcome(*self._about, curves, largest, self._state[0], float(self._diverged.mean()), outside)


MEASURES = ("radius_rmse", "temperature_rmse", "water", "activated")


def limit(state: Array, before: Array) -> tuple[Array, Mask]:
    """Move predictions that are not droplets to the limits; return the states and which droplets these are.

    A number that is not finite takes its value before the step.
    """
    finite = np.where(np.isfinite(state), state, before)
    low, high = np.array((RADIUS_LIMITS, TEMPERATURE_LIMITS)).T[..., None]
    limited = np.clip(finite, low, high)
    return limited, ~np.all(limited == state, axis=0)


def rms_errors(state: Array, exact: Array) -> Array:
    """Return the RMS errors of log10 r, and of T in K, shape (2,), of states (2, n)."""
    errors = np.stack((np.log10(state[0] / exact[0]), state[1] - exact[1]))
    result: Array = np.sqrt(np.mean(errors**2, axis=1))
    return result


def water(state: Array) -> float:
    """Return the sum of r³, m³: the water of all droplets, up to a factor."""
    return float(np.sum(state[0] ** 3))


def make_contenders(models: Mapping[str, DropletNetwork], start: Droplets) -> list[Contender]:
    """Make the contenders: each network, its base, and droplets that do not change."""
    found = [Contender(UNCHANGED, UNCHANGED, UNCHANGED, keep_unchanged, start)]
    for name, model in reversed(list(models.items())):
        base = copy.deepcopy(model)
        clear(base)
        found.insert(0, Contender(f"base of {name}", BASE, name, NetworkStep(base, start.solute), start))
        found.insert(0, Contender(name, NETWORK, name, NetworkStep(model, start.solute), start))
    return found


# ---- roll-outs --------------------------------------------------------------------------------------------------


def shared_physics(models: Mapping[str, DropletNetwork]) -> Physics:
    """Return the physics of all networks.

    Raises
    ------
    InputError : they differ, or salt attracts no water.

    """
    first, *others = ((name, model.spec) for name, model in models.items())
    for name, spec in (first, *others):
        ours, theirs = ((*s.constants, *s.saturation) for s in (first[1], spec))
        if not np.allclose(ours, theirs, rtol=1e-12, atol=0):
            raise InputError("the networks were trained on different physical constants", where=f"{first[0]}, {name}")
        if spec.solute_per_salinity == 0:
            raise InputError("roll-outs need salt that attracts water, but the network's has hygroscopicity 0",
                             where=name)  # fmt: skip
    return Physics(first[1].constants, first[1].saturation)


def roll_out(
    case: str,
    config: DropletsRolloutConfig,
    dt: float,
    physics: Physics,
    make: Callable[[Droplets], list[Contender]],
    report: Callable[[int], None] = lambda step: None,
) -> Rollout:
    """Carry the droplets of a case through all steps of one duration.

    Parameters
    ----------
    case, config, dt : the case, and its time step in s.
    physics : the equations.
    make : makes the contenders for the droplets.
    report : called after each step with its number, from 1.

    Raises
    ------
    NumericalError : the exact integrator failed.

    """
    start = draw_population(config, physics)
    contenders, exact, carry = make(start), start.state, exact_step(physics, start.solute, config.tolerance)
    kept = kept_steps(config.steps)
    keep, curve, initial = set(kept.tolist()), [], water(start.state)
    for step, air in zip(range(1, config.steps + 1), draw_air(config, dt), strict=False):
        exact = carry(exact, air)
        for contender in contenders:
            contender.advance(air, exact, keep=step in keep)
        if step in keep:
            curve.append((water(exact) / initial, float(np.mean(exact[0] > start.critical_radius))))
        report(step)
    amounts, activated = np.array(curve).T
    return Rollout(case, dt, kept, amounts, activated, exact[0], [contender.outcome() for contender in contenders])


def kept_steps(steps: int) -> NDArray[np.int64]:
    """Return the steps, from 1, whose values are kept: evenly spaced, with the last."""
    return np.unique(np.linspace(1, steps, min(steps, CURVE_POINTS)).round().astype(np.int64))


def size_edges(rollout: Rollout) -> Array:
    """Return edges (m) of the size distributions at the end, evenly spaced in log r, over the sizes of all."""
    radii = [rollout.radius, *(outcome.radius for outcome in rollout.outcomes)]
    low, high = min(float(r.min()) for r in radii), max(float(r.max()) for r in radii)
    return np.geomspace(low * (1 - 1e-9), high * (1 + 1e-9), SIZE_BINS + 1)
