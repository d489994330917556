"""Active learning against random selection: errors on the test data at equal numbers of training structures.

    python benchmarks/atoms_learning.py [--seeds 5] [--iterations 4] [--count 300] [--output DIRECTORY]

For every seed an ensemble is trained on a few random structures; then, in turns, the structures on whose forces it
disagrees most are added, or as many random ones. It prints the errors, mean and standard deviation over the seeds, and
draws them. Some minutes.
"""

import argparse
import tempfile
from pathlib import Path

from scimill.atoms import Database
from scimill.atoms.database.admission import Admission
from scimill.atoms.demo import write_demo
from scimill.atoms.exchange.ingest import import_files
from scimill.atoms.exchange.properties import Properties
from scimill.atoms.learning.train import train_ensemble
from scimill.atoms.params import AtomsTrainConfig
from scimill.atoms.pictures import plots
from scimill.config import Layer, build
from scimill.parallel.world import World, world
from scimill.training.directory import RunDirectory

FIRST = 16  # structures of iteration 0
PROCEDURES = {
    # name of the reductions: how they go on
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=4)
    parser.add_argument("--count", type=int, default=300, help="structures, of which a third is test data")
    parser.add_argument("--added", type=int, default=12, help="structures per iteration")
    parser.add_argument("--members", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--output", type=Path, help="where the picture goes")
    arguments = parser.parse_args()
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
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
