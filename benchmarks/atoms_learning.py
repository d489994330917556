"""Compare active learning with random selection: test errors at equal numbers of training structures.

For every seed, an ensemble is trained on a few random structures. Each iteration then adds the structures for which the
ensemble disagrees most on the forces, or equally many random ones. The table shows the mean and the standard deviation
of the errors over the seeds; `--output` also draws them.
"""

import argparse
import dataclasses
import tempfile
from pathlib import Path

import harness
import numpy as np

from scimill.atoms.database.admission import Admission
from scimill.atoms.database.database import Database
from scimill.atoms.demo import write_demo
from scimill.atoms.exchange.ingest import import_files
from scimill.atoms.exchange.properties import Properties
from scimill.atoms.learning.train import train_ensemble
from scimill.atoms.params import AtomsTrainConfig
from scimill.atoms.pictures import plots
from scimill.config import Layer, build
from scimill.parallel.world import World, world
from scimill.training.directory import RunDirectory

OPTIONS = (
    harness.Option("seeds", 5, 1, "repetitions, each with its own random numbers"),
    harness.Option("iterations", 4, 1, "how often structures are added"),
    harness.Option("count", 300, 90, "structures; a third is test data"),
    harness.Option("added", 12, 8, "structures per iteration"),
    harness.Option("members", 2, 2, "networks per ensemble"),
    harness.Option("epochs", 60, 5, "epochs of each training"),
    harness.Option("output", None, None, "directory for the picture"),
)
FIRST = 16  # structures of iteration 0
PROCEDURES = {
    # name of the reductions: how they are updated
    "active": {"procedure": "highest", "score": "deviation"},
    "random": {"procedure": "random", "score": "deviation", "threshold": 0.0},
}


def train(database: Database, reduction: str, iteration: int, run: Path, arguments: argparse.Namespace) -> None:
    values = {"reduction": reduction, "iteration": iteration, "members": arguments.members, "epochs": arguments.epochs}
    config = build(AtomsTrainConfig, [Layer("benchmark", {**values, "validation_share": 0.0})])
    train_ensemble(config, database, RunDirectory(run), World(None))


def learn(database: Database, kind: str, seed: int, folder: Path, arguments: argparse.Namespace) -> list[Path]:
    """Run a reduction through its iterations; return the runs."""
    name, runs = f"{kind}-{seed}", []
    database.create_reduction(name, number=FIRST, seed=seed)
    for iteration in range(arguments.iterations + 1):
        runs.append(folder / f"{name}-{iteration}")
        train(database, name, iteration, runs[-1], arguments)
        if iteration < arguments.iterations:
            found = database.evaluate_unused_data(runs[-1], name)
            left = sum(len(values["rows"]) for values in found.predicted.values())
            share = arguments.added / left
            database.update_data_reductions(name, found.predicted, found.true, share, seed=seed, **PROCEDURES[kind])
    return runs


def goals(points: list[plots.Point], last: int) -> list[harness.Goal]:
    """Compare errors of active learning with those of random selection after the last iteration; at most equal."""

    def error(kind: str, quantity: str) -> float:
        return float(np.mean([getattr(p, quantity) for p in points if (p.kind, p.iteration) == (kind, last)]))

    ratios = {quantity: error("active", quantity) / error("random", quantity) for quantity in ("energy", "forces")}
    return [harness.Goal(f"{quantity} error, active / random", ratio, most=1) for quantity, ratio in ratios.items()]


def main() -> int:
    arguments = harness.parse(__doc__, *OPTIONS)
    world()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_demo(folder / "metals.xyz", arguments.count, seed=1)
        with Database(folder / "db", write=True, admission=Admission(test_fraction=1 / 3)) as database:
            import_files(database, [folder / "metals.xyz"], Properties())
            database.compress_dataset()
            runs = [
                run
                for kind in PROCEDURES
                for seed in range(1, arguments.seeds + 1)
                for run in learn(database, kind, seed, folder, arguments)
            ]
            points = plots.learning_curve(database, runs)
        print(plots.describe_points(points))
        if arguments.output:
            print(plots.plot_learning(points, arguments.output))
    found = [dataclasses.asdict(point) for point in points]
    return harness.conclude(goals(points, arguments.iterations), {"points": found}, arguments.json)


if __name__ == "__main__":
    raise SystemExit(main())
