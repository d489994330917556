"""The schedulers: how to submit a script to each, and how to query the states of jobs."""

import contextlib
import getpass
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from scimill.errors import ConfigError

TIMEOUT = 120.0  # s; a busy scheduler may need a minute to answer
INDEX = "SCIMILL_ARRAY_INDEX"
"""Variable that holds a job's array index where the scheduler has no arrays."""

JobState = Literal["waiting", "queued", "running", "ended"]
"""State of a job; waiting: held, or for another job."""


@dataclass(frozen=True)
class Answer:
    """What a scheduler says of jobs.

    Parameters
    ----------
    states : states by job.
    unclear : why the scheduler's answer does not tell the state, by job.

    """

    states: Mapping[str, JobState]
    unclear: Mapping[str, str]


@dataclass(frozen=True)
class Scheduler:
    """Commands of a scheduler, and how to read their output."""

    title: str
    submit: tuple[str, ...]
    """command that submits a script and prints the job's id"""
    job_id: re.Pattern[str]
    ask: Callable[[Sequence[str]], Answer]
    """asks for the states of jobs"""
    has_arrays: bool = True
    release: tuple[str, ...] = ()
    """command that releases held jobs, where a job must be held until those that wait for it are queued"""

    def element(self, job: str, index: int) -> str:
        """Return the id to wait for where a job depends on one element of an array."""
        return f"{job}_{index}" if self.title == "Slurm" else job


# ---- words of the schedulers ------------------------------------------------------------------------------------


def _words(**words: str) -> dict[str, JobState]:
    return {word: cast(JobState, state) for state, listed in words.items() for word in listed.split()}


SLURM_WORDS = _words(
    waiting="Dependency",
    queued="PENDING REQUEUED REQUEUE_FED REQUEUE_HOLD RESV_DEL_HOLD SPECIAL_EXIT",
    running="COMPLETING CONFIGURING EXPEDITING POWER_UP_NODE RECONFIG_FAIL RESIZING RUNNING SIGNALING STAGE_OUT"
    " STOPPED SUSPENDED UPDATE_DB",
    ended="BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED LAUNCH_FAILED NODE_FAIL OUT_OF_MEMORY PREEMPTED REVOKED"
    " TIMEOUT",
)
"""Job states and their flags, from ``man squeue`` of Slurm 22.05 to 25.05; and the reason of a PENDING job."""
PBS_WORDS = _words(queued="Q T W", waiting="H", running="B E R S U", ended="C F X")
"""Letters from ``man qstat`` of OpenPBS 23.06, and C of Torque. M is missing: a job that another server has."""
COBALT_WORDS = _words(
    queued="maxrun_hold preempted queued",
    waiting="admin_hold dep_fail dep_hold user_hold",
    running="exiting killing preempting running starting",
    ended="done",
)
"""Words of the property ``state`` of a job, and ``dep_fail``, in Cobalt's cqm.py."""
FLUX_WORDS = _words(
    queued="NEW PRIORITY SCHED",
    waiting="DEPEND",
    running="CLEANUP RUN",
    ended="CANCELED COMPLETED FAILED TIMEOUT",
)
"""Words of ``{status}`` from flux-jobs(1) of flux-core 0.80, and NEW of its RFC 21."""
F58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
"""Digits of a job's id of Flux, after f or ƒ; from RFC 19."""
UNKNOWN = re.compile(r"Unknown Job Id (?:Error )?(\S+)|(\S+) Job has finished")
"""PBS and Torque about a job that they do not have, exit code 153, or that is over, exit code 35."""
UNKNOWN_TO_FLUX = re.compile(r"JobID (\S+) unknown")


# ---- asking -----------------------------------------------------------------------------------------------------


class _NoAnswer(Exception):
    """The scheduler's command failed; the text is what was seen."""


def _call(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT, check=False, stdin=subprocess.DEVNULL,
            env=_environment_outside(),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise _NoAnswer(f"{command[0]} did not answer within {TIMEOUT:g} s") from None
    except OSError as error:
        raise _NoAnswer(f"{command[0]}: {error.strerror}") from None


def _failure(result: subprocess.CompletedProcess[str]) -> str:
    """Describe what a command that failed has printed."""
    lines = (result.stderr or result.stdout).strip().splitlines()
    return f"{result.args[0]} ended with exit code {result.returncode}: {lines[-1] if lines else 'no text'}"


def _ask_slurm(jobs: Sequence[str]) -> Answer:
    """List all jobs of the user: those that are not listed have ended, unless the accounting says otherwise."""
    result = _call(["squeue", "--noheader", "--array", "--user", getpass.getuser(), "--format", "%i %T %r"])
    if result.returncode:
        raise _NoAnswer(_failure(result))
    rows = [line.split() for line in result.stdout.splitlines() if line]
    for row in rows:
        if len(row) < 3:
            raise _NoAnswer(f"squeue lists {' '.join(row)!r}")
    listed = {job: word for job, word, *_ in rows}
    listed |= {job: "Dependency" for job, word, why, *_ in rows if word == "PENDING" and why.startswith("Dependency")}
    accounted = _ask_accounting([job for job in jobs if job not in listed])
    return _translate(jobs, dict.fromkeys(jobs, "COMPLETED") | accounted | listed, SLURM_WORDS)


def _ask_accounting(jobs: Sequence[str]) -> dict[str, str]:
    """Return what sacct calls jobs that are not in the list of squeue; nothing where there is no accounting."""
    if not jobs or not shutil.which("sacct"):
        return {}
    result = _call(
        ["sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID,State", "--jobs", ",".join(jobs)]
    )
    lines = [line.partition("|") for line in result.stdout.splitlines()] if result.returncode == 0 else []
    words = {job: word.split()[0] for job, _, word in lines if job in jobs and word.strip()}  # "CANCELLED by 1000"
    return {job: word if SLURM_WORDS.get(word) == "ended" else f"{word} (sacct alone)" for job, word in words.items()}


def _ask_pbs(jobs: Sequence[str]) -> Answer:
    """Ask for jobs by their ids; a job has ended if qstat shows it so, or names it as unknown or finished."""
    result = _call(["qstat", *jobs])
    rows = (line.split() for line in result.stdout.splitlines())
    found = {_key(row[0]): row[-2] for row in rows if len(row) >= 5 and row[0][0].isdigit()}
    gone = {_key(match[1] or match[2]): "F" for match in UNKNOWN.finditer(result.stderr)}
    seen = _failure(result) if result.stderr.strip() else "qstat shows no state"
    return _translate(jobs, gone | found, PBS_WORDS, seen)


def _ask_cobalt(jobs: Sequence[str]) -> Answer:
    """Ask for jobs by their ids: those that are not in the table have ended; without any, qstat fails and is silent."""
    result = _call(["qstat", "--header", "JobID:State", *jobs])
    if result.returncode and (result.returncode != 1 or (result.stderr + result.stdout).strip()):
        raise _NoAnswer(_failure(result))
    rows = (line.split() for line in result.stdout.splitlines())
    found = {row[0]: row[1] for row in rows if len(row) == 2 and row[0].isdecimal()}
    return _translate(jobs, dict.fromkeys(jobs, "done") | found, COBALT_WORDS)


def _ask_flux(jobs: Sequence[str]) -> Answer:
    """Ask for jobs by their ids: Flux names those that it does not have, because it purged them after their end.

    A Flux inside a job does not have the jobs of the Flux outside either.
    """
    result = _call(["flux", "jobs", "--no-header", "--format={id.dec} {status}", *jobs])
    rows = (line.split() for line in result.stdout.splitlines())
    listed = {row[0]: row[1] for row in rows if len(row) == 2 and row[0].isdecimal()}
    is_inside = "FLUX_ENCLOSING_ID" in os.environ
    gone = set() if is_inside else {_decimal(match[1]) for match in UNKNOWN_TO_FLUX.finditer(result.stderr)}
    found = {job: listed[_decimal(job)] for job in jobs if _decimal(job) in listed}
    found |= {job: "COMPLETED" for job in jobs if _decimal(job) in gone and job not in found}
    seen = _failure(result) if result.stderr.strip() else "flux jobs shows no state"
    return _translate(jobs, found, FLUX_WORDS, seen)


def _decimal(job: str) -> str:
    """Return a job's id of Flux as a decimal number, which does not depend on the locale."""
    number = 0
    if job[:1] not in ("f", "ƒ"):
        return job
    for digit in job[1:]:
        number = 58 * number + F58.index(digit)
    return str(number)


def _translate(jobs: Sequence[str], found: Mapping[str, str], words: Mapping[str, JobState], seen: str = "") -> Answer:
    """Translate a scheduler's words for jobs; a missing or unknown word leaves a job's state unclear."""
    given = {job: found[_key(job)] for job in jobs if _key(job) in found}
    unclear = {job: seen for job in jobs if job not in given}
    unclear |= {job: f"state {word!r} is unknown" for job, word in given.items() if word not in words}
    return Answer({job: words[word] for job, word in given.items() if word in words}, unclear)


def query_states(scheduler: Scheduler, jobs: Sequence[str]) -> Answer:
    """Ask for the states of jobs; all are unclear where the scheduler does not answer."""
    if not jobs:
        return Answer({}, {})
    try:
        return scheduler.ask(jobs)
    except _NoAnswer as error:
        return Answer({}, dict.fromkeys(jobs, str(error)))


def _key(job: str) -> str:
    """Return a job's id without its server, whose name qstat truncates."""
    return job.partition(".")[0]


PBS_JOB_ID = re.compile(r"\d+(\[\d*\])?(\.[\w.-]+)?")
SCHEDULERS = {
    "slurm": Scheduler("Slurm", ("sbatch", "--parsable"), re.compile(r"\d+(_\d+)?"), _ask_slurm),
    "pbs": Scheduler("PBS", ("qsub",), PBS_JOB_ID, _ask_pbs, release=("qrls",)),
    "cobalt": Scheduler("Cobalt", ("qsub",), re.compile(r"\d+"), _ask_cobalt, has_arrays=False, release=("qrls",)),
    "flux": Scheduler("Flux", ("flux", "batch"), re.compile(rf"[fƒ][{F58}]+|\d+"), _ask_flux, has_arrays=False),
}


def submit_script(scheduler: Scheduler, script: Path, options: Sequence[str] = ()) -> str:
    """Submit a script from the current directory; return the job's id.

    Raises
    ------
    ConfigError : its command is missing, or it refuses the script: nothing is queued; or it does not answer.
    """
    command = [*scheduler.submit, *options, str(script)]
    if not shutil.which(command[0]):
        remedy = "submit on a login node of the machine; you may have to load a module"
        raise ConfigError(f"{command[0]} of {scheduler.title} is not on PATH", remedy=remedy)
    try:
        result = _call(command)
    except _NoAnswer as error:
        remedy = "before you repeat it, see whether the job was queued all the same"
        raise ConfigError(str(error), where=" ".join(command), remedy=remedy) from None
    lines = result.stdout.split()
    job = lines[-1].partition(";")[0] if lines else ""
    if result.returncode or not scheduler.job_id.fullmatch(job):
        answer = result.stderr or result.stdout or f"exit code {result.returncode}"
        raise ConfigError(f"{scheduler.title} refuses the job: {answer}", where=str(script))
    return job


def _environment_outside() -> dict[str, str]:
    """Return the environment without what a job's own scheduler has set in it: sbatch would take it as options.

    Flux prints ids with an f instead of a ƒ, which not every locale has.
    """
    return {**_environment_of_login(), "FLUX_F58_FORCE_ASCII": "1"}


def _environment_of_login() -> dict[str, str]:
    if not {"SLURM_JOB_ID", "PBS_JOBID", "COBALT_JOBID"} & os.environ.keys():
        return dict(os.environ)
    of_job = re.compile(r"(?!SLURM_CONF$|SLURM_CLUSTERS$)SLURM_|PBS_(?!CONF_FILE$|DEFAULT$|SERVER$|EXEC$)|COBALT_")
    return {name: value for name, value in os.environ.items() if not of_job.match(name)}


HOLD = ("-h",)
"""Option of ``qsub`` that holds a job, in PBS and Cobalt."""


def release(scheduler: Scheduler, jobs: Sequence[str]) -> None:
    """Release held jobs.

    Raises
    ------
    ConfigError : the scheduler does not release them.
    """
    command = [*scheduler.release, *jobs]
    with contextlib.suppress(_NoAnswer):
        if _call(command).returncode == 0:
            return
    raise ConfigError(f"{scheduler.title} still holds the first jobs", remedy=f"release them: {' '.join(command)}")
