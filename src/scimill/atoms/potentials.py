"""Trained ensembles as a calculator of ASE."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scimill.atoms import scores
from scimill.atoms.neighbours import most, neighbours
from scimill.atoms.network import CAMPAIGN, Potential, Spec, checksum, predict
from scimill.atoms.serial_ase import Calculator, all_changes
from scimill.errors import InputError
from scimill.training.checkpoint import MODEL, read_model


def load_ensemble(run: Path) -> list[Potential]:
    """Read the members of a run of ``scimill atoms train``.

    Raises
    ------
    InputError : no such run, damaged, or of another campaign.

    """
    files = sorted(run.glob(f"member-*/{MODEL}"))
    if not files:
        raise InputError("no trained potentials", where=str(run), allowed="a run of scimill atoms train")
    return [_load(file) for file in files]


def _load(file: Path) -> Potential:
    _, content = read_model(file, CAMPAIGN)
    model = Potential(Spec.from_dict(content["network"]))
    model.load_state_dict(content["state"])
    return model.double().eval()


class EnsembleCalculator(Calculator):
    """The mean of an ensemble; its largest deviation of a force (eV/Å) is the result ``deviation``.

    Parameters
    ----------
    run : directory of ``scimill atoms train``.
    members : which of its members; all if not given.

    """

    implemented_properties = ["energy", "forces", "deviation"]  # noqa: RUF012  (as ASE has it)

    def __init__(self, run: str | Path, members: Sequence[int] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        models = load_ensemble(Path(run))
        self._models = models if members is None else [models[member] for member in members]
        self.fingerprint = "-".join(f"{checksum(model):08x}" for model in self._models)
        """changes with the weights"""

    def calculate(
        self, atoms: Any = None, properties: Sequence[str] = ("energy",), system_changes: Any = all_changes
    ) -> None:
        """Compute energy, forces and deviation."""
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        cutoff = self._models[0].spec.cutoff
        geometry = (np.asarray(atoms.positions), np.asarray(atoms.cell), np.asarray(atoms.pbc))
        width = most(neighbours(*geometry, cutoff))
        names = ("coordinates", "cell", "pbc")
        rows = {"species": atoms.numbers[None], **{n: v[None] for n, v in zip(names, geometry, strict=True)}}
        unknown = set(atoms.numbers.tolist()) - set(self._models[0].spec.elements)
        if unknown:
            raise ValueError(f"the potential was not trained on elements {sorted(unknown)}")
        found = [predict(model, rows, width) for model in self._models]
        forces = np.array([pulled for _, pulled in found])
        self.results = {
            "energy": float(np.mean([energies[0] for energies, _ in found])),
            "forces": forces.mean(axis=0)[0],
            "deviation": float(scores.force_deviation(forces)[0]),
        }


def members_of(run: str | Path) -> list[EnsembleCalculator]:
    """Each member of an ensemble as a calculator: a committee for `Database.ase_evaluate_unused_data`."""
    return [EnsembleCalculator(run, [member]) for member in range(len(load_ensemble(Path(run))))]
