"""The droplet network: features and base compared with formulas written out here, precision, preparation of data.

The constants below are those of the published equations, not scimill's; the time constants are analytic.
"""

import itertools
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from droplets_reference import rates
from scimill.config import Layer, build, read_preset
from scimill.droplets.kernels.koehler import equilibrium_radius
from scimill.droplets.kernels.physics import Constants
from scimill.droplets.learning.formulas import MODEL_INPUTS
from scimill.droplets.learning.network import (
    LOSSES,
    MODEL_OUTPUTS,
    DropletNetwork,
    DropletNetworkSpec,
    DropletTask,
    clear,
    predict,
    weights,
)
from scimill.droplets.learning.train import make_spec
from scimill.droplets.params import DropletsGenerateConfig, DropletsTrainConfig

GROWTH, CONDUCTION, LATENT = 5.531308596546e-11, 1.585771012907e-8, 1752.24408  # a, b, ℓ
CLAPEYRON, KELVIN, RAOULT = 5288.7016669874, 3.1547483883e-7, 2.3873241464e-4  # Λ, κ, σ
RELAXATION = {1e-8: 1.5655e-9, 1e-6: 1.5655e-5, 1e-4: 0.15655, 1e-3: 15.655}  # s by m, Tf = 293.15 K, 1.2 kg/m³
LOGARITHMIC = (0, 2, 6)  # of MODEL_INPUTS
NETWORKS = ("plain", "residual", "relaxation")
Configure = Callable[..., DropletsGenerateConfig]


@pytest.fixture
def specify(configure: Configure) -> Callable[..., DropletNetworkSpec]:
    """Make a specification from training parameters, for data of a preset and values that override it."""

    def make(preset: str = "classic", data: dict[str, Any] | None = None, **values: Any) -> DropletNetworkSpec:
        return make_spec(build(DropletsTrainConfig, [Layer("test", values)]), configure(preset, **(data or {})))

    return make


@pytest.fixture(params=NETWORKS)
def spec(request: pytest.FixtureRequest, specify: Callable[..., DropletNetworkSpec]) -> DropletNetworkSpec:
    return specify(network=request.param, hidden=[8, 6])


def droplets(spec: DropletNetworkSpec, n: int, seed: int = 1) -> np.ndarray:
    """Draw random droplets from the ranges, (n, 7)."""
    x = np.random.default_rng(seed).uniform(size=(n, len(MODEL_INPUTS)))
    for column, (low, high) in enumerate(spec.ranges):
        if column in LOGARITHMIC:
            x[:, column] = low * (high / low) ** x[:, column]
        else:
            x[:, column] = low + (high - low) * x[:, column]
    return x


def saturation(Tf: np.ndarray) -> np.ndarray:
    return 610.94 * np.exp(17.6257 * (Tf - 273.15) / (243.04 + (Tf - 273.15)))


def release(Tf: np.ndarray) -> np.ndarray:
    """Compute d of the docstring of `network`."""
    return LATENT * GROWTH * saturation(Tf) / Tf**2 * (CLAPEYRON / Tf - 1)


def scaled_time(x: np.ndarray) -> np.ndarray:
    """Compute θ of the docstring of `network`."""
    r, _, _, Tf, _, rho, t = x.T
    share = CONDUCTION * rho / (CONDUCTION * rho + release(Tf))
    return 2 * GROWTH * saturation(Tf) / Tf * share * t / r**2


def residual_features(x: np.ndarray, solute_per_salinity: float = 0.6) -> np.ndarray:
    """Compute the features of the residual network before they are scaled to -1 … 1."""
    r, T, salinity, Tf, RH, rho, _ = x.T
    time, solute = scaled_time(x), RAOULT * solute_per_salinity * salinity / r**3
    first = RH - np.exp(KELVIN / (r * T) - solute)
    drift = [np.arcsinh(3 * time * excess) / 6 for excess in (RH - 1, first)]
    return np.stack([np.log10(r), T - Tf, np.log10(solute), Tf, RH, rho, np.log10(time), *drift], 1)


def features(model: DropletNetwork, x: np.ndarray) -> np.ndarray:
    return model.features(torch.from_numpy(x)).numpy()


# ---- features ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("preset", "solute"), [("classic", 0.6), ("ntlp-2026", 1.0)])
def test_features_of_the_residual_network_are_the_documented_ones(
    preset: str, solute: float, specify: Callable[..., DropletNetworkSpec]
) -> None:
    spec = specify(preset, network="residual")
    x = droplets(spec, 5000)
    raw = residual_features(x, solute)
    corners = residual_features(np.array(list(itertools.product(*spec.ranges))), solute)
    low, high = corners.min(0), corners.max(0)
    low[7:], high[7:] = -1, 1
    found = features(DropletNetwork(spec), x)
    np.testing.assert_allclose(found, (raw - (low + high) / 2) / ((high - low) / 2), rtol=1e-8, atol=1e-8)
    assert np.all(np.abs(found[:, :7]) <= 1 + 1e-12)
    assert np.all(np.abs(found[:, 7:]) < 4)


def test_features_of_the_plain_network_have_the_published_normalisation(
    specify: Callable[..., DropletNetworkSpec],
) -> None:
    """x̂ = (x − centre)/(half width), of log10 for radius and salt; time is in seconds."""
    spec = specify(network="plain")
    x = droplets(spec, 1000)
    r, T, salinity, Tf, RH, rho, t = x.T
    expected = np.stack(
        [(np.log10(r) + 5.5) / 2.5, (T - 291.5) / 18.5, (np.log10(salinity) + 16) / 6, (Tf - 291.5) / 18.5,
         (RH - 0.875) / 0.225, (rho - 1) / 0.2, t], 1)  # fmt: skip
    model = DropletNetwork(spec)
    np.testing.assert_allclose(features(model, x), expected, rtol=1e-12, atol=1e-12)
    outcome = torch.tensor([[1e-8, 273.0], [1e-3, 310.0], [10**-5.5, 291.5]], dtype=torch.float64)
    outputs = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [0.0, 0.0]])
    np.testing.assert_allclose(finished(model, x[:3], outputs), outcome, rtol=1e-12)


def test_a_droplet_with_positive_drift_grows(
    specify: Callable[..., DropletNetworkSpec], integrate: Callable[..., Any]
) -> None:
    x = droplets(specify(network="residual"), 400)
    x[:, 1] = x[:, 3]  # as warm as the air, where the initial supersaturation is that of the drift
    x[:, 6] = 1e-4 * x[:, 0] ** 2 / (CONDUCTION * x[:, 5])  # before the temperature has changed
    drift = np.sinh(6 * features(DropletNetwork(specify(network="residual")), x)[:, 8]) / 3
    r, T, salinity, Tf, RH, rho, t = x.T
    S = 0.6 * salinity
    growth, _ = rates(r, T, S, Tf, RH, rho, saturation(Tf), constants_of_the_text())
    assert np.array_equal(np.sign(drift), np.sign(growth))
    certain = np.abs(drift) > 1e-7
    assert 100 < np.count_nonzero(drift[certain] > 0) < np.count_nonzero(certain) - 100
    radius, _, _ = integrate([r, T, S, Tf, RH, rho], t)
    assert np.array_equal((radius[:, 0] > r)[certain], (drift > 0)[certain])


def constants_of_the_text() -> Constants:
    return Constants(GROWTH, CONDUCTION, LATENT, CLAPEYRON, KELVIN, RAOULT)


def test_scaled_time_is_the_growth_of_a_large_droplet_at_its_quasi_steady_temperature(
    specify: Callable[..., DropletNetworkSpec], integrate: Callable[..., Any]
) -> None:
    """The linearised K is the growth rate of r² per unit of supersaturation, if that is small."""
    r, Tf, RH, rho, t = 1e-4, 285.0, 1.001, 1.2, 100.0
    x = np.array([[r, Tf, 1e-22, Tf, RH, rho, t]])
    change = np.sinh(6 * features(DropletNetwork(specify(network="residual")), x)[0, 7]) / 3  # of r²/r0²
    radius, _, _ = integrate([[r], [Tf], [0.6e-22], [Tf], [RH], [rho]], t)
    kelvin = KELVIN / (r * Tf)  # contribution of curvature to the supersaturation
    assert (radius[0, 0] / r) ** 2 - 1 == pytest.approx(change * (1 - kelvin / 0.001), rel=0.01)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(
    "data",
    [{"relative_humidity_range": (0.8, 0.8), "air_density_range": (1.1, 1.1)}, {"time_range": (1.0, 1.0)},
     {"air_temperature_range": (290.0, 290.0), "temperature_range": (290.0, 290.0), "salinity_range": (1e-18, 1e-18)},
     {"radius_range": (1e-6, 1e-6), "salinity_range": (1e-18, 1e-18)}],
    ids=", ".join,
)  # fmt: skip
def test_a_range_of_zero_width_gives_finite_features(
    network: str, data: dict[str, Any], specify: Callable[..., DropletNetworkSpec]
) -> None:
    spec = specify(network=network, hidden=[4], data=data)
    model = DropletNetwork(spec).double()
    x = droplets(spec, 100).astype(np.float32).astype(float)  # as stored, so rounding may take it out of range
    found = features(model, x)
    assert np.all(np.isfinite(found))
    assert np.all(np.abs(found[:, [0, 1, 2, 3, 4, 5]]) <= 1 + 1e-4)
    assert np.all(np.isfinite(predict(model, x)))


@pytest.mark.parametrize("network", NETWORKS)
def test_droplets_whose_salt_attracts_no_water_have_finite_features(
    network: str, specify: Callable[..., DropletNetworkSpec]
) -> None:
    spec = specify(network=network, data={"hygroscopicity": 0.0})
    assert np.all(np.isfinite(features(DropletNetwork(spec), droplets(spec, 100))))


# ---- base -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("radius", "relaxation"), RELAXATION.items())
def test_base_temperature_relaxes_like_the_analytic_solution(
    radius: float, relaxation: float, specify: Callable[..., DropletNetworkSpec]
) -> None:
    times = relaxation * np.array([0, 0.1, 1, 3, 700, 1e12])
    air = 293.15
    x = np.array([[radius, air + 1, 1e-20, air, 0.9, 1.2, t] for t in times])
    base = finished(DropletNetwork(specify(network="residual")), x, torch.zeros(len(x), 2))
    np.testing.assert_allclose(base[:, 1] - air, np.exp(-times / relaxation), rtol=4e-4, atol=1e-12)
    np.testing.assert_allclose(base[:, 0], radius, rtol=1e-14)


def test_base_temperature_is_exact_for_a_large_droplet_in_saturated_air(
    specify: Callable[..., DropletNetworkSpec], integrate: Callable[..., Any]
) -> None:
    air, times = 280.0, np.array([1.0, 10.0, 40.0])
    x = np.array([[1e-3, air + 0.01, 1e-22, air, 1.0, 1.0, t] for t in times])
    base = finished(DropletNetwork(specify(network="residual")), x, torch.zeros(len(x), 2))
    _, temperature, _ = integrate([[1e-3], [air + 0.01], [6e-23], [air], [1.0], [1.0]], times[None])
    np.testing.assert_allclose(base[:, 1] - air, temperature[0] - air, rtol=0.01, atol=1e-5)


def test_base_of_the_plain_network_is_the_middle_of_the_ranges(specify: Callable[..., DropletNetworkSpec]) -> None:
    spec = specify(network="plain")
    model = DropletNetwork(spec).double()
    clear(model)
    np.testing.assert_allclose(predict(model, droplets(spec, 5)), [[10**-5.5, 291.5]] * 5, rtol=1e-12)


# ---- the network as a whole -------------------------------------------------------------------------------------


def finished(model: DropletNetwork, x: NDArray[Any], outputs: torch.Tensor) -> NDArray[np.float64]:
    """Return radius and temperature that follow from outputs of the layers."""
    given = torch.from_numpy(x)
    return model.finish(torch.cat((given, model.prepare(given)[1]), 1), outputs).numpy()


def test_outputs_of_the_residual_network_are_changes(specify: Callable[..., DropletNetworkSpec]) -> None:
    """The change of log10 r, and a difference of temperature in units of 5 K."""
    spec = specify(network="residual")
    x, model = droplets(spec, 200), DropletNetwork(spec)
    outputs = torch.from_numpy(np.random.default_rng(2).normal(size=(200, 2)))
    base, found = (finished(model, x, values) for values in (torch.zeros(200, 2), outputs))
    np.testing.assert_allclose(np.log10(found[:, 0] / x[:, 0]), outputs[:, 0], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose((found[:, 1] - base[:, 1]) / 5, outputs[:, 1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("preset", ["published", "small"])
def test_presets_have_2434_parameters(preset: str, configure: Configure) -> None:
    config = build(DropletsTrainConfig, [read_preset("scimill.droplets/presets/train", preset)])
    model = DropletNetwork(make_spec(config, configure()))
    assert sum(parameter.numel() for parameter in model.parameters()) == 2434
    assert list(model.state_dict()) == [name for name, _ in model.named_parameters()]
    if preset == "published":
        assert [weight.shape for weight, _ in weights(model)] == [(32, 7), (32, 32), (32, 32), (2, 32)]


def test_single_precision_inputs_give_the_same_outputs_in_single_precision(spec: DropletNetworkSpec) -> None:
    model = DropletNetwork(spec).double()
    single = torch.from_numpy(droplets(spec, 100).astype(np.float32))
    with torch.no_grad():
        assert model(single).dtype == torch.float32
        assert torch.equal(model(single), model(single.double()).float())


def test_batches_do_not_change_a_prediction(spec: DropletNetworkSpec) -> None:
    model, x = DropletNetwork(spec).double(), droplets(spec, 101)
    np.testing.assert_allclose(predict(model, x, batch=10), predict(model, x), rtol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_precision_only_changes_the_weights(spec: DropletNetworkSpec, dtype: torch.dtype) -> None:
    model, x = DropletNetwork(spec).double(), torch.from_numpy(droplets(spec, 50))
    before = {name: value.clone() for name, value in model.named_buffers()}
    assert len(before) > 10
    exact = model.features(x)
    model.to(dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert all(value.dtype == torch.float64 for value in model.buffers())
    assert torch.equal(model.features(x), exact)
    assert model(x).dtype == torch.float64
    model.to(torch.float64)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())


def test_specification_survives_json(spec: DropletNetworkSpec) -> None:
    assert DropletNetworkSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


# ---- relaxation -------------------------------------------------------------------------------------------------


@pytest.fixture
def relaxing(specify: Callable[..., DropletNetworkSpec]) -> DropletNetwork:
    """A network with random weights."""
    torch.manual_seed(3)
    return DropletNetwork(specify(network="relaxation")).double()


def test_at_time_0_droplets_are_unchanged(relaxing: DropletNetwork) -> None:
    x = droplets(relaxing.spec, 200)
    x[:, 6] = 0
    assert np.array_equal(predict(relaxing, x), x[:, :2])


@pytest.mark.parametrize("humidity", [0.66, 0.8, 0.95, 0.99, 1.0, 1.0001])
@pytest.mark.parametrize("time", [1e-3, 1.0, 1e3])
def test_equilibria_stay_whatever_the_weights(relaxing: DropletNetwork, humidity: float, time: float) -> None:
    """The radii are scipy's solutions of the Köhler curve."""
    salts = np.geomspace(1e-20, 1e-14, 7)
    found = [equilibrium_radius(0.6 * salt, 290.0, humidity, relaxing.spec.constants) for salt in salts]
    x = np.array([
        [radius, 290.0, salt, 290.0, humidity, 1.0, time] for radius, salt in zip(found, salts, strict=True) if radius
    ])  # fmt: skip
    assert len(x) >= 4
    predicted = predict(relaxing, x)
    np.testing.assert_allclose(predicted[:, 0], x[:, 0], rtol=1e-6)
    np.testing.assert_allclose(predicted[:, 1], 290.0, atol=1e-5)


def test_short_steps_follow_linear_theory_whatever_the_weights(
    relaxing: DropletNetwork, integrate: Callable[..., Any]
) -> None:
    """Cloud droplets near saturation: the exact integrator gives the same change of r² within a few percent."""
    stream, n = np.random.default_rng(8), 200
    radius, air = 10 ** stream.uniform(-6, -4.5, n), stream.uniform(275, 305, n)
    humidity = 1 + stream.choice([-1, 1], n) * stream.uniform(2e-3, 5e-3, n)
    ones = np.ones(n)
    salt = 1e-18 * ones
    settled, dt = 3e6 * radius**2, 3e5 * radius**2  # s; the temperature has adapted, the radius has hardly changed
    r, T, _ = integrate([radius, air, 0.6 * salt, air, humidity, ones], np.stack([settled, settled + dt], 1))
    x = np.stack([r[:, 0], T[:, 0], salt, air, humidity, ones, dt], 1)
    predicted, exact = predict(relaxing, x)[:, 0] ** 2 - x[:, 0] ** 2, r[:, 1] ** 2 - r[:, 0] ** 2
    np.testing.assert_allclose(predicted, exact, rtol=0.1)


def test_many_steps_stay_finite_whatever_the_weights(relaxing: DropletNetwork) -> None:
    x, stream = droplets(relaxing.spec, 300), np.random.default_rng(9)
    low, high = np.array(relaxing.spec.ranges).T
    for _ in range(300):
        x[:, :2] = predict(relaxing, x)
        x[:, 3:7] = stream.uniform(low[3:7], high[3:7], (300, 4))
    assert np.all((x[:, 0] > 1e-9) & (x[:, 0] < 1e-1))
    assert np.all((x[:, 1] > 200) & (x[:, 1] < 500))


# ---- training data ----------------------------------------------------------------------------------------------


def test_a_droplet_gives_one_sample_per_time(spec: DropletNetworkSpec) -> None:
    n, samples = 20, 3
    x, stream = droplets(spec, n).astype(np.float32), np.random.default_rng(4)
    rows = {name: x[:, column] for column, name in enumerate(MODEL_INPUTS)}
    rows["time"] = (10 ** stream.uniform(-3, 1, (n, samples))).astype(np.float32)
    rows["radius"] = (10 ** stream.uniform(-8, -3, (n, samples))).astype(np.float32)
    rows["temperature"] = stream.uniform(270, 310, (n, samples)).astype(np.float32)
    task = DropletTask(spec, 1, [n * samples], flagged=False)
    task.model.double()
    found, given, wanted = task.prepare(rows)
    for index, (row, sample) in enumerate(itertools.product(range(n), range(samples))):
        inputs = [*(rows[name][row] for name in MODEL_INPUTS[:-1]), rows["time"][row, sample]]
        one = torch.tensor([[float(value) for value in inputs]], dtype=torch.float64)
        outcome = torch.tensor([float(rows[name][row, sample]) for name in MODEL_OUTPUTS], dtype=torch.float64)
        torch.testing.assert_close(found[index], task.model.features(one)[0], rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(given[index], torch.cat((one, task.model.prepare(one)[1]), 1)[0], rtol=1e-13, atol=0)
        torch.testing.assert_close(wanted[index], outcome, rtol=0, atol=0)
    assert len(found) == len(given) == len(wanted) == n * samples


@pytest.mark.parametrize("samples", [1, 3])
def test_weird_droplets_that_are_kept_are_not_samples(samples: int, spec: DropletNetworkSpec) -> None:
    n, stream = 30, np.random.default_rng(6)
    shape = (n,) if samples == 1 else (n, samples)
    rows = dict(zip(MODEL_INPUTS, droplets(spec, n).astype(np.float32).T, strict=True))
    rows["time"] = np.broadcast_to(rows["time"].reshape(-1, *[1] * (len(shape) - 1)), shape)
    rows["radius"] = (10 ** stream.uniform(-8, -3, shape)).astype(np.float32)
    rows["temperature"] = stream.uniform(270, 310, shape).astype(np.float32)
    rows["weird"] = stream.choice(np.array([0, 0, 1, 64], np.uint16), shape)
    rows["radius"][rows["weird"] != 0] = np.nan
    task = DropletTask(spec, 1, [int(np.sum(rows["weird"] == 0))], flagged=True)
    task.model.double()
    assert set(task.fields) == set(rows)
    found, _, wanted = task.prepare(rows)
    assert len(found) == len(wanted) == task.samples(0) < n * samples
    assert torch.all(torch.isfinite(wanted))
    whole, _, _ = task.prepare({**rows, "weird": np.zeros_like(rows["weird"])})
    assert torch.equal(found, whole[torch.from_numpy(rows["weird"].ravel() == 0)])


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("network", NETWORKS)
def test_losses_are_those_of_the_physical_errors_in_units_of_their_scales(
    loss: str, network: str, specify: Callable[..., DropletNetworkSpec]
) -> None:
    spec = specify(network=network, hidden=[4], loss=loss, radius_scale=0.05, temperature_scale=0.3)
    task = DropletTask(spec, 1, [50], flagged=False)
    task.model.double()
    x = droplets(spec, 50)
    outcome = np.stack([10 ** np.random.default_rng(5).uniform(-8, -3, 50), x[:, 3]], 1)
    rows = dict(zip(task.fields, np.concatenate([x, outcome], 1).T, strict=True))
    predicted = predict(task.model, x)
    errors = np.stack([np.log10(predicted[:, 0] / outcome[:, 0]) / 0.05, (predicted - outcome)[:, 1] / 0.3], 1)
    size = np.abs(errors)
    expected = {"mse": errors**2, "l1": size, "huber": np.where(size < 1, errors**2 / 2, size - 0.5)}[loss].sum(0)
    found = task.losses(task.prepare(rows)).detach().numpy()
    np.testing.assert_allclose(found[:2], expected, rtol=1e-9)
    if network == "relaxation":
        change = np.abs(np.log10(outcome[:, 0] / x[:, 0])) + 1e-4
        relative = errors[:, 0] * 0.05 / (0.1 * change)
        np.testing.assert_allclose(found[2], (np.sqrt(1 + relative**2) - 1).sum(), rtol=1e-9)


def test_initial_weights_depend_on_the_seed(spec: DropletNetworkSpec) -> None:
    first, again, other = (DropletTask(spec, seed, [1], flagged=False).model.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)
