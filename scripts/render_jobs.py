#!/usr/bin/env python3
"""Render the ready-to-edit scripts in jobs/slurm, jobs/pbs, jobs/cobalt and jobs/flux.

scripts/render_jobs.py [DIRECTORY]        default: jobs

Run this after changing a template: a test compares the scripts in the repository with a fresh render.
"""

import os
import sys
from pathlib import Path

from scimill.config import Layer, build
from scimill.jobs.commands import read_command
from scimill.jobs.machine import read_machine
from scimill.jobs.render import render
from scimill.jobs.resources import Resources

SCHEDULERS = {
    # folder: (command that submits a script, directives to add)
    "slurm": ("sbatch {}", "#SBATCH --account=, --partition="),
    "pbs": ("qsub {}", "#PBS -A, -q, -l filesystems="),
    "cobalt": ("qsub {}", "#COBALT -A, -q, --attrs"),
    "flux": ("flux batch {}", "# flux: --bank=, --queue="),
}
RANKS = {"nodes": 1, "ranks_per_node": 2, "walltime": "1h"}
TRAIN = "scimill droplets train droplets.h5 --output {} --preset small --epochs 6"
JOBS = {
    # name: (what it does, resources, command)
    "droplets-generate": (
        "Generates a million droplets; change --count for more. All ranks of all nodes write to one file.",
        RANKS, "scimill droplets generate droplets.h5 --count 1e6",
    ),
    "droplets-train": (
        "Trains the network that replaces the integration, on the output of droplets-generate.",
        RANKS, TRAIN.format("network"),
    ),
    "droplets-train-gpus": (
        "Trains it on GPUs, with one rank per GPU.",
        {"nodes": 1, "gpus_per_node": 4, "threads_per_rank": 8, "walltime": "1h"},
        f"{TRAIN.format('network')} --device cuda",
    ),
    "droplets-sweep": (
        "Runs the trials of a sweep, one job per trial; the sweep file holds lists and ranges of parameters.",
        {"nodes": 1, "ranks_per_node": 1, "walltime": "1h", "array": "0-7"},
        f"{TRAIN.format('trials')} --sweep jobs/sweeps/droplets.yaml",
    ),
    "droplets-score": (
        "Compares the network with exact droplets from another seed.",
        {"nodes": 1, "ranks_per_node": 1, "walltime": "30min"},
        "scimill droplets score network test.h5 --output network/score",
    ),
    "turbulence-simulate": (
        "Simulates fully resolved Hasegawa-Wakatani turbulence; ranks share the members, then the field.",
        RANKS, "scimill turbulence simulate fine.h5 --preset simlint --snapshots 1000 --interval 0.026",
    ),
    "turbulence-corrections": (
        "Computes the error of coarse steps against the filtered output of turbulence-simulate.",
        RANKS, "scimill turbulence corrections fine.h5 corrections.h5 --factor 4 --steps 1",
    ),
    "turbulence-train": (
        "Trains the network that corrects coarse steps.",
        RANKS, "scimill turbulence train corrections.h5 --output correction",
    ),
    "bench-generate": (
        "Generates the dataset of a storage benchmark with an exact size; imseg and dlrm work in the same way.",
        RANKS, "scimill bench generate bert data --size 100GiB",
    ),
    "atoms-evaluate": (
        "Evaluates the structures that a selection does not use, with any ASE calculator.",
        RANKS, "scimill atoms evaluate database first --calculator emt",
    ),
    "sky-prepare": (
        "Decodes all pairs of an index into one file.",
        RANKS, "scimill sky prepare index.csv sky.h5 --nodes nodes.csv",
    ),
    "sky-train-gpus": (
        "Trains two networks to agree on pairs, on GPUs, with one rank per GPU.",
        {"nodes": 1, "gpus_per_node": 4, "threads_per_rank": 8, "walltime": "1h"},
        "scimill sky train sky.h5 --output run --preset published --device cuda",
    ),
    "verify": (
        "Checks every byte of a store.",
        RANKS, "scimill verify droplets.h5",
    ),
}  # fmt: skip


def example(scheduler: str, name: str) -> str:
    """Render a job for a generic machine, with instructions after its directives."""
    what, requested, command = JOBS[name]
    submit, directives = SCHEDULERS[scheduler]
    resources = build(Resources, [Layer("render_jobs.py", {**requested, "name": name[:15].rstrip("-")})])
    machine = read_machine(f"{scheduler}-generic")
    script = render(resources, machine, read_command(tuple(command.split()), resources))
    note = [
        what,
        f"Edit the directives above (add {directives}) and the lines below that repeat them, then: "
        + submit.format(f"jobs/{scheduler}/{name}.sh"),
        f"Or render it for your machine: scimill jobs render --machine YOURS ... -- {command}",
    ]
    if scheduler in ("cobalt", "flux") and "array" in requested:
        once = submit.format("--env SCIMILL_ARRAY_INDEX=0 ...")
        note.insert(1, f"{scheduler.title()} has no arrays: submit it once per index, with {once}")
    before, mark, after = script.partition("# Machine ")
    return before + "".join(f"# {line}\n" for line in note) + mark + after


def main(folder: Path) -> None:
    """Write all scripts as executables, which Cobalt requires."""
    os.umask(0o022)  # the scripts name it
    for scheduler in SCHEDULERS:
        (folder / scheduler).mkdir(parents=True, exist_ok=True)
        for name in JOBS:
            path = folder / scheduler / f"{name}.sh"
            path.write_text(example(scheduler, name), "utf-8")
            path.chmod(0o755)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1] / "jobs")
