"""The network that replaces the integration of a droplet: predicts its state from initial state, air and time.

There are three forms; `scimill.droplets.learning.formulas` has their formulas.

- ``plain`` is the published one (RichterLab/NTLP): seven inputs; normalised radius and temperature as outputs.
- ``residual`` learns the change of log10 r, and the difference from a temperature that relaxes to that of the air with
  the time constant of conduction and condensation, r²/(bρ + d), d = ℓ a e/Tf² (Λ/Tf − 1).
- ``relaxation`` relaxes r² towards the droplet's Köhler equilibrium, at a speed that the network corrects. Its result
  is the initial state at time 0, an equilibrium stays one, and steps much shorter than the relaxation are those of the
  linearised equations, whatever the weights. So errors do not add up over many steps.

Inputs that make droplets of all sizes comparable: the time in units of r²/K, where K = 2a (e/Tf) bρ/(bρ + d) is the
growth rate of r² per unit of supersaturation, for a droplet at its quasi-steady temperature (linearised); the solute
term σS/r³; and the change of r²/r0² if the initial supersaturation persisted, through asinh, which is linear near the
point of evaporation (−1) and logarithmic far away from it.

The notation is that of `scimill.droplets.kernels.physics`. Features and normalisation are inside the model, which takes
and returns SI units. Features are computed in float64, since RH − exp(…) is a small difference; the layers have their
own precision.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from itertools import pairwise
from types import CodeType
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from scimill.droplets import CAMPAIGN
from scimill.droplets.kernels.physics import AnyConstants, Constants, restore_constants
from scimill.droplets.learning.formulas import FORMS, INPUT_NAMES, LIMITS, MODEL_INPUTS, OUTPUT_NAMES

ZERO_CELSIUS = 273.15  # K
TEMPERATURE_UNIT = 5.0  # K; unit of the network's output for the residual temperature
LOSSES: Mapping[str, Any] = {"mse": functional.mse_loss, "l1": functional.l1_loss, "huber": functional.huber_loss}
# ONNX Runtime has no erf in float64, so GELU uses its tanh approximation.
ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU, "silu": nn.SiLU, "tanh": nn.Tanh, "gelu": partial(nn.GELU, approximate="tanh"),
}  # fmt: skip
RANGE_ROUNDING = 2.0**-23  # relative; stored data are float32, so the ends of ranges may be rounded
FLAG = "weird"  # field of a store that keeps weird droplets; they are not used as samples
MODEL_OUTPUTS = ("radius", "temperature")
GROWTH = "growth"  # term of the loss
SMALLEST_CHANGE = 1e-4  # of log10 r; smaller ones are rounding errors of stored radii


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
    growth_scale: float = 0.1

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain numbers and strings, for files."""
        return {"campaign": CAMPAIGN.name, **dataclasses.asdict(self), "constants": list(self.constants)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DropletNetworkSpec":
        """Restore a specification from the output of `to_dict`."""
        known = {field.name: values[field.name] for field in dataclasses.fields(cls) if field.name in values}
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

    centre: Tensor
    half_width: Tensor
    ends: Tensor
    """smallest and largest values of the inputs in the training data, (2, 7)"""

    def __init__(self, spec: DropletNetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self._form = FORMS[spec.network]
        # Tensors, since exporters round plain numbers to float32.
        self._names = tuple(_known(spec))
        for name, value in _known(spec).items():
            self._register_constant(name, torch.tensor(value, dtype=torch.float64))
        self._register_constant("ends", torch.tensor(spec.ranges, dtype=torch.float64).T)
        corners = torch.tensor(np.stack(np.meshgrid(*spec.ranges, indexing="ij"), -1).reshape(-1, len(MODEL_INPUTS)))
        raw, _ = self.prepare(corners)
        low, high = raw.min(0).values, raw.max(0).values
        unscaled = [self._form.features.index(name) for name in self._form.unscaled]
        low[unscaled], high[unscaled] = -1.0, 1.0
        high[high == low] += 1.0  # inputs that are constant in the data
        self._register_constant("centre", (low + high) / 2)
        self._register_constant("half_width", (high - low) / 2)
        widths = [raw.shape[1], *spec.hidden]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), ACTIVATIONS[spec.activation]()]
        self.body = nn.Sequential(*layers, nn.Linear(widths[-1], 2))

    @property
    def known(self) -> dict[str, Tensor]:
        """The constants of the formulas, by name."""
        return {name: getattr(self, name) for name in self._names}

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
        raw, steps = self.prepare(x)
        outputs = self.body(self.scaled(raw).to(next(self.parameters()).dtype))
        outcome = self.finish(torch.cat((x, steps), 1), outputs)
        return torch.where(time == 0, given[:, :2], outcome).to(inputs.dtype)

    def in_range(self, inputs: Tensor) -> Tensor:
        """Check whether each input of each droplet, (n, 7), is within its range of the training data, (n,)."""
        x = inputs.double()
        slack = RANGE_ROUNDING * self.ends.abs()
        return ((x >= (self.ends - slack)[0]) & (x <= (self.ends + slack)[1])).all(1)

    def features(self, x: Tensor) -> Tensor:
        """Compute the inputs of the first layer, (n, features); x as in `forward`, float64."""
        return self.scaled(self.prepare(x)[0])

    def scaled(self, raw: Tensor) -> Tensor:
        """Scale features to about -1 … 1."""
        return (raw - self.centre) / self.half_width

    def prepare(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the features before they are scaled, and the steps that the finish needs, (n, …), float64."""
        values = _run(self._form.steps, {**self.known, **_columns(INPUT_NAMES, x)})
        return _table(values, self._form.features, x), _table(values, self._form.carried, x)

    def finish(self, given: Tensor, outputs: Tensor) -> Tensor:
        """Compute radius (m) and temperature (K), (n, 2), from the outputs of the layers.

        Parameters
        ----------
        given : (n, …), float64, the inputs and the steps of `prepare`.
        outputs : (n, 2), of the layers.

        """
        names = (*INPUT_NAMES, *self._form.carried)
        values = {**self.known, **_columns(names, given), **_columns(OUTPUT_NAMES, outputs.double())}
        return _table(_run(self._form.finish, values), ("new_radius", "new_temperature"), given)


def _known(spec: DropletNetworkSpec) -> dict[str, float]:
    """Return constants, limits and units of the formulas, by name."""
    low, high = spec.ranges[0]
    cold, warm = spec.ranges[1]
    is_plain = spec.network == "plain"
    return {
        **constants(spec), **LIMITS,
        "middle_log_radius": math.log10(low * high) / 2, "middle_temperature": (cold + warm) / 2,
        "radius_unit": math.log10(high / low) / 2 if is_plain else 1.0,
        "temperature_unit": (warm - cold) / 2 if is_plain else TEMPERATURE_UNIT,
    }  # fmt: skip


@cache
def _compiled(text: str) -> CodeType:
    return compile("\n".join(line.strip() for line in text.splitlines()), "<formulas>", "exec")


def _run(text: str, values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Run assignments of `formulas`; return all values by name."""
    exec(_compiled(text), dict(FUNCTIONS), values)
    return values


def _columns(names: Sequence[str], table: Tensor) -> dict[str, Tensor]:
    return dict(zip(names, table.unbind(1), strict=True))


def _table(values: Mapping[str, Tensor], names: Sequence[str], like: Tensor) -> Tensor:
    """Stack values as columns; constants get the length of the others."""
    return torch.stack([values[name].expand_as(like[:, 0]) for name in names], 1)


def _arsinh(x: Tensor) -> Tensor:
    """Compute asinh, using only functions that every ONNX runtime has in float64."""
    return x.sign() * (x.abs() + (x * x + 1).sqrt()).log()


def _larger(a: Tensor | float, b: Tensor | float) -> Tensor:
    """Return the larger one; one of both may be a number, which PyTorch's tracer must not turn into a tensor."""
    if isinstance(a, Tensor):
        return torch.maximum(a, b) if isinstance(b, Tensor) else a.clamp_min(b)
    smallest, values = a, b
    assert isinstance(values, Tensor)
    return values.clamp_min(smallest)


def _smaller(a: Tensor, b: Tensor | float) -> Tensor:
    return torch.minimum(a, b) if isinstance(b, Tensor) else a.clamp_max(b)


def _step(a: Tensor | float, b: Tensor | float) -> Tensor:
    """Return 1 where a >= b, and 0 elsewhere."""
    found: Any = a >= b
    return found.double()


FUNCTIONS: Mapping[str, Callable[..., Tensor]] = {
    "exp": torch.exp, "log": torch.log, "sqrt": torch.sqrt, "abs": torch.abs, "arsinh": _arsinh,
    "max": _larger, "min": _smaller, "step": _step,
}  # fmt: skip


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

    def __init__(self, spec: DropletNetworkSpec, seed: int, counts: Sequence[int], *, flagged: bool) -> None:
        self._reference = DropletNetwork(spec)  # prepares data on the CPU, wherever the model is
        torch.manual_seed(seed)
        self.model = DropletNetwork(spec)
        self.network = spec.to_dict()
        self.fields = sample_fields(flagged=flagged)
        self.terms = (*MODEL_OUTPUTS, GROWTH) if spec.network == "relaxation" else MODEL_OUTPUTS
        self._counts = counts
        self._spec = spec

    def samples(self, block: int) -> int:
        """Return the number of samples in a block."""
        return self._counts[block]

    def prepare(self, rows: Mapping[str, NDArray[Any]]) -> tuple[Tensor, ...]:
        """Compute features, what the finish needs, and the exact outcome of all samples; see `make_samples`."""
        table = torch.from_numpy(make_samples(rows))
        x, outcome = table[:, : len(MODEL_INPUTS)], table[:, len(MODEL_INPUTS) :]
        raw, steps = self._reference.prepare(x)
        features = self._reference.scaled(raw).to(next(self.model.parameters()).dtype)
        return features, torch.cat((x, steps), 1), outcome

    def losses(self, tensors: tuple[Tensor, ...]) -> Tensor:
        """Sum the losses of log10 of the radius and of the temperature over the samples, in units of their scales.

        For `relaxation`, also of the change of log10 of the radius, relative to the exact change.
        """
        features, given, outcome = tensors
        found = self.model.finish(given, self.model.body(features))
        radius = (found[:, 0] / outcome[:, 0]).log10()
        errors = torch.stack((
            radius / self._spec.radius_scale, (found[:, 1] - outcome[:, 1]) / self._spec.temperature_scale
        ), 1)  # fmt: skip
        loss: Tensor = LOSSES[self._spec.loss](errors, torch.zeros_like(errors), reduction="none")
        if GROWTH not in self.terms:
            return loss.sum(0)
        change = (outcome[:, 0] / given[:, 0]).log10().abs() + SMALLEST_CHANGE
        relative = radius / (change * self._spec.growth_scale)
        return torch.cat((loss.sum(0), ((1 + relative**2).sqrt() - 1).sum(0, keepdim=True)))


def predict(model: DropletNetwork, inputs: NDArray[Any], batch: int = 65_536) -> NDArray[np.float64]:
    """Predict radius (m) and temperature (K), (n, 2), from inputs (n, 7), columns as in MODEL_INPUTS."""
    with torch.no_grad():
        droplets = torch.from_numpy(np.asarray(inputs, dtype=np.float64))
        return np.concatenate([model(part).numpy() for part in torch.split(droplets, batch)])


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch use one thread, since more would slow down small batches."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def weights(model: DropletNetwork) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Return weight (outputs, inputs) and bias (outputs) of each layer."""
    layers = [layer for layer in model.body if isinstance(layer, nn.Linear)]
    return [(layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in layers]


def scaling(model: DropletNetwork) -> tuple[list[float], list[float]]:
    """Return centre and half width of each feature."""
    return model.centre.tolist(), model.half_width.tolist()


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
