"""Provenance of a store: all that is needed to reproduce its bytes, as root attributes."""

import dataclasses
import datetime
import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import h5py
import numpy

from scimill.parallel.world import World, library_version
from scimill.version import __version__

JOB_VARIABLES = ("SLURM_JOB_ID", "PBS_JOBID", "COBALT_JOBID")


@dataclasses.dataclass(frozen=True)
class Provenance:
    """How a store was made; `root_attributes` adds the environment of the run."""

    campaign: str
    algorithm: int
    """raised by the campaign whenever the same configuration would give different bytes"""
    config: str
    """the complete configuration as YAML"""
    seed: int
    maker: str = ""
    """which of the campaign's makers made it"""
    package: str = ""
    """name and version of the campaign's package, if that is not scimill"""
    package_git_state: str = ""


def root_attributes(provenance: Provenance, world: World) -> dict[str, str | int]:
    """Return all root attributes that record provenance."""
    made_by = {name: value for name, value in dataclasses.asdict(provenance).items() if value != ""}
    return {**made_by, **environment(world)}


def environment(world: World) -> dict[str, str | int]:
    """Return the environment of a run: versions, host, job, ranks, command line, date."""
    return {
        "scimill_version": __version__,
        "git_state": git_state(Path(__file__)),
        "command_line": shlex.join(sys.argv),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "job_id": next((os.environ[name] for name in JOB_VARIABLES if name in os.environ), ""),
        "ranks": world.size,
        "mpi_version": library_version() if world.comm else "",
        "hdf5_version": h5py.version.hdf5_version,
        "numpy_version": numpy.__version__,
        "python_version": sys.version.split()[0],
    }


def git_state(source: Path) -> str:
    """Return the commit of a source file's tree, with "-dirty" if changed; empty if installed."""
    folder = source.resolve().parent

    def git(*words: str) -> str:
        command = ["git", "-C", str(folder), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", source.name)  # otherwise an unrelated repository surrounds this one
        return git("describe", "--always", "--dirty", "--abbrev=12")
    except (OSError, subprocess.SubprocessError):
        return ""
