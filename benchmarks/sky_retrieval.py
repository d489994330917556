"""Compare retrieval across cameras after training on true pairs and on shuffled pairs.

A synthetic day of small images at six nodes is paired and prepared twice: once with the true pairs, and once with each
colour image beside the thermal image of another pair. The same two small networks are trained on each. Both trainings
are evaluated on true pairs: on held-out hours, or on all pairs for the networks trained on shuffled ones.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import harness

from scimill.sky.kernels.retrieval import Recall

OPTIONS = (
    harness.Option("frames", 240, 24, "image pairs per node over the day"),
    harness.Option("epochs", 12, 1, "epochs of each training"),
    harness.Option("ranks", 2, 2, "ranks for training"),
    harness.DIRECTORY,
)
LEAST_TRUE = 10.0  # times chance, of R@1 with true pairs
MOST_SHUFFLED = 3.0  # times chance, of R@5 with shuffled pairs: chance finds five pairs by R@5, but only one by R@1
SIZES = ("--rgb-height", "48", "--rgb-width", "64", "--block-size", "8")
TRAINING = (
    "--preset", "small", "--time-block", "1h", "--validation-share", "0", "--test-share", "0.25", "--threads", "1",
    "--window", "200",
)  # fmt: skip


def run_sky(*arguments: object, ranks: int = 1) -> None:
    harness.run_scimill("sky", *arguments, ranks=ranks)


def prepare(folder: Path, frames: int) -> None:
    """Make the deployment and both stores."""
    deployment = folder / "deployment"
    run_sky("scene", deployment, "--frames", frames, "--nodes", 6, "--rgb-height", 96, "--thermal-height", 48,
            "--interval", 900, "--field-size", 512, "--start", "2023-05-10T13:00:00Z", ranks=2)  # fmt: skip
    run_sky("pair", deployment, "--nodes", deployment / "nodes.csv", "--output", folder / "index.csv")
    stored = ("--nodes", deployment / "nodes-aligned.csv", *SIZES)
    run_sky("prepare", folder / "index.csv", folder / "true.h5", *stored)
    run_sky("prepare", folder / "index.csv", folder / "shuffled.h5", *stored, "--shuffled")


def evaluate(folder: Path, store: str, options: argparse.Namespace) -> dict[str, Any]:
    """Train on a store, and evaluate on true pairs that the training has not seen."""
    run_sky("train", folder / f"{store}.h5", "--output", folder / store, *TRAINING, "--epochs", options.epochs,
            ranks=options.ranks)  # fmt: skip
    run_sky("embed", folder / store, folder / "true.h5", folder / f"{store}-embeddings.h5")
    run_sky("evaluate", folder / f"{store}-embeddings.h5", "--truth", folder / "deployment/truth.csv", "--output",
            folder / f"{store}-evaluation")  # fmt: skip
    found: dict[str, Any] = json.loads((folder / f"{store}-evaluation/evaluation.json").read_text())[0]
    return found


def main() -> int:
    options = harness.parse(__doc__, *OPTIONS, needs=("mpirun", "torch"))
    goals, results = [], {}
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        folder = Path(name)
        prepare(folder, options.frames)
        for store in ("true", "shuffled"):
            found = results[store] = evaluate(folder, store, options)
            print(
                f"{harness.describe_machine()}; trained on {store} pairs, "
                f"evaluated on {found['pairs']} true pairs ({found['set']})"
            )
            for which in ("rgb_to_thermal", "thermal_to_rgb"):
                r = Recall(**found[which])
                times = [r.over_chance(k) for k in (1, 5)]
                recalls = f"R@1 {r.at_1:.4f}  R@5 {r.at_5:.4f}"
                print(f"  {which:<16}{recalls}  {times[0]:.1f} and {times[1]:.1f} times chance")
                if store == "true":
                    goals.append(harness.Goal(f"true pairs, {which}: R@1 / chance", times[0], least=LEAST_TRUE))
                else:
                    goals.append(harness.Goal(f"shuffled pairs, {which}: R@5 / chance", times[1], most=MOST_SHUFFLED))
            print(f"  RankMe {found['rankme']}; R² of cover {found['r_squared'].get('cover')}")
    return harness.conclude(goals, results, options.json)


if __name__ == "__main__":
    sys.exit(main())
