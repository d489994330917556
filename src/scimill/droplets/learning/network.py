"""The network that replaces the integration of a droplet: from its state, its air and a time to its later state.

Two forms. ``plain`` is the published one (RichterLab/NTLP): seven numbers in, normalised radius and temperature out.
``residual`` learns what is left after what is known:

- the radius as the change of log10 r, the temperature as the difference from T0 relaxing to the air's with the
  time constant of conduction and condensation, r²/(bρ + d), d = ℓ a e/Tf² (Λ/Tf − 1);
- inputs in which droplets of all sizes look alike: log10 θ, the time in units of r²/K, with K = 2a (e/Tf) bρ/(bρ + d),
  the rate of growth of r² per unit of supersaturation with the droplet at the quasi-steady temperature (linearised);
  log10 of the solute term σS/r³; and θ(RH − 1), θ(RH − exp(κ/(r T) − σS/r³)), the change of r²/r0² if the first
  supersaturation stayed, through asinh, which is linear where a droplet is about to evaporate (−1) and a logarithm
  far away from it.

The notation is that of `scimill.droplets.physics`. All of this is inside the model, which takes and gives SI units.
Features are computed in float64, since RH − exp(…) is a small difference, the network itself in its own precision.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from scimill.droplets import CAMPAIGN
from scimill.droplets.kernels.physics import Constants
from scimill.droplets.kernels.sampling import INPUTS

ZERO_CELSIUS = 273.15  # K
SMALLEST_SOLUTE = 1e-35  # m³; keeps the logarithm finite where salt attracts no water
LARGEST_EXPONENT = 690.0  # beyond it exp is infinite or zero in float64
SHARPNESS = 3.0  # asinh(3 x) bends at |x| = 1/3: evaporation, at x = −1, lies where it is still steep
SPREAD = 6.0  # brings asinh(3 x), |x| <= 1e8, to the order of 1
TEMPERATURE_UNIT = 5.0  # K of the temperature's residual for 1 of the network's output
LOSSES: Mapping[str, Any] = {"mse": functional.mse_loss, "l1": functional.l1_loss, "huber": functional.huber_loss}
# ONNX Runtime has no erf in float64, so GELU is the one of tanh.
ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU, "silu": nn.SiLU, "tanh": nn.Tanh, "gelu": partial(nn.GELU, approximate="tanh"),
}  # fmt: skip
FLAG = "weird"  # of a store that keeps weird droplets, which are no samples
MODEL_INPUTS = (*INPUTS, "time")
MODEL_OUTPUTS = ("radius", "temperature")


@dataclasses.dataclass(frozen=True)
class DropletNetworkSpec:
    """All that a network is made from, but its weights."""

    network: str
    hidden: tuple[int, ...]
    activation: str
    ranges: tuple[tuple[float, float], ...]
    """least and largest value of each of MODEL_INPUTS in the training data, SI units"""
    constants: Constants
    saturation: tuple[float, float, float]
    solute_per_salinity: float
    loss: str
    radius_scale: float
    temperature_scale: float

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and texts, for files."""
        return {"campaign": CAMPAIGN.name, **dataclasses.asdict(self), "constants": list(self.constants)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DropletNetworkSpec":
        """Read back what `to_dict` wrote."""
        known = {field.name: values[field.name] for field in dataclasses.fields(cls)}
        ranges = tuple((float(low), float(high)) for low, high in known["ranges"])
        e0, slope, offset = known["saturation"]
        special = {
            "ranges": ranges, "hidden": tuple(known["hidden"]), "saturation": (e0, slope, offset),
            "constants": Constants(*known["constants"]),
        }  # fmt: skip
        return cls(**{**known, **special})


def constants(spec: DropletNetworkSpec) -> dict[str, float]:
    """Return the constants of the features by name, SI units."""
    return {
        **spec.constants._asdict(),
        **dict(zip(("saturation_pressure", "saturation_slope", "saturation_offset"), spec.saturation, strict=True)),
        "solute_per_salinity": spec.solute_per_salinity,
        "zero_celsius": ZERO_CELSIUS,
        "ln10": math.log(10.0),
    }


class DropletNetwork(nn.Module):
    """Radius (m) and temperature (K) of droplets after a time.

    Parameters
    ----------
    spec : what it is made from.

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
    unit: Tensor
    """what 1 of the network's output means: of log10 of the radius, and K"""

    def __init__(self, spec: DropletNetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        # Tensors, since exporters round plain numbers to float32.
        for name, value in constants(spec).items():
            self._keep(name, torch.tensor(value, dtype=torch.float64))
        corners = torch.tensor(np.stack(np.meshgrid(*spec.ranges, indexing="ij"), -1).reshape(-1, len(MODEL_INPUTS)))
        raw = self.raw_features(corners)
        low, high = raw.min(0).values, raw.max(0).values
        as_it_is = [6] if spec.network == "plain" else [7, 8]  # the published time; what asinh has scaled
        low[as_it_is], high[as_it_is] = -1.0, 1.0
        high[high == low] += 1.0  # an input that is the same in all data
        self._keep("centre", (low + high) / 2)
        self._keep("half_width", (high - low) / 2)
        residual = torch.tensor((1.0, TEMPERATURE_UNIT), dtype=torch.float64)
        self._keep("unit", self.half_width[:2].clone() if spec.network == "plain" else residual)
        widths = [raw.shape[1], *spec.hidden]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), ACTIVATIONS[spec.activation]()]
        self.body = nn.Sequential(*layers, nn.Linear(widths[-1], 2))

    def _keep(self, name: str, value: Tensor) -> None:
        self.register_buffer(name, value, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move the model, or change the precision of its weights: the constants stay as they are, in float64."""
        kept = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        device = next(self.parameters()).device
        for name, value in kept.items():
            setattr(self, name, value.to(device))
        return self

    def forward(self, inputs: Tensor) -> Tensor:
        """Predict.

        Parameters
        ----------
        inputs : (n, 7), the columns of MODEL_INPUTS in SI units, float32 or float64.

        Returns
        -------
        (n, 2), radius in m and temperature in K, of the inputs' dtype.
        """
        x = inputs.double()
        features = self.features(x).to(next(self.parameters()).dtype)
        outputs = self.base(x) + self.unit * self.body(features).double()
        return torch.stack((10.0 ** outputs[:, 0], outputs[:, 1]), 1).to(inputs.dtype)

    def features(self, x: Tensor) -> Tensor:
        """What the first layer gets, (n, 7 or 9); x as in `forward`, float64."""
        return (self.raw_features(x) - self.centre) / self.half_width

    def raw_features(self, x: Tensor) -> Tensor:
        """Features before they are brought to about -1 … 1."""
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
        """log10 of the radius (m) and temperature (K), (n, 2), to which the network's output is added."""
        if self.spec.network == "plain":
            return self.centre[:2].expand(x.shape[0], 2)  # tracing would make a constant of len(x)
        r, T, _, Tf, _, rho, t = x.unbind(1)
        relaxed = Tf + (T - Tf) * torch.exp(-(self.conduction * rho + self._release(Tf)) * t / r**2)
        return torch.stack((self._log10(r), relaxed), 1)

    def _growth(self, Tf: Tensor, rho: Tensor) -> Tensor:
        """K of the module's text, m²/s."""
        conduction = self.conduction * rho
        return 2 * self.growth * self._saturation(Tf) / Tf * conduction / (conduction + self._release(Tf))

    def _release(self, Tf: Tensor) -> Tensor:
        """Latent heat that a warmer droplet gives off, d of the module's text, m²/s."""
        return self.latent * self.growth * self._saturation(Tf) / Tf**2 * (self.clapeyron / Tf - 1)

    def _saturation(self, Tf: Tensor) -> Tensor:
        """Saturation vapour pressure, Pa, as `physics.saturation_pressure`."""
        celsius = Tf - self.zero_celsius
        return self.saturation_pressure * torch.exp(
            self.saturation_slope * celsius / (self.saturation_offset + celsius)
        )

    def _log10(self, x: Tensor) -> Tensor:
        return x.log() / self.ln10

    def targets(self, x: Tensor, outcome: Tensor) -> Tensor:
        """What the network should give, (n, 2); outcome: radius (m) and temperature (K), (n, 2), float64."""
        wanted = torch.stack((self._log10(outcome[:, 0]), outcome[:, 1]), 1)
        return (wanted - self.base(x)) / self.unit


def _arsinh(x: Tensor) -> Tensor:
    """asinh, of functions that every run time of ONNX has in float64."""
    return x.sign() * (x.abs() + (x * x + 1).sqrt()).log()


def sample_fields(*, flagged: bool) -> tuple[str, ...]:
    """Fields of a store that make samples."""
    return (*MODEL_INPUTS, *MODEL_OUTPUTS, *((FLAG,) if flagged else ()))


def make_samples(rows: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    """Samples of a block's rows, (n, 9): the columns of MODEL_INPUTS and MODEL_OUTPUTS.

    A droplet with several times is as many samples; a weird one, where the rows have that field, is none.
    """
    shape = (len(rows["time"]), math.prod(rows["time"].shape[1:]))
    table_of = {name: values.reshape(shape[0], math.prod(values.shape[1:])) for name, values in rows.items()}
    columns = {name: np.broadcast_to(values, shape).reshape(-1) for name, values in table_of.items()}
    table = np.stack([columns[name] for name in (*MODEL_INPUTS, *MODEL_OUTPUTS)], 1).astype(np.float64)
    return table[columns[FLAG] == 0] if FLAG in columns else table


class DropletTask:
    """Training of a network on droplets.

    Parameters
    ----------
    spec, seed : what the network is made from, and the seed of its first weights.
    counts : samples of each block of the store: times of droplets that are not weird.
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
        """How many samples a block has."""
        return self._counts[block]

    def prepare(self, rows: Mapping[str, NDArray[Any]]) -> tuple[Tensor, ...]:
        """Features and wanted outputs of droplets, as `make_samples` takes them from the rows."""
        table = torch.from_numpy(make_samples(rows))
        x, outcome = table[:, : len(MODEL_INPUTS)], table[:, len(MODEL_INPUTS) :]
        dtype = next(self.model.parameters()).dtype
        return self._reference.features(x).to(dtype), self._reference.targets(x, outcome).to(dtype)

    def losses(self, tensors: tuple[Tensor, ...]) -> Tensor:
        """Sum over the samples of the loss of log10 of the radius, and of the temperature, in units of their scales."""
        features, wanted = tensors
        errors = (self.model.body(features) - wanted) * wanted.new_tensor(self._weights)
        loss: Tensor = LOSSES[self._loss](errors, torch.zeros_like(errors), reduction="none")
        return loss.sum(0)


def predict(model: DropletNetwork, inputs: NDArray[Any], batch: int = 65_536) -> NDArray[np.float64]:
    """Radius (m) and temperature (K), (n, 2), of droplets (n, 7) whose columns are MODEL_INPUTS."""
    with torch.no_grad():
        droplets = torch.from_numpy(np.asarray(inputs, dtype=np.float64))
        return np.concatenate([model(part).numpy() for part in torch.split(droplets, batch)])


def weights(model: DropletNetwork) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Weight (outputs, inputs) and bias (outputs) of each layer."""
    layers = [layer for layer in model.body if isinstance(layer, nn.Linear)]
    return [(layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in layers]


def scaling(model: DropletNetwork) -> tuple[list[float], list[float], list[float]]:
    """Middle and half width of each feature, and the unit of each output."""
    return model.centre.tolist(), model.half_width.tolist(), model.unit.tolist()


def clear(model: DropletNetwork) -> None:
    """Make all weights zero, so that the network gives its base, for tests of the wiring."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()


def example(model: DropletNetwork) -> Tensor:
    """Return some droplets in the middle of the ranges, (3, 7), float64."""
    low, high = np.array(model.spec.ranges).T
    return torch.tensor(np.tile(np.sqrt(low * high), (3, 1)))
