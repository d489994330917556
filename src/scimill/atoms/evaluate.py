"""Evaluate structures with ASE calculators: ranks share the blocks, and save each when it is done.

The predictions are stored beside their reduction, one file per block, until the next update. The name of a block
contains a checksum of the ids of its structures, so a run that was stopped or killed continues on any number of ranks.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from scimill.atoms.calculators import Committee
from scimill.atoms.database.batch import Columns
from scimill.atoms.database.reductions import Reductions, Select, selected
from scimill.atoms.database.snapshot import COMPRESSED, Snapshot
from scimill.atoms.exchange.serial_ase import compute_labels
from scimill.atoms.kernels import scores
from scimill.atoms.kernels.composition import species_of
from scimill.errors import InputError, Stopped
from scimill.files import replacing, storage_errors
from scimill.parallel.partition import share
from scimill.parallel.report import Progress, describe_count
from scimill.parallel.world import Stop, World
from scimill.store.checksums import crc32c

PREDICTIONS, ABOUT = "predictions", "about.json"
BLOCKS = 512  # approximate number of blocks: enough to balance the load, not too many files
FEWEST_ATOMS, MOST_ATOMS = 256, 16384  # of a block
DONE, FAILED = 0, 1
"""Status of a structure: evaluated, or the calculator failed."""

Arrays = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class EvaluationBlock:
    """Structures of one group to evaluate together."""

    group: str
    rows: NDArray[np.int64]
    name: str

    @property
    def atoms(self) -> int:
        """Atoms of one structure."""
        return len(species_of(self.group))


def make_blocks(snapshot: Snapshot, name: str, iteration: int | None, select: Select) -> list[EvaluationBlock]:
    """Divide the selected structures into blocks, largest structures first to balance the load."""
    reduction = Reductions(snapshot.folder).load(name, iteration, snapshot.groups)
    rows = selected(snapshot, reduction, select)
    total = sum(len(mine) * len(species_of(group)) for group, mine in rows.items())
    atoms = min(max(total // BLOCKS, FEWEST_ATOMS), MOST_ATOMS)
    made = []
    for group, mine in rows.items():
        ids = snapshot.rows(group, names=["uid"])["uid"]
        size = max(1, atoms // len(species_of(group)))
        for first in range(0, len(mine), size):
            part = mine[first : first + size]
            made.append(EvaluationBlock(group, part, f"{group}-{part[0]:09d}-{crc32c(ids[part].tobytes()):08x}.npy"))
    return sorted(made, key=lambda block: (-block.atoms, block.name))


def evaluate(
    snapshot: Snapshot, name: str, calculators: Committee, *, select: Select, world: World, stop: Stop | None
) -> None:
    """Evaluate the structures that the newest iteration of a reduction selects; collective.

    Raises
    ------
    Stopped : on a signal or before the walltime; finished blocks are kept.

    """
    reductions = Reductions(snapshot.folder)
    with reductions.lock(name, world) as folder:
        iteration = world.on_root(lambda: reductions.iterations(name)[-1])
        with world.together():
            made = [make() for make in calculators.makers]
        known = [calculators.fingerprint, *(str(getattr(calculator, "fingerprint", "")) for calculator in made)]
        about = {"iteration": iteration, "calculators": known, "select": select}
        world.on_root(_prepare, folder / PREDICTIONS, about)
        blocks = world.on_root(make_blocks, snapshot, name, iteration, select)
        left = world.on_root(lambda: [block for block in blocks if _read(folder / PREDICTIONS, block) is None])
        _evaluate_all(snapshot, folder / PREDICTIONS, left, made, world, stop)


def _prepare(folder: Path, about: Mapping[str, Any]) -> None:
    """Keep existing predictions only if they have the same calculator, iteration and selection."""
    with storage_errors(folder, "evaluating"):
        if (folder / ABOUT).exists() and json.loads((folder / ABOUT).read_text("utf-8")) == about:
            return
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    with replacing(folder / ABOUT, "description of the predictions") as part:
        part.write_text(json.dumps(about), "utf-8")


def _evaluate_all(
    snapshot: Snapshot,
    folder: Path,
    blocks: list[EvaluationBlock],
    calculators: list[Any],
    world: World,
    stop: Stop | None,
) -> None:
    total = sum(len(block.rows) for block in blocks)
    progress = Progress(total, unit="structures", what="evaluate", enabled=world.is_root)
    done = 0
    for number in share(np.arange(len(blocks)), world.rank, world.size).tolist():
        if stop and stop.requested():
            break
        evaluate_block(snapshot, folder, blocks[number], calculators)
        done += len(blocks[number].rows)
        if progress.due():
            progress.update(min(done * world.size, total))
    reason = stop.finish() if stop else ""
    world.barrier()
    progress.close()
    if reason:
        world.fail(Stopped(f"stopped by {reason}; finished blocks are kept", remedy="run the same command again"))


def evaluate_block(snapshot: Snapshot, folder: Path, block: EvaluationBlock, calculators: list[Any]) -> None:
    """Evaluate a block and save the result."""
    first, stop = int(block.rows[0]), int(block.rows[-1]) + 1
    geometry = snapshot.rows(block.group, first, stop, ["coordinates", "cell", "pbc"])
    geometry = {name: values[block.rows - first] for name, values in geometry.items()}
    found = predict(species_of(block.group), geometry, calculators)
    path = folder / block.name
    with storage_errors(path, "saving predictions"):  # not synced: a block lost in a crash is evaluated again
        part = path.with_name(path.name + ".part")
        with part.open("wb") as file:
            np.save(file, found)
        part.replace(path)


def _read(folder: Path, block: EvaluationBlock) -> NDArray[Any] | None:
    """Read the predictions of a block; None if they are missing or incomplete."""
    try:
        found = np.load(folder / block.name)
    except (OSError, ValueError, EOFError):
        return None
    return found if len(found) == len(block.rows) else None


@runtime_checkable
class BatchCalculator(Protocol):
    """A committee that evaluates many structures at once, instead of single calculators."""

    def predict_records(self, species: NDArray[np.uint8], geometry: Columns) -> NDArray[Any]:
        """Predict energies and forces with every member, see `make_records`."""


def make_records(rows: int, members: int, atoms: int) -> NDArray[Any]:
    """Make empty predictions.

    Returns
    -------
    Records, shape (rows,): ``energy`` (members,), eV; ``forces`` (members, atoms, 3), eV/Å; ``status``; ``message``,
    the error of a calculator that failed.

    """
    kind = [("energy", "f8", (members,)), ("forces", "f8", (members, atoms, 3)), ("status", "u1"), ("message", "U200")]
    return np.zeros(rows, dtype=kind)


def record_failure(found: NDArray[Any], row: int, error: Exception) -> None:
    """Record that a calculator failed on a structure, and set its predictions to NaN."""
    found["status"][row], found["message"][row] = FAILED, f"{type(error).__name__}: {error}"
    found["energy"][row], found["forces"][row] = np.nan, np.nan


def not_finite_error() -> ArithmeticError:
    """Make the error for a calculator that raised nothing but gave NaN or infinity."""
    return ArithmeticError("the result is not finite")


def predict(species: NDArray[np.uint8], geometry: Columns, calculators: list[Any]) -> NDArray[Any]:
    """Predict energies and forces with every calculator, see `make_records`; record failures."""
    if len(calculators) == 1 and isinstance(calculators[0], BatchCalculator):
        return calculators[0].predict_records(species, geometry)
    positions = geometry["coordinates"]
    rows, atoms = positions.shape[:2]
    found = make_records(rows, len(calculators), atoms)
    for row in range(rows):
        energy, forces = found["energy"][row], found["forces"][row]
        try:
            for member, calculator in enumerate(calculators):
                energy[member], forces[member] = compute_labels(
                    species, positions[row], geometry["cell"][row], geometry["pbc"][row], calculator
                )
            if not (np.isfinite(energy).all() and np.isfinite(forces).all()):
                raise not_finite_error()
        except Exception as error:  # a calculator may raise anything; continue with the other structures
            record_failure(found, row, error)
    return found


# ---- reading ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Predictions:
    """Predictions and true values side by side, by group.

    Parameters
    ----------
    predicted : ``energy`` (rows,), ``forces`` (rows, atoms, 3), ``deviation`` (rows,): see `scores.force_deviation`, 0
        for one calculator; ``status``, ``rows``, ``uid``, ``path``, and their ``iteration``.
    true : ``energy`` and ``forces``; NaN where the database has none.
    messages : errors of the calculators that failed.

    """

    predicted: Arrays
    true: Arrays
    messages: tuple[str, ...]

    @property
    def failed(self) -> int:
        """Number of structures on which a calculator failed."""
        return sum(int((values["status"] == FAILED).sum()) for values in self.predicted.values())


def load(snapshot: Snapshot, name: str, world: World) -> Predictions:
    """Read the predictions of a reduction; collective.

    Rank 0 reads for all ranks, because an update that rank 0 starts afterwards removes the predictions.

    Raises
    ------
    InputError : predictions of the newest iteration are missing or incomplete.

    """
    folder = world.on_root(Reductions(snapshot.folder).folder, name) / PREDICTIONS
    newest, blocks = world.on_root(_evaluated_blocks, snapshot, name, folder)
    read = [(block.name, world.on_root(_read, folder, block)) for block in blocks]
    known = {name: values for name, values in read if values is not None}
    if len(known) < len(blocks):
        world.fail(InputError(
            f"not evaluated yet: {len(blocks) - len(known)} of {describe_count(len(blocks), 'block')} of {name!r}",
            where=str(folder),
            remedy="rerun the evaluation: it resumes where it stopped",
        ))  # fmt: skip
    predicted: Arrays = {}
    true: Arrays = {}
    messages: list[str] = []
    for group in sorted({block.group for block in blocks}):
        mine = sorted((b for b in blocks if b.group == group), key=lambda b: int(b.rows[0]))
        predicted[group] = average_committee(np.concatenate([known[block.name] for block in mine]))
        predicted[group]["rows"] = np.concatenate([block.rows for block in mine])
        messages += [text for block in mine for text in known[block.name]["message"].tolist() if text]
        stored = snapshot.rows(group, names=["uid", "energy", "forces"])
        rows = predicted[group]["rows"]
        predicted[group] |= {"uid": stored["uid"][rows], "iteration": newest}
        predicted[group]["path"] = [f"{COMPRESSED}/{group}/{row}" for row in rows.tolist()]
        true[group] = {key: stored[key][rows] for key in ("energy", "forces")}
    return Predictions(predicted, true, tuple(messages))


def _evaluated_blocks(snapshot: Snapshot, name: str, folder: Path) -> tuple[int, list[EvaluationBlock]]:
    """Return the newest iteration and its selected blocks; raise if it was not evaluated."""
    newest = Reductions(snapshot.folder).iterations(name)[-1]
    about = json.loads((folder / ABOUT).read_text("utf-8")) if (folder / ABOUT).exists() else {}
    if about.get("iteration") != newest:
        raise InputError(
            f"iteration {newest} of {name!r} has not been evaluated", where=str(folder), remedy="evaluate it first"
        )
    return newest, make_blocks(snapshot, name, newest, about["select"])


def average_committee(found: NDArray[Any]) -> dict[str, Any]:
    """Average the predictions of a group over the committee, and compute its deviation."""
    forces = found["forces"]
    return {
        "energy": found["energy"].mean(axis=1), "forces": forces.mean(axis=1), "status": found["status"],
        "deviation": scores.force_deviation(np.moveaxis(forces, 1, 0)),
    }  # fmt: skip


def describe_predictions(found: Predictions) -> str:
    """Describe how many structures were evaluated, how many failed, and their root mean square errors."""
    rows = sum(len(values["rows"]) for values in found.predicted.values())
    text = f"{describe_count(rows, 'structure')} evaluated, {found.failed:,} failed"
    energies = [(found.predicted[g]["energy"] - found.true[g]["energy"]) / len(species_of(g)) for g in found.predicted]
    forces = [(found.predicted[g]["forces"] - found.true[g]["forces"]).reshape(-1) for g in found.predicted]
    for name, unit, errors in (("energies", "meV/atom", energies), ("forces", "meV/Å", forces)):
        known = np.concatenate([np.zeros(0), *errors])
        known = known[np.isfinite(known)]
        if len(known):
            text += f"; RMSE of {name} {1e3 * np.sqrt((known**2).mean()):.4g} {unit}"
    return text
