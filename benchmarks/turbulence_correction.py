"""Compare corrected coarse turbulence with an uncorrected run and a finer run of equal cost.

The whole chain as a user types it: trajectories at 256² (spectral, the simlint preset); corrections of coarse steps at
128² (0.026, two Runge–Kutta steps); a network of 5 378 weights, trained on one step and then unrolled over four; and a
comparison on trajectories from another seed. Steps whose output is already in the directory are skipped.
"""

import argparse
import csv
import subprocess
import sys
import time
from pathlib import Path

import harness
import numpy as np

RESULTS = Path("results/turbulence-correction")
OPTIONS = (
    harness.Option("directory", RESULTS, RESULTS.with_name(f"{RESULTS.name}-quick"), "where to write, 2 GB"),
    harness.Option("members", 4, 2, "trajectories for training and validation"),
    harness.Option("pairs", 260, 20, "pairs per trajectory"),
    harness.Option("epochs", 6, 1, "epochs of training on one step"),
    harness.Option("held-out", 2, 1, "trajectories for the comparison"),
    harness.Option("snapshots", 420, 60, "snapshots per held-out trajectory, every 0.26"),
    harness.Option("starts", 8, 1, "start states per held-out trajectory"),
    harness.Option("statistics", 104.0, 5.2, "time over which fluxes and spectra are averaged"),
)
FLOW = ("--preset", "simlint")
BURN_IN = ("--points", 128, "--amplitude", 1, "--interval", 20, "--snapshots", 3)
RELAXING = 2.6  # time that a resampled state needs to fill its finer modes
COARSE_STEPS = 2000
MODELS = ("one-step", "unrolled")


def chain(folder: Path, arguments: argparse.Namespace) -> list[tuple[object, ...]]:
    """Return the commands of the chain."""
    training, held_out = arguments.members, arguments.held_out
    train = ("train", "corrections.h5", "--validation-share", 0.2, "--in-memory")
    fine = ("--points", 256, "--from")
    return [
        ("simulate", "burn-in.h5", *FLOW, *BURN_IN, "--members", training, "--seed", 101),
        ("simulate", "relaxed.h5", *FLOW, *fine, "burn-in.h5", "--resample", "--members", training, "--seed", 101,
         "--interval", RELAXING, "--snapshots", 1),
        ("simulate", "fine.h5", *FLOW, *fine, "relaxed.h5", "--members", training, "--seed", 101,
         "--interval", 0.026, "--snapshots", arguments.pairs),
        ("corrections", "fine.h5", "corrections.h5", "--factor", 2),
        (*train, "--output", "one-step", "--epochs", arguments.epochs),
        (*train, "--output", "unrolled", "--epochs", 1, "--unroll", 4, "--weights", "one-step",
         "--learning-rate", 5e-4),
        ("simulate", "held-out-burn-in.h5", *FLOW, *BURN_IN, "--members", held_out, "--seed", 202),
        ("simulate", "held-out.h5", *FLOW, *fine, "held-out-burn-in.h5", "--resample", "--members", held_out,
         "--seed", 202, "--interval", 0.26, "--snapshots", arguments.snapshots),
        *(("export", name, f"{name}.onnx", "--format", "onnx") for name in MODELS),
        *(("compare", "held-out.h5", "--model", f"{name}.onnx", "--output", f"comparison-{name}",
           "--starts", arguments.starts, "--statistics", arguments.statistics) for name in MODELS),
    ]  # fmt: skip


def run(command: tuple[object, ...], folder: Path) -> float:
    """Run a command of the chain unless its output exists; return its CPU time."""
    target = command[command.index("--output") + 1] if "--output" in command else command[1]
    target = command[2] if command[0] in ("corrections", "export") else target
    finished = {"train": "result.json", "compare": "summary.csv"}.get(str(command[0]), "")
    if (folder / str(target) / finished if finished else folder / str(target)).exists():
        return 0.0
    started = time.monotonic()
    print("scimill turbulence", *command, flush=True)
    before = cpu_time()
    subprocess.run([sys.executable, "-m", "scimill", "turbulence", *map(str, command)], cwd=folder, check=True)
    print(f"    {cpu_time() - before:.0f} CPU s, {time.monotonic() - started:.0f} s", flush=True)
    return cpu_time() - before


def cpu_time() -> float:
    """Return the CPU seconds of all child processes that have ended."""
    import resource

    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def read_summary(folder: Path, name: str) -> dict[str, dict[str, float]]:
    """Return the rows of a comparison's summary, by run."""
    with (folder / f"comparison-{name}" / "summary.csv").open(newline="") as file:
        rows = {row.pop("run"): row for row in csv.DictReader(file)}
    return {run: {key: float(value) for key, value in row.items()} for run, row in rows.items()}


def finite_steps(folder: Path, name: str) -> float:
    """Return the number of coarse steps that all corrected runs take with finite fluxes."""
    with (folder / f"comparison-{name}" / "statistics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["run"] == "corrected"]
    members = {row["member"] for row in rows}
    last = [max(float(r["time"]) for r in rows if r["member"] == m and np.isfinite(float(r["flux"]))) for m in members]
    return min(last) / 0.026


def make_goals(folder: Path, name: str) -> list[harness.Goal]:
    """Return the goals for a correction."""
    rows = read_summary(folder, name)
    uncorrected, corrected = rows["uncorrected"], rows["corrected"]
    error, horizon = (corrected[key] / uncorrected[key] for key in ("vorticity_error", "horizon"))
    flux = abs(corrected["flux"] / corrected["flux_of_truth"] - 1)
    return [
        harness.Goal(f"{name}: vorticity error at t = 2, relative to uncorrected", error, most=0.5),
        harness.Goal(f"{name}: horizon (correlation 0.98), relative to uncorrected", horizon, least=2.0),
        harness.Goal(f"{name}: corrected steps that stay finite", finite_steps(folder, name), least=COARSE_STEPS),
        harness.Goal(f"{name}: particle flux, relative error", flux, most=0.1),
    ]


def main() -> int:
    """Run the missing steps and print the goals."""
    arguments = harness.parse(__doc__, *OPTIONS, needs=("torch", "onnxruntime"))
    arguments.directory.mkdir(parents=True, exist_ok=True)
    print(harness.describe_machine())
    cpu = {" ".join(map(str, command[:2])): run(command, arguments.directory)
           for command in chain(arguments.directory, arguments)}  # fmt: skip
    found = [goal for name in MODELS for goal in make_goals(arguments.directory, name)]
    for name in MODELS:
        for run_name, row in read_summary(arguments.directory, name).items():
            print(f"{name:<9} {run_name:<12}", "  ".join(f"{key} {value:.4g}" for key, value in row.items()))
    summaries = {name: read_summary(arguments.directory, name) for name in MODELS}
    return harness.conclude(found, {"cpu_seconds": cpu, "summaries": summaries}, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
