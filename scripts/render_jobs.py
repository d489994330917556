#!/usr/bin/env python3
"""Render the ready-to-edit scripts of jobs/slurm, jobs/pbs and jobs/cobalt anew.

scripts/render_jobs.py [DIRECTORY]        default: jobs

A test keeps those of the repository equal to a fresh render, so whoever changes a template runs this.
"""

import sys
from pathlib import Path

from scimill.config import Layer, build
from scimill.jobs.commands import read_command
from scimill.jobs.machine import read_machine
from scimill.jobs.render import render
from scimill.jobs.resources import Resources

SCHEDULERS = {
    # folder: how a script of it is submitted, and how a directive begins
    "slurm": ("sbatch {}", "#SBATCH --account=, --partition="),
    "pbs": ("qsub {}", "#PBS -A, -q, -l filesystems="),
    "cobalt": ("qsub {}", "#COBALT -A, -q, --attrs"),
}
RANKS = {"nodes": 1, "ranks_per_node": 2, "walltime": "1h"}
TRAIN = "scimill droplets train droplets.h5 --output {} --preset small --epochs 6"
JOBS = {
    # name: (what it does, resources, command)
    "droplets-generate": (
        "A million droplets: give more with --count. All ranks of all nodes write the one file.",
        RANKS, "scimill droplets generate droplets.h5 --count 1e6",
    ),
    "droplets-train": (
        "Trains the network that replaces the integration on what droplets-generate has made.",
        RANKS, TRAIN.format("network"),
    ),
    "droplets-train-gpus": (
        "The same on GPUs: a rank for each.",
        {"nodes": 1, "gpus_per_node": 4, "threads_per_rank": 8, "walltime": "1h"},
        f"{TRAIN.format('network')} --device cuda",
    ),
    "droplets-sweep": (
        "The trials of a sweep, one job for each: its file holds lists and ranges of parameters.",
        {"nodes": 1, "ranks_per_node": 1, "walltime": "1h", "array": "0-7"},
        f"{TRAIN.format('trials')} --sweep jobs/sweeps/droplets.yaml",
    ),
    "droplets-score": (
        "Compares the network with exact droplets of another seed.",
        {"nodes": 1, "ranks_per_node": 1, "walltime": "30min"},
        "scimill droplets score network test.h5 --output network/score",
    ),
    "turbulence-simulate": (
        "A fully resolved run of Hasegawa-Wakatani turbulence; ranks share the members, then the field.",
        RANKS, "scimill turbulence simulate fine.h5 --preset simlint --snapshots 1000 --interval 0.026",
    ),
    "turbulence-corrections": (
        "What a coarse step lacks of the filtered run that turbulence-simulate has made.",
        RANKS, "scimill turbulence corrections fine.h5 corrections.h5 --factor 4 --steps 1",
    ),
    "turbulence-train": (
        "Trains the network that corrects coarse steps.",
        RANKS, "scimill turbulence train corrections.h5 --output correction",
    ),
    "bench-generate": (
        "A data set of a storage benchmark, of an exact size; imseg and dlrm alike.",
        RANKS, "scimill bench generate bert data --size 100GiB",
    ),
    "atoms-evaluate": (
        "Evaluates what a selection does not use, with any calculator of ASE.",
        RANKS, "scimill atoms evaluate database first --calculator emt",
    ),
    "sky-prepare": (
        "Decodes all pairs of an index into one file.",
        RANKS, "scimill sky prepare index.csv sky.h5 --nodes nodes.csv",
    ),
    "sky-train-gpus": (
        "Trains two networks to agree on pairs, on GPUs: a rank for each.",
        {"nodes": 1, "gpus_per_node": 4, "threads_per_rank": 8, "walltime": "1h"},
        "scimill sky train sky.h5 --output run --preset published --device cuda",
    ),
    "verify": (
        "Checks every byte of a store.",
        RANKS, "scimill verify droplets.h5",
    ),
}  # fmt: skip


def example(scheduler: str, name: str) -> str:
    """Render a job of a generic machine, with a word on how to use it behind its directives."""
    what, asked, command = JOBS[name]
    submit, directives = SCHEDULERS[scheduler]
    resources = build(Resources, [Layer("render_jobs.py", {**asked, "name": name[:15].rstrip("-")})])
    machine = read_machine(f"{scheduler}-generic")
    script = render(resources, machine, read_command(tuple(command.split()), resources))
    note = [
        what,
        f"Edit the directives above (add {directives}) and what repeats them below, then: "
        + submit.format(f"jobs/{scheduler}/{name}.sh"),
        f"Or let it be written for your machine: scimill jobs render --machine YOURS ... -- {command}",
    ]
    if scheduler == "cobalt" and "array" in asked:
        note.insert(1, "Cobalt has no arrays: submit it once for each index, with qsub --env SCIMILL_ARRAY_INDEX=0 ...")
    before, mark, after = script.partition("# Machine ")
    return before + "".join(f"# {line}\n" for line in note) + mark + after


def main(folder: Path) -> None:
    """Write all scripts; those of Cobalt must be executable."""
    for scheduler in SCHEDULERS:
        (folder / scheduler).mkdir(parents=True, exist_ok=True)
        for name in JOBS:
            path = folder / scheduler / f"{name}.sh"
            path.write_text(example(scheduler, name), "utf-8")
            path.chmod(0o755)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1] / "jobs")
