"""Compare coarse turbulence with a learned correction to the uncorrected run and to a finer one of equal cost.

The whole chain as a user types it: trajectories of 256² (spectral, the simlint preset); corrections of coarse steps of
128² (0.026, two Runge–Kutta steps); a network of 5 378 weights, trained on one step and then unrolled over four; and a
comparison on trajectories of another seed. Steps whose output is already in the directory are not run again.
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
    harness.Option("directory", RESULTS, RESULTS.with_name(f"{RESULTS.name}-quick"), "where everything goes; 2 GB"),
    harness.Option("members", 4, 2, "trajectories to train and validate on"),
    harness.Option("pairs", 260, 20, "pairs of each"),
    harness.Option("epochs", 6, 1, "epochs of training on one step"),
    harness.Option("held-out", 2, 1, "trajectories to compare on"),
    harness.Option("snapshots", 420, 60, "snapshots of each, every 0.26"),
    harness.Option("starts", 8, 1, "states of each from which the runs start"),
    harness.Option("statistics", 104.0, 5.2, "time that fluxes and spectra are averaged over"),
)
FLOW = ("--preset", "simlint")
BURN_IN = ("--points", 128, "--amplitude", 1, "--interval", 20, "--snapshots", 3)
RELAXING = 2.6  # time in which a resampled state fills its finer modes
COARSE_STEPS = 2000
MODELS = ("one-step", "unrolled")


def chain(folder: Path, arguments: argparse.Namespace) -> list[tuple[object, ...]]:
    """Commands of the chain, each with its output last but for flags."""
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
    """Run a command of the chain unless its output is there; return its CPU time."""
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
    """CPU seconds of all child processes that have ended."""
    import resource

    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def read(folder: Path, name: str) -> dict[str, dict[str, float]]:
    """Rows of a comparison's summary, by run."""
    with (folder / f"comparison-{name}" / "summary.csv").open(newline="") as file:
        rows = {row.pop("run"): row for row in csv.DictReader(file)}
    return {run: {key: float(value) for key, value in row.items()} for run, row in rows.items()}


def lasting(folder: Path, name: str) -> float:
    """Coarse steps that the corrected run of every member has taken with finite fluxes."""
    with (folder / f"comparison-{name}" / "statistics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["run"] == "corrected"]
    members = {row["member"] for row in rows}
    last = [max(float(r["time"]) for r in rows if r["member"] == m and np.isfinite(float(r["flux"]))) for m in members]
    return min(last) / 0.026


def goals(folder: Path, name: str) -> list[harness.Goal]:
    """What a correction must reach, and what it is held against."""
    rows = read(folder, name)
    base, better = rows["uncorrected"], rows["corrected"]
    error, horizon = (better[key] / base[key] for key in ("vorticity_error", "horizon"))
    flux = abs(better["flux"] / better["flux_of_truth"] - 1)
    return [
        harness.Goal(f"{name}: vorticity error at t = 2, over uncorrected", error, most=0.5),
        harness.Goal(f"{name}: horizon (correlation 0.98), over uncorrected", horizon, least=2.0),
        harness.Goal(f"{name}: corrected steps that stay finite", lasting(folder, name), least=COARSE_STEPS),
        harness.Goal(f"{name}: particle flux, relative error", flux, most=0.1),
    ]


def main() -> int:
    """Run what is not there yet, and judge it."""
    arguments = harness.parse(__doc__, *OPTIONS, needs=("torch", "onnxruntime"))
    arguments.directory.mkdir(parents=True, exist_ok=True)
    print(harness.machine())
    cpu = {" ".join(map(str, command[:2])): run(command, arguments.directory)
           for command in chain(arguments.directory, arguments)}  # fmt: skip
    found = [goal for name in MODELS for goal in goals(arguments.directory, name)]
    for name in MODELS:
        for run_name, row in read(arguments.directory, name).items():
            print(f"{name:<9} {run_name:<12}", "  ".join(f"{key} {value:.4g}" for key, value in row.items()))
    summaries = {name: read(arguments.directory, name) for name in MODELS}
    return harness.conclude(found, {"cpu_seconds": cpu, "summaries": summaries}, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
