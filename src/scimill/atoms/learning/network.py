"""A small potential: one network computes an atom's energy from its neighbours' distances.

The features of an atom are sums of Gaussians of its neighbours' distances, separate for each element of the neighbours
and multiplied by a smooth cutoff (the radial symmetry functions of Behler & Parrinello, Phys. Rev. Lett. 98, 146401
(2007)). The features and the atom's own element are the input of a network with two hidden layers. Its outputs add up
to the energy, and forces are the gradient. Metals whose bonding depends on the density, as in EMT, need no angles.
"""

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scimill.atoms import CAMPAIGN
from scimill.atoms.kernels.neighbours import max_neighbours, neighbours, padded
from scimill.training.threads import one_thread

NEAREST = 1.5  # Å, centre of the first Gaussian
FIELDS = ("species", "coordinates", "cell", "pbc", "energy", "forces")


@dataclasses.dataclass(frozen=True)
class PotentialSpec:
    """Everything that defines a potential except its weights."""

    elements: tuple[int, ...]
    """atomic numbers"""
    energies: tuple[float, ...]
    """energy of an atom of each element, eV: least squares over the training data"""
    cutoff: float
    """Å"""
    radial: int
    """number of Gaussians"""
    hidden: tuple[int, ...]
    neighbours: int
    """largest number of neighbours of an atom in the training data"""
    energy_scale: float
    """error of the energy per atom that counts as 1 in the loss, eV"""
    force_scale: float
    """error of a force that counts as 1 in the loss, eV/Å"""

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain numbers and strings, for files."""
        return {"campaign": CAMPAIGN.name, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "PotentialSpec":
        """Read back what `to_dict` wrote."""
        known: dict[str, Any] = {field.name: values[field.name] for field in dataclasses.fields(cls)}
        lists = {name: tuple(known[name]) for name in ("elements", "energies", "hidden")}
        return cls(**{**known, **lists})


class Potential(nn.Module):
    """The potential as a network: energies (eV) of structures."""

    centres: Tensor
    numbers: Tensor
    energies: Tensor

    def __init__(self, spec: PotentialSpec) -> None:
        super().__init__()
        self.spec = spec
        self.register_buffer("centres", torch.linspace(NEAREST, spec.cutoff, spec.radial))
        self.register_buffer("numbers", torch.tensor(spec.elements))
        self.register_buffer("energies", torch.tensor(spec.energies))
        widths = (len(spec.elements) * (spec.radial + 1), *spec.hidden)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.SiLU()]
        self.body = nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    def forward(self, species: Tensor, positions: Tensor, indices: Tensor, vectors: Tensor) -> Tensor:
        """Compute energies, eV, shape (n,).

        Parameters
        ----------
        species, positions : atomic numbers, 0 for padding, (n, atoms); Å, (n, atoms, 3).
        indices, vectors : neighbours as from `neighbours.padded`, (n, atoms, width), (n, atoms, width, 3).

        """
        kinds = (species[..., None] == self.numbers).to(positions.dtype)
        energies = self.body(torch.cat([self.features(kinds, positions, indices, vectors), kinds], -1))[..., 0]
        total: Tensor = ((energies + kinds @ self.energies.to(positions.dtype)) * (species > 0)).sum(1)
        return total

    def features(self, kinds: Tensor, positions: Tensor, indices: Tensor, vectors: Tensor) -> Tensor:
        """Compute sums of Gaussians per element of the neighbours, (n, atoms, elements · radial)."""
        n, atoms, width = indices.shape
        real, flat = indices >= 0, indices.clamp(min=0).reshape(n, -1)
        there = positions.gather(1, flat[..., None].expand(-1, -1, 3)).reshape(n, atoms, width, 3)
        away = (there + vectors - positions[:, :, None]).masked_fill(~real[..., None], self.spec.cutoff)
        distances = away.norm(dim=-1)
        scaled = (distances / self.spec.cutoff).clamp(max=1.0)
        smooth = torch.where(real, 0.5 * (torch.cos(torch.pi * scaled) + 1), torch.zeros_like(distances))
        step = (self.spec.cutoff - NEAREST) / max(self.spec.radial - 1, 1)
        waves = torch.exp(-(((distances[..., None] - self.centres) / step) ** 2)) * smooth[..., None]
        others = kinds.gather(1, flat[..., None].expand(-1, -1, kinds.shape[2])).reshape(n, atoms, width, -1)
        return torch.einsum("nawr,nawe->naer", waves, others).reshape(n, atoms, -1)


def energies_and_forces(model: Potential, tensors: tuple[Tensor, ...], *, training: bool) -> tuple[Tensor, Tensor]:
    """Compute energies (n,), eV, and forces (n, atoms, 3), eV/Å."""
    species, positions, indices, vectors = tensors
    with torch.enable_grad():
        moved = positions.detach().requires_grad_()
        energies = model(species, moved, indices, vectors)
        (gradient,) = torch.autograd.grad(energies.sum(), moved, create_graph=training)
    return energies, -gradient


class PotentialTask:
    """Training of a potential on structures.

    Parameters
    ----------
    spec, seed : specification of the potential, and seed of its initial weights.
    counts : number of structures in each block of the store.

    """

    terms: tuple[str, ...] = ("energy", "forces")

    def __init__(self, spec: PotentialSpec, seed: int, counts: list[int]) -> None:
        torch.manual_seed(seed)
        self.model = Potential(spec)
        self.network = spec.to_dict()
        self.fields = FIELDS
        self._spec, self._counts = spec, counts

    def samples(self, block: int) -> int:
        """Return the number of structures in a block."""
        return self._counts[block]

    def prepare(self, rows: Mapping[str, NDArray[Any]]) -> tuple[Tensor, ...]:
        """Prepare structures with their neighbours, and their labels; drop rows without atoms."""
        real = rows["species"].any(axis=1)
        rows = {name: values[real] for name, values in rows.items()}
        dtype = next(self.model.parameters()).dtype
        inputs = tensors_of(rows, self._spec.cutoff, self._spec.neighbours, dtype)
        return *inputs, torch.tensor(rows["energy"], dtype=torch.float64), torch.tensor(rows["forces"], dtype=dtype)

    def losses(self, tensors: tuple[Tensor, ...]) -> Tensor:
        """Sum the squared errors of energy per atom and of forces over structures, in units of their scales."""
        *inputs, energy, forces = tensors
        training = torch.is_grad_enabled()
        found, pulled = energies_and_forces(self.model, tuple(inputs), training=training)
        atoms = (inputs[0] > 0).sum(1)
        wrong = (found - energy.to(found.dtype)) / atoms / self._spec.energy_scale
        pull = ((pulled - forces) / self._spec.force_scale) ** 2
        losses = torch.stack([(wrong**2).sum(), (pull.sum((1, 2)) / (3 * atoms)).sum()])
        return losses if training else losses.detach()


def tensors_of(
    rows: Mapping[str, NDArray[Any]], cutoff: float, width: int | None, dtype: torch.dtype
) -> tuple[Tensor, ...]:
    """Convert structures to the inputs of `Potential`: species, positions and neighbours.

    Parameters
    ----------
    rows : columns, see `FIELDS`; structures along the first axis, padded to the largest.
    cutoff : Å.
    width : largest number of neighbours; taken from the structures if not given.
    dtype : of positions and vectors.

    """
    species = np.asarray(rows["species"])
    counts = (species > 0).sum(axis=1)
    geometry = zip(rows["coordinates"], rows["cell"], rows["pbc"], counts, strict=True)
    found = [neighbours(positions[:n], cell, pbc, cutoff) for positions, cell, pbc, n in geometry]
    room = max(map(max_neighbours, found), default=0) if width is None else width
    indices = np.full((*species.shape, room), -1, dtype=np.int64)
    vectors = np.zeros((*species.shape, room, 3))
    for row, atoms in enumerate(counts.tolist()):
        indices[row, :atoms], vectors[row, :atoms] = padded(found[row], atoms, room)
    positions, shifts = torch.tensor(rows["coordinates"], dtype=dtype), torch.tensor(vectors, dtype=dtype)
    return torch.tensor(species.astype(np.int64)), positions, torch.tensor(indices), shifts


def checksum(model: Potential) -> int:
    """Compute the CRC-32 of the weights."""
    value = 0
    for parameter in model.parameters():
        value = zlib.crc32(parameter.detach().numpy().tobytes(), value)
    return value


def predict(
    models: Sequence[Potential], rows: Mapping[str, NDArray[Any]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Predict energies (members, n), eV, and forces (members, n, atoms, 3), eV/Å; one cutoff for all."""
    inputs = tensors_of(rows, models[0].spec.cutoff, None, next(models[0].parameters()).dtype)
    with one_thread():
        found = [energies_and_forces(model, inputs, training=False) for model in models]
    energies, forces = (
        np.stack([part.detach().numpy().astype(float) for part in parts]) for parts in zip(*found, strict=True)
    )
    return energies, forces
