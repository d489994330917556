"""Evaluating structures with ASE's calculators: blocks to ranks, each kept as soon as it is done.

The predictions lie beside their reduction, one file per block, until the next update. A block is known by the ids of
its structures, so that a run which was stopped or killed goes on where it was, on any number of ranks.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from scimill.atoms import scores
from scimill.atoms.batch import Columns
from scimill.atoms.calculators import Committee
from scimill.atoms.composition import species_of
from scimill.atoms.reductions import Reductions, Select, selected
from scimill.atoms.serial_ase import labelled
from scimill.atoms.snapshot import COMPRESSED, Snapshot
from scimill.errors import InputError, Stopped
from scimill.files import replacing, storage_errors
from scimill.parallel.partition import share
from scimill.parallel.report import Progress
from scimill.parallel.world import Stop, World

PREDICTIONS, ABOUT = "predictions", "about.json"
BLOCKS = 512  # about so many blocks there are: enough for an even load, few enough for a file system
FEWEST_ATOMS, MOST_ATOMS = 32, 16384  # of a block
DONE, FAILED = 0, 1
"""Status of a structure: evaluated, or the calculator has failed."""

Arrays = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Block:
    """Structures of one group that are evaluated together."""

    group: str
    rows: NDArray[np.int64]
    name: str

    @property
    def atoms(self) -> int:
        """Atoms of one structure."""
        return len(species_of(self.group))


def blocks_of(snapshot: Snapshot, name: str, iteration: int | None, select: Select) -> list[Block]:
    """Blocks of the structures that a reduction selects, the largest structures first, so that the load evens out."""
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
            made.append(Block(group, part, f"{group}-{part[0]:09d}-{crc32c(ids[part].tobytes()):08x}.npz"))
    return sorted(made, key=lambda block: (-block.atoms, block.name))


def evaluate(
    snapshot: Snapshot, name: str, calculators: Committee, *, select: Select, world: World, stop: Stop | None
) -> None:
    """Evaluate the structures that the newest iteration of a reduction selects; collective.

    Raises
    ------
    Stopped : on a signal or before the walltime; what is done is kept.

    """
    reductions = Reductions(snapshot.folder)
    with reductions.held(name, world) as folder:
        iteration = world.on_root(lambda: reductions.iterations(name)[-1])
        about = {"iteration": iteration, "calculators": calculators.fingerprint, "select": select}
        world.on_root(_prepare, folder / PREDICTIONS, about)
        blocks = world.on_root(blocks_of, snapshot, name, iteration, select)
        left = world.on_root(lambda: [b for b in blocks if not (folder / PREDICTIONS / b.name).exists()])
        with world.together():
            made = [make() for make in calculators.makers]
        _evaluate_all(snapshot, folder / PREDICTIONS, left, made, world, stop)


def _prepare(folder: Path, about: Mapping[str, Any]) -> None:
    """Keep the predictions that are there only if they are of the same calculator, iteration and selection."""
    with storage_errors(folder, "evaluating"):
        if (folder / ABOUT).exists() and json.loads((folder / ABOUT).read_text("utf-8")) == about:
            return
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    with replacing(folder / ABOUT, "description of the predictions") as part:
        part.write_text(json.dumps(about), "utf-8")


def _evaluate_all(
    snapshot: Snapshot, folder: Path, blocks: list[Block], calculators: list[Any], world: World, stop: Stop | None
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
        world.fail(Stopped(f"stopped by {reason}; what is evaluated is kept", remedy="run the same command again"))


def evaluate_block(snapshot: Snapshot, folder: Path, block: Block, calculators: list[Any]) -> None:
    """Evaluate a block and keep the result."""
    first, stop = int(block.rows[0]), int(block.rows[-1]) + 1
    geometry = snapshot.rows(block.group, first, stop, ["coordinates", "cell", "pbc"])
    geometry = {name: values[block.rows - first] for name, values in geometry.items()}
    energies, forces, status, messages = predict(species_of(block.group), geometry, calculators)
    with replacing(folder / block.name, "predictions") as part, part.open("wb") as file:
        np.savez(file, energy=energies, forces=forces, status=status, messages=np.array(messages, dtype=str))


def predict(
    species: NDArray[np.uint8], geometry: Columns, calculators: list[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.uint8], list[str]]:
    """Energies and forces of structures by every calculator; a structure with which one fails is NaN and told.

    Returns
    -------
    Energies (members, rows), eV; forces (members, rows, atoms, 3), eV/Å; status (rows,); what calculators said, one
    text per failed structure.

    """
    positions = geometry["coordinates"]
    rows, atoms = positions.shape[:2]
    energies = np.full((len(calculators), rows), np.nan)
    forces = np.full((len(calculators), rows, atoms, 3), np.nan)
    status, messages = np.zeros(rows, dtype=np.uint8), []
    for row in range(rows):
        try:
            for member, calculator in enumerate(calculators):
                found = labelled(species, positions[row], geometry["cell"][row], geometry["pbc"][row], calculator)
                energies[member, row], forces[member, row] = found
            if not (np.isfinite(energies[:, row]).all() and np.isfinite(forces[:, row]).all()):
                raise ArithmeticError("the result is not finite")
        except Exception as error:  # a calculator may raise anything; the other structures go on
            status[row] = FAILED
            energies[:, row], forces[:, row] = np.nan, np.nan
            messages.append(f"{type(error).__name__}: {error}"[:200])
    return energies, forces, status, messages


# ---- reading ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Predictions:
    """Predictions and true values side by side, by group.

    Parameters
    ----------
    predicted : ``energy`` (rows,), ``forces`` (rows, atoms, 3), ``deviation`` (rows,): see `scores.force_deviation`, 0
        for one calculator; ``status``, ``rows``, ``uid``, ``path``, and the ``iteration`` that they belong to.
    true : ``energy`` and ``forces``; NaN where the database has none.
    messages : what calculators said of structures with which they failed.

    """

    predicted: Arrays
    true: Arrays
    messages: tuple[str, ...]

    @property
    def failed(self) -> int:
        """Number of structures with which a calculator has failed."""
        return sum(int((values["status"] == FAILED).sum()) for values in self.predicted.values())


def load(snapshot: Snapshot, name: str) -> tuple[Predictions, str]:
    """Read the predictions of a reduction; return them and what they were selected by.

    Raises
    ------
    InputError : there are none of its newest iteration, or not all.

    """
    reductions = Reductions(snapshot.folder)
    folder, newest = reductions.folder(name) / PREDICTIONS, reductions.iterations(name)[-1]
    about = json.loads((folder / ABOUT).read_text("utf-8")) if (folder / ABOUT).exists() else {}
    if about.get("iteration") != newest:
        raise InputError(
            f"iteration {newest} of {name!r} is not evaluated", where=str(folder), remedy="evaluate it first"
        )
    blocks = blocks_of(snapshot, name, newest, about["select"])
    missing = sum(not (folder / block.name).exists() for block in blocks)
    if missing:
        raise InputError(
            f"{missing} of {len(blocks)} blocks of {name!r} are not evaluated", where=str(folder),
            remedy="run the evaluation again: it goes on where it was",
        )  # fmt: skip
    predicted: Arrays = {}
    true: Arrays = {}
    messages: list[str] = []
    for group in sorted({block.group for block in blocks}):
        mine = sorted((b for b in blocks if b.group == group), key=lambda b: int(b.rows[0]))
        predicted[group], said = _joined(folder, mine)
        messages += said
        stored = snapshot.rows(group, names=["uid", "energy", "forces"])
        rows = predicted[group]["rows"]
        predicted[group] |= {"uid": stored["uid"][rows], "iteration": newest}
        predicted[group]["path"] = [f"{COMPRESSED}/{group}/{row}" for row in rows.tolist()]
        true[group] = {key: stored[key][rows] for key in ("energy", "forces")}
    return Predictions(predicted, true, tuple(messages)), about["select"]


def _joined(folder: Path, blocks: list[Block]) -> tuple[dict[str, Any], list[str]]:
    """Predictions of a group: means over the committee, and its deviation."""
    parts, messages = [], []
    for block in blocks:
        with np.load(folder / block.name) as file:
            forces = file["forces"]
            parts.append(
                (file["energy"].mean(axis=0), forces.mean(axis=0), scores.force_deviation(forces), file["status"])
            )
            messages += file["messages"].tolist()
    names = ("energy", "forces", "deviation", "status")
    arrays: dict[str, Any] = {n: np.concatenate(p) for n, p in zip(names, zip(*parts, strict=True), strict=True)}
    return arrays | {"rows": np.concatenate([block.rows for block in blocks])}, messages


def summary(found: Predictions) -> str:
    """Say how many structures were evaluated, how many failed, and how wrong they are on average."""
    rows = sum(len(values["rows"]) for values in found.predicted.values())
    text = f"{rows:,} structures evaluated, {found.failed:,} failed"
    energies = [(found.predicted[g]["energy"] - found.true[g]["energy"]) / len(species_of(g)) for g in found.predicted]
    forces = [(found.predicted[g]["forces"] - found.true[g]["forces"]).reshape(-1) for g in found.predicted]
    for name, unit, errors in (("energies", "meV/atom", energies), ("forces", "meV/Å", forces)):
        known = np.concatenate([np.zeros(0), *errors])
        known = known[np.isfinite(known)]
        if len(known):
            text += f"; RMSE of {name} {1e3 * np.sqrt((known**2).mean()):.4g} {unit}"
    return text
