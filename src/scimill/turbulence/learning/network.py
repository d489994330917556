"""The network that corrects a coarse step: from the state after the step to its difference from the filtered truth.

One convolutional network computes the corrections of both fields from density, vorticity and potential. The potential
is an input because it cannot be inferred from a neighbourhood of the vorticity. All layers are 3 x 3 convolutions
without padding, so the output is smaller than the input by the receptive radius on each side. The caller supplies
halos: periodic ones in training, rows of the neighbouring ranks in a run.

The output is used in a band of wavenumbers only. Corrections matter at small scales. At large scales they are a
millionth of the state, far less than the error of any network, and that error would accumulate from step to step.

The original (EPCCed/SiMLInt) has one network per field, which sees only that field: six layers of 64 channels, ReLU.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from scimill.turbulence import CAMPAIGN
from scimill.turbulence.kernels.augmentation import augment
from scimill.turbulence.kernels.spectral import highest_mode

KERNEL = 3  # points of a convolution along each side
VARIABLES = ("density", "vorticity", "potential")
CORRECTED = VARIABLES[:2]
CORRECTIONS = tuple(f"{name}_correction" for name in CORRECTED)
ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU, "silu": nn.SiLU, "tanh": nn.Tanh, "gelu": nn.GELU,
}  # fmt: skip
Advance = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""One coarse step: from density and vorticity, (2, x, y), to the VARIABLES after the step, (3, x, y)."""


@dataclasses.dataclass(frozen=True)
class CorrectionNetworkSpec:
    """Everything that defines a network except its weights, and the coarse step that it corrects."""

    hidden: tuple[int, ...]
    """channels of each hidden layer"""
    activation: str
    points: int
    """points of the coarse grid along each side"""
    box: float
    """side of the box, ρs"""
    step: float
    """length of a coarse step, Ln/cs"""
    substeps: int
    """number of equal Runge–Kutta steps in it"""
    scheme: str
    """spatial discretisation of the coarse step"""
    physics: Mapping[str, Any]
    """parameters of the equations"""
    input_scale: tuple[float, ...]
    """root mean square of each of VARIABLES"""
    output_scale: tuple[float, ...]
    """root mean square of the correction of each of CORRECTED, within the band"""
    band: tuple[float, float]
    """smallest and largest corrected wavenumber, in units of 2π/box"""
    variables: tuple[str, ...] = VARIABLES

    @property
    def radius(self) -> int:
        """Receptive radius: points by which the output is smaller than the input on each side."""
        return (len(self.hidden) + 1) * (KERNEL // 2)

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and texts for files."""
        values = dataclasses.asdict(self)
        return {"campaign": CAMPAIGN.name, **json.loads(json.dumps(values))}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "CorrectionNetworkSpec":
        """Make a spec from the result of `to_dict`."""
        known = {field.name: values[field.name] for field in dataclasses.fields(cls)}
        lists = {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
        return cls(**{**known, **lists})


class CorrectionNetwork(nn.Module):
    """A network that computes corrections of density and vorticity, not yet limited to the band.

    Parameters
    ----------
    spec : its definition.

    """

    input_scale: Tensor
    output_scale: Tensor

    def __init__(self, spec: CorrectionNetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        for name in ("input_scale", "output_scale"):
            values = torch.tensor(getattr(spec, name), dtype=torch.float32).reshape(1, -1, 1, 1)
            self.register_buffer(name, values, persistent=False)
        layers: list[nn.Module] = []
        for before, after in pairwise((len(VARIABLES), *spec.hidden)):
            layers += [nn.Conv2d(before, after, KERNEL), ACTIVATIONS[spec.activation]()]
        self.body = nn.Sequential(*layers, nn.Conv2d(spec.hidden[-1], len(CORRECTED), KERNEL))

    def forward(self, state: Tensor) -> Tensor:
        """Return the corrections of states with halos.

        Parameters
        ----------
        state : (n, 3, x + 2 radius, y + 2 radius), the VARIABLES after the coarse step.

        Returns
        -------
        (n, 2, x, y), the corrections of CORRECTED.
        """
        corrections: Tensor = self.body(state / self.input_scale) * self.output_scale
        return corrections

    def normalised(self, state: Tensor) -> Tensor:
        """Return corrections in units of their scale, (n, 2, x, y), of whole periodic states, (n, 3, x, y)."""
        around = (self.spec.radius,) * 4
        corrections: Tensor = self.body(functional.pad(state / self.input_scale, around, mode="circular"))
        return corrections


def in_band(points: int, band: tuple[float, float]) -> NDArray[np.bool_]:
    """Return which modes of a real 2-D transform, (points, points/2 + 1), are corrected; as `band.Band` on slabs.

    These modes have wavenumbers within the band, ends included, and lie within the 2/3 cutoff in both directions.
    """
    rows = np.fft.fftfreq(points, 1 / points)[:, None]
    columns = np.arange(points // 2 + 1)[None, :]
    wavenumber, highest = np.hypot(rows, columns), highest_mode(points)
    resolved = (np.abs(rows) <= highest) & (columns <= highest)
    inside: NDArray[np.bool_] = resolved & (band[0] <= wavenumber) & (wavenumber <= band[1])
    return inside


def limit_to_band(fields: Tensor, inside: Tensor) -> Tensor:
    """Limit periodic fields, (..., x, y), to a band of modes as returned by `in_band`."""
    result: Tensor = torch.fft.irfft2(torch.fft.rfft2(fields) * inside, s=fields.shape[-2:])
    return result


class CorrectionTask:
    """The task for the training engine: a correction network, trained on pairs of filtered truth and coarse step.

    A sample is a sequence of `span` consecutive pairs. The network sees the state after the coarse step of the first
    pair. If `span` exceeds 1, the coarse solver advances the corrected state, the network corrects it again, and so on.
    The loss of each step measures how far the state then is from the truth. Gradients do not pass through the solver.

    Parameters
    ----------
    spec : definition of the network.
    seed : seed of the initial weights.
    groups : member of each pair; the pairs of a member are in order of time.
    span : pairs per sample.
    advance : the coarse step; required if `span` exceeds 1.
    augmented : whether to shift and reflect training samples at random.
    weights : initial weights from a network with the same spec.

    """

    terms: tuple[str, ...] = CORRECTED
    fields: tuple[str, ...] = (*VARIABLES, *CORRECTIONS)

    def __init__(
        self, spec: CorrectionNetworkSpec, seed: int, groups: Sequence[int], *, span: int = 1,
        advance: Advance | None = None, augmented: bool = True, weights: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        torch.manual_seed(seed)
        self.model = CorrectionNetwork(spec)
        if weights is not None:
            self.model.load_state_dict(weights)
        self.network = spec.to_dict()
        self.groups, self.span = groups, span
        self._advance, self._augmented = advance, augmented
        self._inside = torch.from_numpy(in_band(spec.points, spec.band))
        self._scale = torch.tensor(spec.output_scale, dtype=torch.float64).reshape(-1, 1, 1)

    def samples(self, block: int) -> int:
        """Return how many samples begin in a block: none if the member ends before the sample does."""
        last = block + self.span - 1
        return int(last < len(self.groups) and self.groups[block] == self.groups[last])

    def prepare(self, rows: Mapping[str, NDArray[Any]]) -> tuple[Tensor, ...]:
        """Return states after the first coarse step, (n, 3, x, y), and targets for each step, (n, span · 2, x, y)."""
        states = np.stack([rows[name] for name in VARIABLES], axis=1)
        corrections = np.stack([rows[name] for name in CORRECTIONS], axis=1)
        wanted = states[:, :2].astype(np.float64) + corrections  # float64, since a correction is a small difference
        sequences = wanted.reshape(-1, self.span * len(CORRECTED), *wanted.shape[2:])
        dtype = next(self.model.parameters()).dtype
        return torch.from_numpy(states[:: self.span]).to(dtype), torch.from_numpy(sequences)

    def augment(self, tensors: tuple[Tensor, ...], stream: np.random.Generator) -> tuple[Tensor, ...]:
        """Shift and reflect each sample at random, with the random stream of its block and epoch."""
        if not self._augmented:
            return tensors
        states, wanted = tensors
        together = augment(torch.cat((states.double(), wanted), 1).numpy(), stream)
        moved = torch.from_numpy(together)
        return moved[:, : states.shape[1]].to(states.dtype), moved[:, states.shape[1] :]

    def losses(self, tensors: tuple[Tensor, ...]) -> Tensor:
        """Return the mean squared error of each correction in units of its scale, summed over the samples."""
        states, wanted = tensors
        total = states.new_zeros(len(CORRECTED))
        for step in range(self.span):
            target = wanted[:, 2 * step : 2 * step + 2] - states[:, :2].double()
            error, correction = self._step(states, target)
            total = total + (error**2).mean((2, 3)).sum(0) / self.span
            if step < self.span - 1:
                states = self._advance_states(states, correction)
        return total

    def _step(self, states: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the error within the band in units of its scale, and the correction, both (n, 2, x, y)."""
        inside, scale = self._inside.to(states.device), self._scale.to(states.device)
        found = limit_to_band(self.model.normalised(states).to(states.dtype), inside)
        return found - limit_to_band(target / scale, inside).to(states.dtype), found.detach() * scale

    def _advance_states(self, states: Tensor, correction: Tensor) -> Tensor:
        """Correct states and advance them by the next coarse step."""
        assert self._advance is not None  # a task with more than one step has a solver
        corrected = (states[:, :2].double() + correction).cpu().numpy()
        advanced = [self._advance(state) for state in corrected]
        return torch.from_numpy(np.stack(advanced)).to(states) if advanced else states


def clear(model: CorrectionNetwork) -> None:
    """Set all weights to zero, so that the network corrects nothing, to test a coupling."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()


def example(model: CorrectionNetwork) -> Tensor:
    """Return example states with halos for exporters, (2, 3, x, y) with different x and y."""
    edge = 2 * model.spec.radius
    return torch.zeros(2, len(VARIABLES), edge + 8, edge + 11)
