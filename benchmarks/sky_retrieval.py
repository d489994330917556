"""Compare training on true pairs with training on shuffled ones: do the two cameras find each other?

A synthetic day of small images at six nodes is paired and prepared twice: once as it is, and once with each colour
image next to the thermal image of another pair. The same two small networks are trained on each. Both are judged on
true pairs: those of held-out hours, or all pairs for the networks trained on shuffled ones.
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
    harness.Option("frames", 240, 24, "times of the day at which each node takes a pair"),
    harness.Option("epochs", 12, 1, "epochs of each training"),
    harness.Option("ranks", 2, 2, "ranks that train"),
    harness.DIRECTORY,
)
BEST = 10.0  # times chance, the least R@1 of true pairs
CHANCE = 3.0  # times chance, the most R@5 of shuffled pairs, of which five hits are expected; of R@1 there is one
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


def judge(folder: Path, store: str, options: argparse.Namespace) -> dict[str, Any]:
    """Train on a store, and judge on the true pairs that training has not seen."""
    run_sky("train", folder / f"{store}.h5", "--output", folder / store, *TRAINING, "--epochs", options.epochs,
            ranks=options.ranks)  # fmt: skip
    run_sky("embed", folder / store, folder / "true.h5", folder / f"{store}-embeddings.h5")
    run_sky("evaluate", folder / f"{store}-embeddings.h5", "--truth", folder / "deployment/truth.csv", "--output",
            folder / f"{store}-judged")  # fmt: skip
    found: dict[str, Any] = json.loads((folder / f"{store}-judged/evaluation.json").read_text())[0]
    return found


def main() -> int:
    options = harness.parse(__doc__, *OPTIONS, needs=("mpirun", "torch"))
    goals, results = [], {}
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        folder = Path(name)
        prepare(folder, options.frames)
        for store in ("true", "shuffled"):
            found = results[store] = judge(folder, store, options)
            print(f"{harness.machine()}; trained on {store} pairs, judged on {found['pairs']} of {found['set']}")
            for which in ("rgb_to_thermal", "thermal_to_rgb"):
                r = Recall(**found[which])
                times = [r.over_chance(k) for k in (1, 5)]
                words = f"R@1 {r.at_1:.4f}  R@5 {r.at_5:.4f}"
                print(f"  {which:<16}{words}  {times[0]:.1f}, {times[1]:.1f} times chance")
                if store == "true":
                    goals.append(harness.Goal(f"true pairs, {which}: R@1 / chance", times[0], least=BEST))
                else:
                    goals.append(harness.Goal(f"shuffled pairs, {which}: R@5 / chance", times[1], most=CHANCE))
            print(f"  RankMe {found['rankme']}; R² of cover {found['r_squared'].get('cover')}")
    return harness.conclude(goals, results, options.json)


if __name__ == "__main__":
    sys.exit(main())
