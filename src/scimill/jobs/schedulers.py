"""The schedulers: how a script is handed to each, and how each is asked what has become of a job."""

import contextlib
import getpass
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scimill.errors import ConfigError

PATIENCE = 120.0  # s; a busy scheduler may need a minute to answer
INDEX = "SCIMILL_ARRAY_INDEX"
"""Variable that holds the index of a job where a scheduler knows no arrays."""

State = Literal["waiting", "queued", "running"]
"""What a scheduler says of a job that has not ended; waiting: for another job."""


@dataclass(frozen=True)
class Scheduler:
    """How to speak to a scheduler."""

    title: str
    submit: tuple[str, ...]
    """command that takes a script and prints the job's id"""
    job_id: re.Pattern[str]
    question: Callable[[Sequence[str]], list[str]]
    """command that lists jobs"""
    answer: Callable[[str], Iterator[tuple[str, State]]]
    """its output as ids and states"""
    has_arrays: bool = True
    release: tuple[str, ...] = ()
    """command that lets held jobs go, where a job must be held until those that wait for it are queued"""

    def element(self, job: str, index: int) -> str:
        """What a job that depends on one element of an array is to wait for."""
        return f"{job}_{index}" if self.title == "Slurm" else job


def _squeue(_: Sequence[str]) -> list[str]:
    return ["squeue", "--noheader", "--array", "--user", getpass.getuser(), "--format", "%i %T %r"]


def _read_squeue(text: str) -> Iterator[tuple[str, State]]:
    for line in text.splitlines():
        job, state, reason = [*line.split(), "", ""][:3]
        if state == "PENDING":
            yield job, "waiting" if reason.startswith("Dependency") else "queued"
        elif state in ("RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "STAGE_OUT", "SIGNALING"):
            yield job, "running"


PBS_STATES: Mapping[str, State] = {
    "Q": "queued", "W": "queued", "T": "queued", "H": "waiting",
    "R": "running", "E": "running", "B": "running", "S": "running",
}  # fmt: skip
COBALT_STATES: Mapping[str, State] = {
    "queued": "queued", "user_hold": "waiting", "dep_hold": "waiting", "dep_fail": "waiting",
    "starting": "running", "running": "running", "exiting": "running", "killing": "running",
}  # fmt: skip


def _read_pbs_qstat(text: str) -> Iterator[tuple[str, State]]:
    for words in (line.split() for line in text.splitlines()):
        if len(words) >= 5 and words[0][0].isdigit() and words[-2] in PBS_STATES:
            yield words[0], PBS_STATES[words[-2]]


def _read_cobalt_qstat(text: str) -> Iterator[tuple[str, State]]:
    for words in (line.split() for line in text.splitlines()):
        states = [COBALT_STATES[word] for word in words[1:] if word in COBALT_STATES]
        if states and words[0].isdecimal():
            yield words[0], states[0]


SCHEDULERS = {
    "slurm": Scheduler("Slurm", ("sbatch", "--parsable"), re.compile(r"\d+(_\d+)?"), _squeue, _read_squeue),
    "pbs": Scheduler(
        "PBS",
        ("qsub",),
        re.compile(r"\d+(\[\d*\])?(\.[\w.-]+)?"),
        lambda ids: ["qstat", *ids],
        _read_pbs_qstat,
        release=("qrls",),
    ),
    "cobalt": Scheduler(
        "Cobalt",
        ("qsub",),
        re.compile(r"\d+"),
        lambda ids: ["qstat", *ids],
        _read_cobalt_qstat,
        has_arrays=False,
        release=("qrls",),
    ),
}


def hand_over(scheduler: Scheduler, script: Path, options: Sequence[str] = ()) -> str:
    """Submit a script from the current directory; return the job's id.

    Raises
    ------
    ConfigError : its tool is not here, or it refuses the script; nothing is queued then.
    """
    command = [*scheduler.submit, *options, str(script)]
    if not shutil.which(command[0]):
        remedy = "submit on a login node of the machine, where its module may have to be loaded"
        raise ConfigError(f"{command[0]} of {scheduler.title} is not on PATH", remedy=remedy)
    try:
        said = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{scheduler.title} gives no answer in {PATIENCE:.0f} s", where=" ".join(command)) from None
    lines = said.stdout.split()
    job = lines[-1].partition(";")[0] if lines else ""
    if said.returncode or not scheduler.job_id.fullmatch(job):
        answer = said.stderr or said.stdout or f"exit code {said.returncode}"
        raise ConfigError(f"{scheduler.title} refuses the job: {answer}", where=str(script))
    return job


HOLD = ("-h",)
"""What makes ``qsub`` of PBS and of Cobalt hold a job."""


def release(scheduler: Scheduler, jobs: Sequence[str]) -> None:
    """Let held jobs go.

    Raises
    ------
    ConfigError : the scheduler does not.
    """
    command = [*scheduler.release, *jobs]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        if subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False).returncode == 0:
            return
    raise ConfigError(f"{scheduler.title} still holds the first jobs", remedy=f"let them go: {' '.join(command)}")


def states(scheduler: Scheduler, jobs: Sequence[str]) -> dict[str, State] | None:
    """Ask what has become of jobs; those that have ended are not in the answer. None where nobody answers."""
    if not jobs:
        return {}
    command = scheduler.question(jobs)
    try:
        # The exit code tells nothing: PBS and Cobalt fail where one of the jobs has ended.
        said = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = {_key(job): state for job, state in scheduler.answer(said.stdout)}
    return {job: found[_key(job)] for job in jobs if _key(job) in found}


def _key(job: str) -> str:
    """A job's id without its server, whose name qstat cuts."""
    return job.partition(".")[0]
