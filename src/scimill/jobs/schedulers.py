"""The schedulers: how to submit a script to each, and how to query the states of jobs."""

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

TIMEOUT = 120.0  # s; a busy scheduler may need a minute to answer
INDEX = "SCIMILL_ARRAY_INDEX"
"""Variable that holds a job's array index where the scheduler has no arrays."""

JobState = Literal["waiting", "queued", "running"]
"""State of a job that has not ended; waiting: for another job."""


@dataclass(frozen=True)
class Scheduler:
    """Commands of a scheduler, and how to read their output."""

    title: str
    submit: tuple[str, ...]
    """command that submits a script and prints the job's id"""
    job_id: re.Pattern[str]
    list_command: Callable[[Sequence[str]], list[str]]
    """makes the command that lists jobs"""
    parse: Callable[[str], Iterator[tuple[str, JobState]]]
    """reads ids and states from its output"""
    has_arrays: bool = True
    release: tuple[str, ...] = ()
    """command that releases held jobs, where a job must be held until those that wait for it are queued"""

    def element(self, job: str, index: int) -> str:
        """Return the id to wait for where a job depends on one element of an array."""
        return f"{job}_{index}" if self.title == "Slurm" else job


def _squeue(_: Sequence[str]) -> list[str]:
    return ["squeue", "--noheader", "--array", "--user", getpass.getuser(), "--format", "%i %T %r"]


SLURM_QUEUED = frozenset({"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"})
SLURM_ENDED = frozenset({
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED",
    "REVOKED", "TIMEOUT",
})  # fmt: skip
"""States in which a job is over, by ``man squeue``; in any other, a later release's too, it still has its nodes."""


def _read_squeue(text: str) -> Iterator[tuple[str, JobState]]:
    for line in text.splitlines():
        job, state, *reason = line.split()
        if state in SLURM_QUEUED:
            yield job, "waiting" if reason and reason[0].startswith("Dependency") else "queued"
        elif state not in SLURM_ENDED:
            yield job, "running"


PBS_JOB_ID = re.compile(r"\d+(\[\d*\])?(\.[\w.-]+)?")
PBS_STATES: Mapping[str, JobState] = {
    "Q": "queued", "W": "queued", "T": "queued", "H": "waiting",
    "R": "running", "E": "running", "B": "running", "S": "running",
}  # fmt: skip
COBALT_STATES: Mapping[str, JobState] = {
    "queued": "queued", "user_hold": "waiting", "dep_hold": "waiting", "dep_fail": "waiting",
    "starting": "running", "running": "running", "exiting": "running", "killing": "running",
}  # fmt: skip


def _qstat(ids: Sequence[str]) -> list[str]:
    return ["qstat", *ids]


def _read_pbs_qstat(text: str) -> Iterator[tuple[str, JobState]]:
    for words in (line.split() for line in text.splitlines()):
        if len(words) >= 5 and words[0][0].isdigit() and words[-2] in PBS_STATES:
            yield words[0], PBS_STATES[words[-2]]


def _read_cobalt_qstat(text: str) -> Iterator[tuple[str, JobState]]:
    for words in (line.split() for line in text.splitlines()):
        states = [COBALT_STATES[word] for word in words[1:] if word in COBALT_STATES]
        if states and words[0].isdecimal():
            yield words[0], states[0]


SCHEDULERS = {
    "slurm": Scheduler("Slurm", ("sbatch", "--parsable"), re.compile(r"\d+(_\d+)?"), _squeue, _read_squeue),
    "pbs": Scheduler("PBS", ("qsub",), PBS_JOB_ID, _qstat, _read_pbs_qstat, release=("qrls",)),
    "cobalt": Scheduler(
        "Cobalt", ("qsub",), re.compile(r"\d+"), _qstat, _read_cobalt_qstat, has_arrays=False, release=("qrls",)
    ),
}


def submit_script(scheduler: Scheduler, script: Path, options: Sequence[str] = ()) -> str:
    """Submit a script from the current directory; return the job's id.

    Raises
    ------
    ConfigError : its command is missing, or it refuses the script; nothing is queued.
    """
    command = [*scheduler.submit, *options, str(script)]
    if not shutil.which(command[0]):
        remedy = "submit on a login node of the machine; you may have to load a module"
        raise ConfigError(f"{command[0]} of {scheduler.title} is not on PATH", remedy=remedy)
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{scheduler.title} did not answer within {TIMEOUT:.0f} s", where=" ".join(command)) from None
    lines = result.stdout.split()
    job = lines[-1].partition(";")[0] if lines else ""
    if result.returncode or not scheduler.job_id.fullmatch(job):
        answer = result.stderr or result.stdout or f"exit code {result.returncode}"
        raise ConfigError(f"{scheduler.title} refuses the job: {answer}", where=str(script))
    return job


HOLD = ("-h",)
"""Option of ``qsub`` that holds a job, in PBS and Cobalt."""


def release(scheduler: Scheduler, jobs: Sequence[str]) -> None:
    """Release held jobs.

    Raises
    ------
    ConfigError : the scheduler does not release them.
    """
    command = [*scheduler.release, *jobs]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        if subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=False).returncode == 0:
            return
    raise ConfigError(f"{scheduler.title} still holds the first jobs", remedy=f"release them: {' '.join(command)}")


def query_states(scheduler: Scheduler, jobs: Sequence[str]) -> dict[str, JobState] | None:
    """Return the states of those jobs that have not ended; None where the scheduler does not answer."""
    if not jobs:
        return {}
    command = scheduler.list_command(jobs)
    try:
        # Ignore the exit code: PBS and Cobalt fail when one of the jobs has ended.
        result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = {_key(job): state for job, state in scheduler.parse(result.stdout)}
    return {job: found[_key(job)] for job in jobs if _key(job) in found}


def _key(job: str) -> str:
    """Return a job's id without its server, whose name qstat truncates."""
    return job.partition(".")[0]
