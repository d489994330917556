"""Trained ensembles: an ASE calculator, and a committee that evaluates many structures at once."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scimill.atoms import CAMPAIGN, evaluate
from scimill.atoms.database import caches
from scimill.atoms.database.batch import Columns
from scimill.atoms.evaluate import Arrays, Predictions
from scimill.atoms.exchange.serial_ase import Calculator, all_changes
from scimill.atoms.kernels import scores
from scimill.atoms.kernels.composition import species_of
from scimill.atoms.learning.network import Potential, PotentialSpec, checksum, predict
from scimill.errors import InputError
from scimill.parallel.partition import share
from scimill.parallel.world import World
from scimill.training.checkpoint import read_model
from scimill.training.files import MODEL

BATCH_ATOMS = 1024
"""Atoms to evaluate at once: enough for array operations to pay off, few enough for the processor's cache."""
SET_ATOMS = 16384  # atoms in the part of a cache that one rank evaluates at once


def load_ensemble(run: Path, members: Sequence[int] | None = None) -> list[Potential]:
    """Load all or some members of a run of ``scimill atoms train``.

    Raises
    ------
    InputError : the run is missing, damaged, or belongs to another campaign.

    """
    files = sorted(run.glob(f"member-*/{MODEL}"))
    if not files:
        raise InputError("no trained potentials found", where=str(run), allowed="a run of scimill atoms train")
    return [_load(file) for file in (files if members is None else [files[member] for member in members])]


def _load(file: Path) -> Potential:
    _, content = read_model(file, CAMPAIGN.name)
    model = Potential(PotentialSpec.from_dict(content["network"]))
    model.load_state_dict(content["state"])
    return model.double().eval()


def fingerprint(models: Sequence[Potential]) -> str:
    """Return a text that identifies the weights."""
    return "-".join(f"{checksum(model):08x}" for model in models)


def predict_formula(
    models: Sequence[Potential], species: NDArray[np.integer], geometry: Mapping[str, NDArray[Any]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Predict energies and forces of structures of one formula, see `network.predict`.

    Raises
    ------
    ValueError : an element that the potentials were not trained on.

    """
    unknown = set(species.tolist()) - set(models[0].spec.elements)
    if unknown:
        raise ValueError(f"the potential was not trained on elements {sorted(unknown)}")
    return predict(models, {**geometry, "species": np.tile(species, (len(geometry["coordinates"]), 1))})


class Ensemble:
    """A committee that evaluates many structures at once, with the same results as one by one.

    Parameters
    ----------
    run : run directory of ``scimill atoms train``.

    Raises
    ------
    InputError : the run is missing, damaged, or belongs to another campaign.

    """

    def __init__(self, run: str | Path) -> None:
        self._models = load_ensemble(Path(run))
        self.fingerprint = fingerprint(self._models)
        """changes with the weights"""

    def predict_records(self, species: NDArray[np.uint8], geometry: Columns) -> NDArray[Any]:
        """Predict energies and forces with every member, as `evaluate.predict` does."""
        rows, atoms = geometry["coordinates"].shape[:2]
        found = evaluate.make_records(rows, len(self._models), atoms)
        size = max(1, BATCH_ATOMS // atoms)
        for first in range(0, rows, size):
            part = slice(first, first + size)
            self._fill(found[part], species, {name: geometry[name][part] for name in ("coordinates", "cell", "pbc")})
        return found

    def _fill(self, found: NDArray[Any], species: NDArray[np.uint8], geometry: Columns) -> None:
        """Evaluate a batch; if that fails, evaluate one by one, so that only faulty structures fail."""
        try:
            energies, forces = predict_formula(self._models, species, geometry)
        except Exception as error:  # a cell without volume, an unknown element
            if len(found) == 1:
                evaluate.record_failure(found, 0, error)
                return
            for row in range(len(found)):
                one = slice(row, row + 1)
                self._fill(found[one], species, {name: values[one] for name, values in geometry.items()})
            return
        found["energy"], found["forces"] = energies.T, forces.swapaxes(0, 1)
        for row in np.flatnonzero(~(np.isfinite(energies).all(0) & np.isfinite(forces).all((0, 2, 3)))).tolist():
            evaluate.record_failure(found, row, evaluate.not_finite_error())


def evaluate_cache(run: str | Path, cache: str | Path, world: World | None = None) -> Predictions:
    """Evaluate a cache with an ensemble, without the database; collective.

    Parameters
    ----------
    run : run directory of ``scimill atoms train``.
    cache : made with format npy or npz, select "unused", train_fraction 1, valid_fraction 0, n_caches 1.
    world : the ranks that share the work; one if not given.

    Returns
    -------
    Predicted and true values side by side, as from `Database.ase_evaluate_unused_data`, for
    `Database.update_data_reductions`.

    Raises
    ------
    InputError : no such run or cache.

    """
    world = world or World(None)
    with world.together():
        ensemble = Ensemble(run)
        about, rows = caches.read_whole(Path(cache))
    spans = _spans(rows["path"])
    numbers = share(np.arange(len(spans)), world.rank, world.size).tolist()
    mine = {number: _evaluate_span(ensemble, rows, spans[number][1]) for number in numbers}
    found = {number: values for part in world.gather_all(mine) for number, values in part.items()}
    predicted: Arrays = {}
    true: Arrays = {}
    for group in sorted({group for group, _ in spans}):
        of_group = [number for number, span in enumerate(spans) if span[0] == group]
        places = np.concatenate([np.arange(len(rows["uid"]))[spans[number][1]] for number in of_group])
        joined = evaluate.average_committee(np.concatenate([found[number] for number in of_group]))
        predicted[group] = joined | {"iteration": about["iteration"]} | _locate(rows, places)
        atoms = joined["forces"].shape[1]
        true[group] = {"energy": rows["energy"][places], "forces": rows["forces"][places][:, :atoms]}
    messages = [text for number in sorted(found) for text in found[number]["message"].tolist() if text]
    return Predictions(predicted, true, tuple(messages))


def _evaluate_span(ensemble: Ensemble, rows: Mapping[str, NDArray[Any]], span: slice) -> NDArray[Any]:
    """Predict rows of one group, without their padding."""
    species = rows["species"][span.start]
    species = species[species > 0]
    geometry = {name: np.asarray(rows[name][span]) for name in ("coordinates", "cell", "pbc")}
    geometry["coordinates"] = geometry["coordinates"][:, : len(species)]
    return ensemble.predict_records(species, geometry)


def _locate(rows: Mapping[str, NDArray[Any]], places: NDArray[np.int64]) -> dict[str, Any]:
    """Return the ids, paths and row numbers in the database of some rows."""
    paths = [path.decode() for path in rows["path"][places].tolist()]
    numbers = np.array([int(path.rpartition("/")[2]) for path in paths], dtype=np.int64)
    return {"uid": rows["uid"][places], "path": paths, "rows": numbers}


def _spans(paths: NDArray[Any]) -> list[tuple[str, slice]]:
    """Divide rows into spans to evaluate together; each is in one group, which is named."""
    groups = np.array([path.split(b"/")[1].decode() for path in paths.tolist()])
    bounds = [0, *(np.flatnonzero(groups[1:] != groups[:-1]) + 1).tolist(), len(groups)]
    spans = []
    for begin, end in itertools.pairwise(bounds):
        size = max(1, SET_ATOMS // len(species_of(groups[begin])))
        spans += [(str(groups[begin]), slice(first, min(first + size, end))) for first in range(begin, end, size)]
    return spans


class EnsembleCalculator(Calculator):
    """The mean of an ensemble; the result ``deviation`` is its largest deviation of a force (eV/Å).

    Parameters
    ----------
    run : run directory of ``scimill atoms train``.
    members : numbers of the members to use; all if not given.

    """

    implemented_properties = ["energy", "forces", "deviation"]  # noqa: RUF012  (as in ASE)

    def __init__(self, run: str | Path, members: Sequence[int] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._models = load_ensemble(Path(run), members)
        self.fingerprint = fingerprint(self._models)
        """changes with the weights"""

    def calculate(
        self, atoms: Any = None, properties: Sequence[str] = ("energy",), system_changes: Any = all_changes
    ) -> None:
        """Compute energy, forces and deviation."""
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        geometry = {"coordinates": atoms.positions, "cell": atoms.cell, "pbc": atoms.pbc}
        rows = {name: np.asarray(values)[None] for name, values in geometry.items()}
        energies, forces = predict_formula(self._models, atoms.numbers, rows)
        self.results = {
            "energy": float(energies.mean()),
            "forces": forces.mean(axis=0)[0],
            "deviation": float(scores.force_deviation(forces)[0]),
        }


def members_of(run: str | Path) -> list[EnsembleCalculator]:
    """Load each member as a calculator: a committee for `Database.ase_evaluate_unused_data`."""
    return [EnsembleCalculator(run, [member]) for member in range(len(load_ensemble(Path(run))))]
