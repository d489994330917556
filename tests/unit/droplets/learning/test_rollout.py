"""Roll-outs: the same droplets and air for all, errors of contenders with known errors, verdicts, files."""

import json
import math
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scimill.config import Layer, build
from scimill.droplets.cases import read_cases
from scimill.droplets.kernels.physics import Constants
from scimill.droplets.learning import rollout, rollout_score
from scimill.droplets.learning.network import DropletNetwork, clear
from scimill.droplets.learning.rollout import AirStep, Contender, Droplets, Physics, Rollout
from scimill.droplets.learning.train import make_spec
from scimill.droplets.params import DropletsGenerateConfig, DropletsRolloutConfig, DropletsTrainConfig
from scimill.errors import InputError, NumericalError

SATURATION = (610.94, 17.6257, 243.04)
Configure = Callable[..., DropletsGenerateConfig]


@pytest.fixture
def physics(constants: Constants) -> Physics:
    return Physics(constants, SATURATION)


@pytest.fixture
def network(configure: Configure) -> Callable[..., DropletNetwork]:
    """Make a network that adds `bias` to log10 r in every step, and nothing else."""

    def make(bias: float = 0.0, preset: str = "classic", **data: Any) -> DropletNetwork:
        training = build(DropletsTrainConfig, [Layer("test", {"hidden": [4]})])
        model = DropletNetwork(make_spec(training, configure(preset, **data))).double()
        clear(model)
        with torch.no_grad():
            list(model.parameters())[-1][0] = bias
        return model

    return make


def small(case: str = "chamber", **values: Any) -> DropletsRolloutConfig:
    return read_cases([case], [Layer("test", {"droplets": 60, "steps": 40, "dt": [0.1], **values})])[case]


def one(step: rollout.Step | str, config: DropletsRolloutConfig, physics: Physics, name: str = "a") -> Rollout:
    """Run a roll-out with one contender; "exact" stands for the exact integrator."""

    def make(start: Droplets) -> list[Contender]:
        chosen = rollout.exact_step(physics, start.solute, config.tolerance) if isinstance(step, str) else step
        return [Contender(name, rollout.NETWORK, name, chosen, start)]

    return rollout.roll_out("test", config, config.dt[0], physics, make)


# ---- droplets and air -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["chamber", "cumulus", "fog", "marine"])
def test_droplets_have_the_declared_sizes(case: str, physics: Physics) -> None:
    config = small(case, droplets=5000)
    drawn = rollout.draw_population(config, physics)
    salt = np.cbrt(drawn.solute / (1000 * 1.2 * 4 / 3 * np.pi))
    inside = (salt > config.salt_radius_range[0] * 1.001) & (salt < config.salt_radius_range[1] * 0.999)
    assert inside.mean() > 0.9
    assert np.median(salt) == pytest.approx(config.salt_radius, rel=0.05)
    below = np.quantile(salt, 0.1587)  # one standard deviation below the median
    assert config.salt_radius / below == pytest.approx(config.salt_radius_deviation, rel=0.1)
    assert salt.min() >= 0.999 * config.salt_radius_range[0]
    if case == "marine":
        assert drawn.radius == pytest.approx(4 * salt)
    if case in ("chamber", "cumulus"):
        low, high = config.start_range
        assert (drawn.radius.min() >= low, drawn.radius.max() <= high) == (True, True)
        assert np.mean(np.log(drawn.radius)) == pytest.approx(math.log(low * high) / 2, abs=0.05)


def test_haze_starts_on_its_koehler_curve(physics: Physics) -> None:
    drawn, k = rollout.draw_population(small("fog"), physics), physics.constants
    curve = k.kelvin / (drawn.radius * 283.0) - k.raoult * drawn.solute / drawn.radius**3
    assert np.exp(curve) == pytest.approx(0.99, rel=1e-9)
    assert np.all(drawn.radius < drawn.critical_radius)


def test_the_seed_alone_decides(physics: Physics) -> None:
    config, other = small(seed=3), small(seed=4)
    first, again, third = (rollout.draw_population(c, physics) for c in (config, config, other))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first.radius, third.radius)
    air, same, changed = (list(islice(rollout.draw_air(c, 0.1), 3)) for c in (config, config, other))
    assert np.array_equal(air[2].humidity, same[2].humidity)
    assert not np.array_equal(air[2].humidity, changed[2].humidity)


def test_the_air_does_not_depend_on_how_droplets_start() -> None:
    ways = (small(), small(start="multiple", salt_radius=1e-7))
    a, b = (next(iter(rollout.draw_air(config, 0.1))) for config in ways)
    assert np.array_equal(a.temperature, b.temperature)


# ---- contenders -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["chamber", "fog", "marine"])
def test_the_exact_integrator_has_no_error(case: str, physics: Physics) -> None:
    (outcome,) = (found := one("exact", small(case), physics)).outcomes
    assert np.all(outcome.curves["radius_rmse"] == 0)
    assert np.all(outcome.curves["temperature_rmse"] == 0)
    assert np.all(outcome.curves["water"] == 1)
    assert np.array_equal(outcome.curves["activated"], found.activated)
    assert (dict(outcome.largest), outcome.diverged) == ({"radius_rmse": 0, "temperature_rmse": 0}, 0)


def test_exact_steps_add_up_in_steady_air(physics: Physics) -> None:
    steady = {"air_temperature_deviation": 0, "humidity_deviation": 0}
    short, long = (
        one("exact", small(steps=steps, dt=[dt], **steady), physics).radius for steps, dt in ((40, 0.1), (1, 4.0))
    )
    assert short == pytest.approx(long, rel=1e-6)


def test_no_change_is_off_by_the_analytic_growth(physics: Physics) -> None:
    """Large droplets follow r² = r0² − K t at the wet-bulb temperature; K and T are from the analytic solution."""
    growth, wet_bulb, time = 1.05655815e-11, 285.486448, 10.0
    config = small(
        steps=20, dt=[time / 20], mean_air_temperature=285.0, mean_humidity=1.05, start_range=(1e-4, 1e-4),
        salt_radius=1e-8, salt_radius_deviation=1, air_temperature_deviation=0, humidity_deviation=0,
    )  # fmt: skip
    (outcome,) = one(rollout.keep_unchanged, config, physics).outcomes
    expected = 0.5 * math.log10(1 + growth * time / 1e-8)
    assert outcome.curves["radius_rmse"][-1] == pytest.approx(expected, rel=0.05)  # it first warms up
    assert outcome.curves["temperature_rmse"][-1] == pytest.approx(wet_bulb - 285, rel=1e-3)
    assert outcome.curves["water"][-1] == pytest.approx((1 + growth * time / 1e-8) ** -1.5, rel=1e-3)


def test_errors_are_those_of_the_final_radii(physics: Physics) -> None:
    found = one(rollout.keep_unchanged, config := small(), physics)
    errors = np.log10(found.radius / rollout.draw_population(config, physics).radius)
    curve = found.outcomes[0].curves["radius_rmse"]
    assert curve[-1] == pytest.approx(np.sqrt(np.mean(errors**2)))
    assert found.outcomes[0].largest["radius_rmse"] == pytest.approx(curve.max())


def test_a_network_starts_from_its_own_prediction(network: Callable[..., DropletNetwork], physics: Physics) -> None:
    start = rollout.draw_population(small(), physics)
    contender = Contender("a", rollout.NETWORK, "a", rollout.NetworkStep(network(0.01), start.solute), start)
    for air in islice(rollout.draw_air(small(), 0.1), 5):
        contender.advance(air, start.state, keep=True)
    assert contender.outcome().radius == pytest.approx(start.radius * 10**0.05)
    assert contender.outcome().curves["radius_rmse"] == pytest.approx(0.01 * np.arange(1, 6))


def test_salt_is_the_same_for_either_kind_of_salinity(network: Callable[..., DropletNetwork], physics: Physics) -> None:
    start, air = rollout.draw_population(small(), physics), next(iter(rollout.draw_air(small(), 0.1)))
    for preset, factor in (("classic", 0.6), ("ntlp-2026", 1.0)):
        model = network(preset=preset)
        seen = []
        model.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0].numpy()))
        rollout.NetworkStep(model, start.solute)(start.state, air)
        assert factor * seen[0][:, 2] == pytest.approx(start.solute)


def test_inputs_outside_the_ranges_are_counted(network: Callable[..., DropletNetwork], physics: Physics) -> None:
    model, start = network(time_range=(0.01, 1.0), relative_humidity_range=(0.9, 1.0)), None
    start = rollout.draw_population(small(), physics)
    step = rollout.NetworkStep(model, start.solute)
    humidity = np.linspace(0.95, 1.05, 60)
    for dt in (0.1, 2.0):
        step(start.state, AirStep(np.full(60, 290.0), humidity, 1.0, dt))
    outside = step.outside
    assert outside["time"] == 0.5
    assert outside["relative_humidity"] == np.mean(humidity > 1)
    assert outside["any"] == pytest.approx(1 - 0.5 * np.mean(humidity <= 1))
    assert outside["initial_radius"] == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 0.0])
def test_droplets_that_diverge_are_counted_and_errors_stay_finite(value: float, physics: Physics) -> None:
    def break_half(state: np.ndarray, air: AirStep) -> np.ndarray:
        broken = state.copy()
        broken[0, :30] = value
        return broken

    found = one(break_half, small(), physics)
    assert found.outcomes[0].diverged == 0.5
    assert all(np.all(np.isfinite(curve)) for curve in found.outcomes[0].curves.values())


def test_a_failing_integration_is_reported(physics: Physics) -> None:
    with pytest.raises(NumericalError, match="failed for 60 of 60 droplets"):
        one("exact", small(), physics._replace(saturation=(-1.0, 17.0, 243.0)))


# ---- results ----------------------------------------------------------------------------------------------------


def test_long_curves_are_thinned() -> None:
    for steps in (1, 2, 500, 501, 100_000):
        kept = rollout.kept_steps(steps)
        assert (kept[0], kept[-1], len(kept)) == (1, steps, min(steps, rollout.CURVE_POINTS))


def test_networks_of_different_physics_are_refused(network: Callable[..., DropletNetwork]) -> None:
    with pytest.raises(InputError, match="different physical constants"):
        rollout.shared_physics({"a": network(), "b": network(latent_heat=2.5e6)})
    with pytest.raises(InputError, match="hygroscopicity 0"):
        rollout.shared_physics({"a": network(hygroscopicity=0)})
    assert rollout.shared_physics({"a": network(), "b": network(preset="ntlp-2026")}).saturation == SATURATION


def test_a_biased_network_is_worse_than_no_change_and_than_its_base(network: Callable[..., DropletNetwork]) -> None:
    models = {"biased": network(0.02), "good": network()}
    (found,) = rollout_score.run_cases(models, {"chamber": small(dt=[0.01])})["chamber"]
    assert [outcome.name for outcome in found.outcomes] == [
        "biased", "base of biased", "good", "base of good", "no change"
    ]  # fmt: skip
    lines = rollout_score.verdicts([found])
    assert lines[0] == "biased is worse than no change after the last step of 1 of 1 roll-out; RMSE:"
    assert lines[1].startswith("  chamber, dt 0.01 s: log10 r ")
    assert lines[2].startswith("biased is worse than its base (all weights zero)")
    assert lines[4:] == [
        "good is at least as good as no change after the last step of 1 roll-out.",
        "good is at least as good as its base (all weights zero) after the last step of 1 roll-out.",
    ]


def test_table_and_file_have_the_same_numbers(network: Callable[..., DropletNetwork]) -> None:
    (found,) = rollout_score.run_cases({"a": network(0.01)}, {"fog": (config := small("fog", dt=[1.0]))})["fog"]
    stored = json.loads(json.dumps(rollout_score.to_dict(found), allow_nan=False))
    row = rollout_score.describe_case("fog", config, [found]).splitlines()[2].split()
    biased = stored["outcomes"][0]
    assert row[:2] == ["1", "a"]
    assert [float(cell) for cell in row[2:6]] == pytest.approx(
        [biased[f"{name}{end}"] for name in ("radius_rmse", "temperature_rmse") for end in ("_largest", "")], abs=5e-5
    )
    assert float(row[6][1:]) == pytest.approx(biased["water"], rel=1e-3)
    assert row[7] == f"{biased['curves']['activated'][-1]:.1%}"
    assert len(biased["curves"]["water"]) == len(stored["step"]) == 40
    for sizes in (stored["exact"]["sizes"], *(outcome["sizes"] for outcome in stored["outcomes"])):
        assert sum(sizes) == 60


@pytest.mark.parametrize(
    ("paths", "labels"),
    [
        (["runs/a", "runs/b/model.pt"], ["a", "b"]),
        (["one/a", "two/a"], ["one/a (1)", "two/a (2)"]),
        (["model.pt"], ["model.pt"]),
    ],
)
def test_networks_are_named_after_their_runs(paths: list[str], labels: list[str]) -> None:
    assert rollout_score.short_labels([Path(path) for path in paths]) == labels


def test_steps_are_reported(physics: Physics) -> None:
    told: list[int] = []
    make = partial(rollout.make_contenders, {})
    rollout.roll_out("a", small(steps=3), 0.1, physics, make, told.append)
    assert told == [1, 2, 3]
