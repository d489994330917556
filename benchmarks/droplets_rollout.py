"""Compare droplet networks in roll-outs: errors and water after many steps, for several seeds of each.

Trains each recipe with several seeds, on droplets of the classic preset, and carries droplets through many steps in
fluctuating air (`scimill droplets score --rollout all`). Runs that are already in the directory are not trained again.
Further networks join the table if their run directories are there, named NAME-SEED.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import harness
import numpy as np

from scimill.config import Layer
from scimill.droplets.cases import read_cases
from scimill.droplets.learning.models import load_model
from scimill.droplets.learning.rollout import NETWORK, UNCHANGED, ContenderOutcome, Rollout
from scimill.droplets.learning.rollout_score import measures, run_cases

RESULTS = Path("results/droplets-rollout")
OPTIONS = (
    harness.Option("directory", RESULTS, RESULTS.with_name(f"{RESULTS.name}-quick"), "where to write runs"),
    harness.Option("count", 2_000_000, 20_000, "droplets for training"),
    harness.Option("epochs", 20, 1, "epochs of each training"),
    harness.Option("seeds", 3, 2, "networks per recipe"),
    harness.Option("droplets", 400, 40, "droplets per roll-out"),
    harness.Option("steps", 2000, 20, "steps of each roll-out"),
    harness.Option("ranks", 1, 1, "ranks for training"),
)
RECIPES: Mapping[str, Sequence[object]] = {
    "published": ("--preset", "published"),  # its form, loss and schedule
    "mse": ("--preset", "small", "--loss", "mse"),
    "l1": ("--preset", "small", "--loss", "l1"),
}
BASELINE = "no change"
MOST_ERROR = 0.01  # RMSE of log10 r, anywhere along the steps
MOST_WATER = 0.01  # deviation of the water from the exact one
SEED = 20261130
BLOCK_SIZE = 4096  # droplets; small enough that a quick run has blocks to hold out


def train(folder: Path, options: argparse.Namespace) -> None:
    """Generate the droplets and train all networks that are not there."""
    store = folder / "droplets.h5"
    if not store.exists():
        harness.run_scimill("droplets", "generate", store, "--count", options.count, "--seed", SEED,
                            "--block-size", BLOCK_SIZE)  # fmt: skip
    for recipe, flags in RECIPES.items():
        for seed in range(1, options.seeds + 1):
            run = folder / f"{recipe}-{seed}"
            if not (run / "model.pt").exists():
                print(f"training {run.name}", flush=True)
                harness.run_scimill("droplets", "train", store, "--output", run, *flags, "--seed", seed, "--epochs",
                                    options.epochs, "--overwrite", ranks=options.ranks)  # fmt: skip


def find_runs(folder: Path) -> dict[str, Path]:
    """Return all finished runs of a folder by name, in the order of the recipes, then others."""
    names = sorted(path.parent.name for path in folder.glob("*-*/model.pt"))
    order = list(RECIPES)
    names.sort(key=lambda name: order.index(recipe_of(name)) if recipe_of(name) in order else len(order))
    return {name: folder / name for name in names}


def recipe_of(run: str) -> str:
    return run.rpartition("-")[0]


def by_recipe(rollout: Rollout) -> dict[str, list[ContenderOutcome]]:
    """Group the outcomes of networks by recipe; that of no change is a group of its own."""
    groups: dict[str, list[ContenderOutcome]] = defaultdict(list)
    for outcome in rollout.outcomes:
        if outcome.kind in (NETWORK, UNCHANGED):
            groups[recipe_of(outcome.name) if outcome.kind == NETWORK else BASELINE].append(outcome)
    return groups


def spread(values: Sequence[float], form: str) -> str:
    """Format mean and standard deviation over the seeds."""
    mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return f"{mean:{form}} ± {deviation:.2g}" if len(values) > 1 else f"{mean:{form}}"


def table_of(rollouts: Sequence[Rollout]) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table: one per case, time step and recipe."""
    yield ("case", "dt (s)", "network", "seeds", "RMSE log10 r: largest", "last", "RMSE T (K): last", "water",
           "activated (exact)", "diverged")  # fmt: skip
    for one in rollouts:
        for name, found in by_recipe(one).items():
            last = {measure: [outcome.curves[measure][-1] for outcome in found] for measure in found[0].curves}
            yield (
                one.case, f"{one.dt:g}", name, str(len(found)) if name != BASELINE else "",
                spread([outcome.largest["radius_rmse"] for outcome in found], ".4f"),
                spread(last["radius_rmse"], ".4f"), spread(last["temperature_rmse"], ".4f"),
                "x" + spread(last["water"], ".4g"), f"{np.mean(last['activated']):.1%} ({one.activated[-1]:.1%})",
                f"{np.mean([outcome.diverged for outcome in found]):.1%}",
            )  # fmt: skip


def worst(rollouts: Sequence[Rollout]) -> dict[str, tuple[float, float]]:
    """Return each recipe's largest error and largest deviation of water, means over seeds, of all roll-outs."""
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for one in rollouts:
        for name, outcomes in by_recipe(one).items():
            error = float(np.mean([outcome.largest["radius_rmse"] for outcome in outcomes]))
            water = float(np.mean([abs(outcome.curves["water"][-1] - 1) for outcome in outcomes]))
            found[name].append((error, water))
    return {
        name: (max(error for error, _ in values), max(water for _, water in values)) for name, values in found.items()
    }


def main() -> int:
    options = harness.parse(__doc__, *OPTIONS, needs=("torch",))
    train(options.directory, options)
    models = {name: load_model(path)[0] for name, path in find_runs(options.directory).items()}
    cases = read_cases(["all"], [Layer("options", {"droplets": options.droplets, "steps": options.steps})])
    rollouts = [one for found in run_cases(models, cases, progress=True).values() for one in found]
    print(
        f"{harness.describe_machine()}; {options.droplets} droplets, {options.steps} steps; mean ± deviation of seeds\n"
    )
    print(harness.format_table(list(table_of(rollouts))))
    limits = {name: values for name, values in worst(rollouts).items() if name != BASELINE}
    best = min(limits, key=lambda name: limits[name])
    goals = [
        harness.Goal(f"{best}: largest RMSE of log10 r, all roll-outs", limits[best][0], most=MOST_ERROR),
        harness.Goal(f"{best}: largest deviation of water, all roll-outs", limits[best][1], most=MOST_WATER),
    ]
    return harness.conclude(goals, collect(rollouts), options.json)


def collect(rollouts: Sequence[Rollout]) -> dict[str, Any]:
    """Return all measures without curves, for the JSON file."""
    return {
        f"{one.case}, dt {one.dt:g}": {
            outcome.name: {key: value for key, value in measures(outcome, one).items() if key != "curves"}
            for outcome in one.outcomes
        }
        for one in rollouts
    }


if __name__ == "__main__":
    sys.exit(main())
