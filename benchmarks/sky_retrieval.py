"""Whether training on pairs makes the two cameras' embeddings find each other, and training on shuffled pairs does not.

    python benchmarks/sky_retrieval.py [--frames 240] [--epochs 12] [--ranks 2] [--directory DIRECTORY] [--json FILE]

A synthetic deployment of a day at six nodes, with small images, is made, paired and prepared twice, once with each
colour image given the thermal image of another pair. The same two small networks are trained on each. Both are judged
on the true pairs: those of held-out stretches of time, and, of the networks trained on shuffled pairs, all. Two minutes
on two free cores.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from goals import Goal, conclude, machine

from scimill.sky.kernels.retrieval import Recall

BEST = 10.0  # times chance, the least R@1 of true pairs
CHANCE = 3.0  # times chance, the most R@5 of shuffled pairs, of which five hits are expected; of R@1 there is one
SIZES = ("--rgb-height", "48", "--rgb-width", "64", "--block-size", "8")
TRAINING = (
    "--preset", "small", "--time-block", "1h", "--validation-share", "0", "--test-share", "0.25", "--threads", "1",
    "--window", "200",
)  # fmt: skip


def scimill(*arguments: object, ranks: int = 1) -> None:
    launcher = ["mpirun", "-n", str(ranks)] if ranks > 1 else []
    command = [*launcher, "scimill", "sky", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def prepare(folder: Path, frames: int) -> None:
    """Make the deployment and both stores."""
    deployment = folder / "deployment"
    scimill("scene", deployment, "--frames", frames, "--nodes", 6, "--rgb-height", 96, "--thermal-height", 48,
            "--interval", 900, "--field-size", 512, "--start", "2023-05-10T13:00:00Z", ranks=2)  # fmt: skip
    scimill("pair", deployment, "--nodes", deployment / "nodes.csv", "--output", folder / "index.csv")
    stored = ("--nodes", deployment / "nodes-aligned.csv", *SIZES)
    scimill("prepare", folder / "index.csv", folder / "true.h5", *stored)
    scimill("prepare", folder / "index.csv", folder / "shuffled.h5", *stored, "--shuffled")


def judge(folder: Path, store: str, options: argparse.Namespace) -> dict[str, Any]:
    """Train on a store, and judge on the true pairs that training has not seen."""
    scimill("train", folder / f"{store}.h5", "--output", folder / store, *TRAINING, "--epochs", options.epochs,
            ranks=options.ranks)  # fmt: skip
    scimill("embed", folder / store, folder / "true.h5", folder / f"{store}-embeddings.h5")
    scimill("evaluate", folder / f"{store}-embeddings.h5", "--truth", folder / "deployment/truth.csv", "--output",
            folder / f"{store}-judged")  # fmt: skip
    found: dict[str, Any] = json.loads((folder / f"{store}-judged/evaluation.json").read_text())[0]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=240)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    goals, results = [], {}
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        folder = Path(name)
        prepare(folder, options.frames)
        for store in ("true", "shuffled"):
            found = results[store] = judge(folder, store, options)
            print(f"{machine()}; trained on {store} pairs, judged on {found['pairs']} of {found['set']}")
            for which in ("rgb_to_thermal", "thermal_to_rgb"):
                r = Recall(**found[which])
                times = [r.over_chance(k) for k in (1, 5)]
                words = f"R@1 {r.at_1:.4f}  R@5 {r.at_5:.4f}"
                print(f"  {which:<16}{words}  {times[0]:.1f}, {times[1]:.1f} times chance")
                if store == "true":
                    goals.append(Goal(f"true pairs, {which}: R@1 / chance", times[0], least=BEST))
                else:
                    goals.append(Goal(f"shuffled pairs, {which}: R@5 / chance", times[1], most=CHANCE))
            print(f"  RankMe {found['rankme']}; R² of cover {found['r_squared'].get('cover')}")
    return conclude(goals, results, options.json)


if __name__ == "__main__":
    sys.exit(main())
