"""The network that replaces the integration of a droplet: predicts its state from initial state, air and time.

There are two forms. ``plain`` is the published one (RichterLab/NTLP): seven inputs; normalised radius and temperature
as outputs. ``residual`` learns only what simple physics does not give:

- Outputs: the change of log10 r, and the difference from a temperature that relaxes from T0 to that of the air with the
  time constant of conduction and condensation, r²/(bρ + d), d = ℓ a e/Tf² (Λ/Tf − 1).
- Inputs that make droplets of all sizes comparable:
  log10 θ, where θ is the time in units of r²/K, and K = 2a (e/Tf) bρ/(bρ + d) is the growth rate of r² per unit of
  supersaturation, for a droplet at its quasi-steady temperature (linearised);
  log10 of the solute term σS/r³;
  θ(RH − 1) and θ(RH − exp(κ/(r T) − σS/r³)), the change of r²/r0² if the initial supersaturation persisted. Both are
  passed through asinh, which is linear near the point of evaporation (−1) and logarithmic far away from it.

The notation is that of `scimill.droplets.kernels.physics`. Features and normalisation are inside the model, which takes
and returns SI units. Features are computed in float64, since RH − exp(…) is a small difference; the layers have their
own precision.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from scimill.droplets import CAMPAIGN
from scimill.droplets.kernels.physics import AnyConstants, Constants, restore_constants
from scimill.droplets.kernels.sampling import INPUTS

ZERO_CELSIUS = 273.15  # K
SMALLEST_SOLUTE = 1e-35  # m³; keeps the logarithm finite if salt attracts no water
LARGEST_EXPONENT = 690.0  # beyond it, exp overflows or underflows in float64
SHARPNESS = 3.0  # asinh(3 x) bends at |x| = 1/3, so it is still steep at x = −1, where droplets evaporate
SPREAD = 6.0  # scales asinh(3 x), |x| <= 1e8, to the order of 1
TEMPERATURE_UNIT = 5.0  # K; unit of the network's output for the residual temperature
LOSSES: Mapping[str, Any] = {"mse": functional.mse_loss, "l1": functional.l1_loss, "huber": functional.huber_loss}
# ONNX Runtime has no erf in float64, so GELU uses its tanh approximation.
ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU, "silu": nn.SiLU, "tanh": nn.Tanh, "gelu": partial(nn.GELU, approximate="tanh"),
}  # fmt: skip
RANGE_ROUNDING = 2.0**-23  # relative; stored data are float32, so the ends of ranges may be rounded
FLAG = "weird"  # field of a store that keeps weird droplets; they are not used as samples
MODEL_INPUTS = (*INPUTS, "time")
MODEL_OUTPUTS = ("radius", "temperature")


@dataclasses.dataclass(frozen=True)
class DropletNetworkSpec:
    """Everything that defines a network, except its weights."""

    network: str
    hidden: tuple[int, ...]
    activation: str
    ranges: tuple[tuple[float, float], ...]
    """smallest and largest value of each of MODEL_INPUTS in the training data, SI units"""
    constants: AnyConstants
    saturation: tuple[float, float, float]
    solute_per_salinity: float
    loss: str
    radius_scale: float
    temperature_scale: float

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain numbers and strings, for files."""
        return {"campaign": CAMPAIGN.name, **dataclasses.asdict(self), "constants": list(self.constants)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DropletNetworkSpec":
        """Restore a specification from the output of `to_dict`."""
        known = {field.name: values[field.name] for field in dataclasses.fields(cls)}
        ranges = tuple((float(low), float(high)) for low, high in known["ranges"])
        e0, slope, offset = known["saturation"]
        special = {
            "ranges": ranges, "hidden": tuple(known["hidden"]), "saturation": (e0, slope, offset),
            "constants": restore_constants(known["constants"]),
        }  # fmt: skip
        return cls(**{**known, **special})


def constants(spec: DropletNetworkSpec) -> dict[str, float]:
    """Return the constants of the features by name, SI units."""
    return {
        **{name: getattr(spec.constants, name) for name in Constants._fields},
        **dict(zip(("saturation_pressure", "saturation_slope", "saturation_offset"), spec.saturation, strict=True)),
        "solute_per_salinity": spec.solute_per_salinity,
        "zero_celsius": ZERO_CELSIUS,
        "ln10": math.log(10.0),
    }


class DropletNetwork(nn.Module):
    """Predicts radius (m) and temperature (K) of droplets after a time.

    Parameters
    ----------
    spec : definition of the network.

    """

    growth: Tensor
    conduction: Tensor
    latent: Tensor
    clapeyron: Tensor
    kelvin: Tensor
    raoult: Tensor
    solute_per_salinity: Tensor
    saturation_pressure: Tensor
    saturation_slope: Tensor
    saturation_offset: Tensor
    zero_celsius: Tensor
    ln10: Tensor
    centre: Tensor
    half_width: Tensor
    ends: Tensor
    """smallest and largest values of the inputs in the training data, (2, 7)"""
    unit: Tensor
    """unit of the network's outputs: in log10 of the radius, and in K"""

    def __init__(self, spec: DropletNetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        # Tensors, since exporters round plain numbers to float32.
        for name, value in constants(spec).items():
            self._register_constant(name, torch.tensor(value, dtype=torch.float64))
        self._register_constant("ends", torch.tensor(spec.ranges, dtype=torch.float64).T)
        corners = torch.tensor(np.stack(np.meshgrid(*spec.ranges, indexing="ij"), -1).reshape(-1, len(MODEL_INPUTS)))
        raw = self.raw_features(corners)
        low, high = raw.min(0).values, raw.max(0).values
        unscaled = [6] if spec.network == "plain" else [7, 8]  # time in seconds, as published; already scaled by asinh
        low[unscaled], high[unscaled] = -1.0, 1.0
        high[high == low] += 1.0  # inputs that are constant in the data
        self._register_constant("centre", (low + high) / 2)
        self._register_constant("half_width", (high - low) / 2)
        residual = torch.tensor((1.0, TEMPERATURE_UNIT), dtype=torch.float64)
        self._register_constant("unit", self.half_width[:2].clone() if spec.network == "plain" else residual)
        widths = [raw.shape[1], *spec.hidden]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), ACTIVATIONS[spec.activation]()]
        self.body = nn.Sequential(*layers, nn.Linear(widths[-1], 2))

    def _register_constant(self, name: str, value: Tensor) -> None:
        self.register_buffer(name, value, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move the model, or change the precision of its weights; the constants stay in float64."""
        kept = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        device = next(self.parameters()).device
        for name, value in kept.items():
            setattr(self, name, value.to(device))
        return self

    def forward(self, inputs: Tensor) -> Tensor:
        """Predict radius and temperature.

        Parameters
        ----------
        inputs : (n, 7), columns as in MODEL_INPUTS, SI units, float32 or float64.

        Returns
        -------
        (n, 2), radius in m and temperature in K, with the dtype of the inputs; the initial ones if the time is 0.
        """
        given = inputs.double()
        time = given[:, -1:]
        x = torch.cat((given[:, :-1], torch.where(time == 0, torch.ones_like(time), time)), 1)  # no logarithm of 0
        features = self.features(x).to(next(self.parameters()).dtype)
        outputs = self.base(x) + self.unit * self.body(features).double()
        outcome = torch.stack((10.0 ** outputs[:, 0], outputs[:, 1]), 1)
        return torch.where(time == 0, given[:, :2], outcome).to(inputs.dtype)

    def in_range(self, inputs: Tensor) -> Tensor:
        """Check whether each input of each droplet, (n, 7), is within its range of the training data, (n,)."""
        x = inputs.double()
        slack = RANGE_ROUNDING * self.ends.abs()
        return ((x >= (self.ends - slack)[0]) & (x <= (self.ends + slack)[1])).all(1)

    def features(self, x: Tensor) -> Tensor:
        """Compute the inputs of the first layer, (n, 7 or 9); x as in `forward`, float64."""
        return (self.raw_features(x) - self.centre) / self.half_width

    def raw_features(self, x: Tensor) -> Tensor:
        """Compute the features before they are scaled to about -1 … 1."""
        r, T, S, Tf, RH, rho, t = x.unbind(1)
        if self.spec.network == "plain":
            return torch.stack((self._log10(r), T, self._log10(S), Tf, RH, rho, t), 1)
        log_time = self._log10(self._growth(Tf, rho) * t) - 2 * self._log10(r)
        solute = (S * self.solute_per_salinity * self.raoult).clamp_min(SMALLEST_SOLUTE)
        log_solute = self._log10(solute) - 3 * self._log10(r)
        exponent = self.kelvin / (r * T) - 10.0**log_solute
        time = 10.0**log_time
        first = RH - exponent.clamp(-LARGEST_EXPONENT, LARGEST_EXPONENT).exp()
        drift = [_arsinh(SHARPNESS * time * excess) / SPREAD for excess in (RH - 1, first)]
        return torch.stack((self._log10(r), T - Tf, log_solute, Tf, RH, rho, log_time, *drift), 1)

    def base(self, x: Tensor) -> Tensor:
        """Compute what the network corrects: log10 of the radius (m), and temperature (K), (n, 2)."""
        if self.spec.network == "plain":
            return self.centre[:2].expand(x.shape[0], 2)  # tracing would turn len(x) into a constant
        r, T, _, Tf, _, rho, t = x.unbind(1)
        relaxed = Tf + (T - Tf) * torch.exp(-(self.conduction * rho + self._release(Tf)) * t / r**2)
        return torch.stack((self._log10(r), relaxed), 1)

    def _growth(self, Tf: Tensor, rho: Tensor) -> Tensor:
        """Compute K of the module's docstring, m²/s."""
        conduction = self.conduction * rho
        return 2 * self.growth * self._saturation(Tf) / Tf * conduction / (conduction + self._release(Tf))

    def _release(self, Tf: Tensor) -> Tensor:
        """Compute the latent heat that a warmer droplet releases, d of the module's docstring, m²/s."""
        return self.latent * self.growth * self._saturation(Tf) / Tf**2 * (self.clapeyron / Tf - 1)

    def _saturation(self, Tf: Tensor) -> Tensor:
        """Compute the saturation vapour pressure, Pa, like `physics.saturation_pressure`."""
        celsius = Tf - self.zero_celsius
        return self.saturation_pressure * torch.exp(
            self.saturation_slope * celsius / (self.saturation_offset + celsius)
        )

    def _log10(self, x: Tensor) -> Tensor:
        return x.log() / self.ln10

    def targets(self, x: Tensor, outcome: Tensor) -> Tensor:
        """Compute the target outputs, (n, 2), from the outcome: radius (m) and temperature (K), (n, 2), float64."""
        exact = torch.stack((self._log10(outcome[:, 0]), outcome[:, 1]), 1)
        return (exact - self.base(x)) / self.unit


def _arsinh(x: Tensor) -> Tensor:
    """Compute asinh, using only functions that every ONNX runtime has in float64."""
    return x.sign() * (x.abs() + (x * x + 1).sqrt()).log()


def sample_fields(*, flagged: bool) -> tuple[str, ...]:
    """Return the fields of a store that samples need."""
    return (*MODEL_INPUTS, *MODEL_OUTPUTS, *((FLAG,) if flagged else ()))


def make_samples(rows: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    """Make samples from a block's rows, (n, 9), columns as in MODEL_INPUTS and MODEL_OUTPUTS.

    A droplet gives one sample per time. Weird ones are left out, if the rows have that field.
    """
    shape = (len(rows["time"]), math.prod(rows["time"].shape[1:]))
    table_of = {name: values.reshape(shape[0], math.prod(values.shape[1:])) for name, values in rows.items()}
    columns = {name: np.broadcast_to(values, shape).reshape(-1) for name, values in table_of.items()}
    table = np.stack([columns[name] for name in (*MODEL_INPUTS, *MODEL_OUTPUTS)], 1).astype(np.float64)
    return table[columns[FLAG] == 0] if FLAG in columns else table


class DropletTask:
    """Task of training a network on droplets.

    Parameters
    ----------
    spec, seed : definition of the network, and seed of its initial weights.
    counts : number of samples in each block of the store, without weird ones.
    flagged : whether the store keeps weird droplets in its sample, with a flag.

    """

    terms: tuple[str, ...] = MODEL_OUTPUTS

    def __init__(self, spec: DropletNetworkSpec, seed: int, counts: Sequence[int], *, flagged: bool) -> None:
        self._reference = DropletNetwork(spec)  # prepares data on the CPU, wherever the model is
        torch.manual_seed(seed)
        self.model = DropletNetwork(spec)
        self.network = spec.to_dict()
        self.fields = sample_fields(flagged=flagged)
        self._counts = counts
        self._loss = spec.loss
        units = self._reference.unit.tolist()
        self._weights = [
            unit / scale for unit, scale in zip(units, (spec.radius_scale, spec.temperature_scale), strict=True)
        ]

    def samples(self, block: int) -> int:
        """Return the number of samples in a block."""
        return self._counts[block]

    def prepare(self, rows: Mapping[str, NDArray[Any]]) -> tuple[Tensor, ...]:
        """Compute features and target outputs of all samples in the rows; see `make_samples`."""
        table = torch.from_numpy(make_samples(rows))
        x, outcome = table[:, : len(MODEL_INPUTS)], table[:, len(MODEL_INPUTS) :]
        dtype = next(self.model.parameters()).dtype
        return self._reference.features(x).to(dtype), self._reference.targets(x, outcome).to(dtype)

    def losses(self, tensors: tuple[Tensor, ...]) -> Tensor:
        """Sum the losses of log10 of the radius and of the temperature over the samples, in units of their scales."""
        features, targets = tensors
        errors = (self.model.body(features) - targets) * targets.new_tensor(self._weights)
        loss: Tensor = LOSSES[self._loss](errors, torch.zeros_like(errors), reduction="none")
        return loss.sum(0)


def predict(model: DropletNetwork, inputs: NDArray[Any], batch: int = 65_536) -> NDArray[np.float64]:
    """Predict radius (m) and temperature (K), (n, 2), from inputs (n, 7), columns as in MODEL_INPUTS."""
    with torch.no_grad():
        droplets = torch.from_numpy(np.asarray(inputs, dtype=np.float64))
        return np.concatenate([model(part).numpy() for part in torch.split(droplets, batch)])


def weights(model: DropletNetwork) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Return weight (outputs, inputs) and bias (outputs) of each layer."""
    layers = [layer for layer in model.body if isinstance(layer, nn.Linear)]
    return [(layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in layers]


def scaling(model: DropletNetwork) -> tuple[list[float], list[float], list[float]]:
    """Return centre and half width of each feature, and the unit of each output."""
    return model.centre.tolist(), model.half_width.tolist(), model.unit.tolist()


def clear(model: DropletNetwork) -> None:
    """Set all weights to zero, so that the network returns its base, to test calling programs."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()


def example(model: DropletNetwork) -> Tensor:
    """Return example droplets in the middle of the ranges, (3, 7), float64."""
    low, high = np.array(model.spec.ranges).T
    return torch.tensor(np.tile(np.sqrt(low * high), (3, 1)))


def cast(droplets: Tensor, precision: str) -> Tensor:
    """Convert to "float32" or "float64"."""
    return droplets.float() if precision == "float32" else droplets.double()


class Prediction(NamedTuple):
    """The outputs of an exported network."""

    outcome: Tensor
    """radius (m) and temperature (K), (n, 2)"""
    in_range: Tensor
    """whether all inputs are within the ranges of the training data, (n,)"""


class WithRange(nn.Module):
    """A network that also says which droplets are within its ranges."""

    def __init__(self, model: DropletNetwork) -> None:
        super().__init__()
        self.model = model

    def forward(self, droplets: Tensor) -> tuple[Tensor, Tensor]:
        """Predict, and check the ranges; see `Prediction`."""
        return self.model(droplets), self.model.in_range(droplets)


class AnyPrecision(nn.Module):
    """A traced network, which only takes float64, for inputs of any precision; outputs have the same."""

    def __init__(self, traced: torch.jit.ScriptModule) -> None:
        super().__init__()
        self.traced = traced

    def forward(self, droplets: Tensor) -> Prediction:
        """Predict droplets, (n, 7), float32 or float64."""
        outcome, in_range = self.traced(droplets.double())
        return Prediction(outcome.to(droplets.dtype), in_range)
