"""Provenance of a store: all that is needed to reproduce its bytes, as root attributes."""

import dataclasses
import datetime
import os
import re
import shlex
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path

import h5py
import numpy

from scimill.parallel.world import World, library_version
from scimill.version import __version__

_NAME = r"(?<![a-z0-9])(?:[a-z0-9]+[-_.])*(?:token|passw(?:or)?d|passphrase|secret|key|credentials?)"
SECRETS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"({_NAME}['\"]?\s*[=:]\s*['\"]?)[^\s'\"&;,]+",  # token=…, "password": …
        rf"(--?{_NAME}\s+|bearer\s+)(?!-)[^\s'\"&;,]+",  # --api-key …, Bearer …
        r"(\w://[^\s/:@]*:)[^\s/@]+(?=@)",  # https://user:…@host
    )
)
HIDDEN = "***"
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
        "command_line": hide_secrets(shlex.join(sys.argv)),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "job_id": next((os.environ[name] for name in JOB_VARIABLES if name in os.environ), ""),
        "ranks": world.size,
        "mpi_version": library_version() if world.comm else "",
        "hdf5_version": h5py.version.hdf5_version,
        "numpy_version": numpy.__version__,
        "python_version": sys.version.split()[0],
    }


def hide_secrets(text: str) -> str:
    """Replace what looks like a password, a key or a token in a command line; also bytes that are not UTF-8."""
    text = text.encode("utf-8", "backslashreplace").decode()
    for secret in SECRETS:
        text = secret.sub(rf"\1{HIDDEN}", text)
    return text


@cache  # a process may make many stores
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
