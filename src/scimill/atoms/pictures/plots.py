"""Pictures of active learning: test errors of ensembles against the number of training structures."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from scimill import config as configuration
from scimill.atoms.database.batch import Columns
from scimill.atoms.database.database import Database
from scimill.atoms.kernels.composition import species_of
from scimill.atoms.learning.network import Potential, predict
from scimill.atoms.learning.potentials import load_ensemble
from scimill.atoms.learning.train import DATA, member_folder, read_structures
from scimill.errors import InputError
from scimill.pictures import SIZE, STYLE, make_folder, save
from scimill.store.reader import Reader

COLORS = ("#d1495b", "#31688e", "#66a182", "#edae49")
PANELS = (("energy", "energy RMSE (meV/atom)"), ("forces", "force RMSE (meV/Å)"))


@dataclass(frozen=True)
class Point:
    """Test errors of one ensemble.

    Parameters
    ----------
    kind : name of its reduction without the number at the end, such as "active" for "active-3".
    iteration : of the reduction.
    trained : number of structures that it was trained on.
    energy, forces : root mean square errors on the test data, meV/atom and meV/Å.

    """

    kind: str
    iteration: int
    trained: int
    energy: float
    forces: float


def learning_curve(database: Database, runs: Sequence[Path]) -> list[Point]:
    """Compute the test errors of runs of ``scimill atoms train``.

    Raises
    ------
    InputError : there are no test data, or a path is not such a run.

    """
    blocks = list(database.select(None, select="test").blocks(["coordinates", "cell", "pbc", "energy", "forces"]))
    if not blocks:
        raise InputError(
            "the database has no test data", where=str(database.path), remedy="import structures with --test-fraction"
        )
    return [_point(database, run, blocks) for run in runs]


def _point(database: Database, run: Path, blocks: list[tuple[str, Columns]]) -> Point:
    models = load_ensemble(run)
    values = configuration.read_yaml(member_folder(run, 0) / "config.yaml").values
    reduction, iteration = values.get("reduction"), values.get("iteration")
    if iteration is None:
        iteration = database.reductions.iterations(str(reduction))[-1] if reduction else 0
    with Reader.open(run / DATA) as reader:
        trained = int(read_structures(reader)["species"].any(axis=1).sum())
    energy, forces = (
        np.array([_squared_errors(models, group, columns) for group, columns in blocks]).sum(axis=0).reshape(2, 2)
    )
    errors = (1e3 * float(np.sqrt(total / count)) for total, count in (energy, forces))
    return Point(re.sub(r"[-_]?\d+$", "", str(reduction)), int(iteration), trained, *errors)


def _squared_errors(models: list[Potential], group: str, columns: Columns) -> list[float]:
    """Return the sum and number of squared errors, of energies per atom and of force components."""
    species = species_of(group)
    rows = {**columns, "species": np.tile(species, (len(columns["energy"]), 1))}
    energies, forces = predict(models, rows)
    energy = (energies.mean(axis=0) - columns["energy"]) / len(species)
    force = forces.mean(axis=0) - columns["forces"]
    energy, force = energy[np.isfinite(energy)], force[np.isfinite(force)]
    return [float((energy**2).sum()), len(energy), float((force**2).sum()), len(force)]


def plot_learning(points: Sequence[Point], folder: Path) -> Path:
    """Draw learning.png: mean errors of each kind of reduction, with their standard deviation.

    Raises
    ------
    StorageError : the picture cannot be written.

    """
    make_folder(folder)
    with mpl.rc_context(STYLE):
        save(draw_learning(points), folder / "learning.png")
    return folder / "learning.png"


def draw_learning(points: Sequence[Point]) -> Figure:
    """Draw the figure: one panel for energies, one for forces."""
    figure = Figure(SIZE)
    panels: Any = figure.subplots(1, 2)
    kinds = sorted({point.kind for point in points})
    for axes, (name, label) in zip(panels, PANELS, strict=True):
        for number, kind in enumerate(kinds):
            trained, means, spreads = average_by_iteration([point for point in points if point.kind == kind], name)
            color = COLORS[number % len(COLORS)]
            axes.errorbar(trained, means, spreads, color=color, marker="o", capsize=4, label=kind)
        axes.set(xlabel="training structures", ylabel=label)
        axes.set_ylim(bottom=0)
    panels[0].legend()
    figure.suptitle("Test errors (bars: standard deviation over reductions)")
    return figure


def average_by_iteration(points: Sequence[Point], name: str) -> tuple[list[float], list[float], list[float]]:
    """Return, by iteration, the training structures and the mean and standard deviation of an error."""
    by_iteration = [[p for p in points if p.iteration == k] for k in sorted({p.iteration for p in points})]
    errors = [[getattr(point, name) for point in some] for some in by_iteration]
    trained = [float(np.mean([point.trained for point in some])) for some in by_iteration]
    return trained, [float(np.mean(e)) for e in errors], [float(np.std(e)) for e in errors]


def describe_points(points: Sequence[Point]) -> str:
    """Describe the errors, one line per kind and iteration."""
    lines = [f"{'reduction':12} {'iteration':>9} {'structures':>10} " + " ".join(f"{label:>22}" for _, label in PANELS)]
    for kind in sorted({point.kind for point in points}):
        mine = [point for point in points if point.kind == kind]
        iterations = sorted({point.iteration for point in mine})
        columns = [average_by_iteration(mine, name) for name, _ in PANELS]
        for row, iteration in enumerate(iterations):
            errors = " ".join(f"{f'{means[row]:.1f} ± {spreads[row]:.1f}':>22}" for _, means, spreads in columns)
            lines.append(f"{kind:12} {iteration:>9} {columns[0][0][row]:>10.0f} {errors}")
    return "\n".join(lines)
