"""The schedulers: how to submit a script to each, and how to query the states of jobs."""

import contextlib
import os
import pwd
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

from scimill.errors import ConfigError

TIMEOUT = 120.0  # s; a busy scheduler may need a minute to answer
INDEX = "SCIMILL_ARRAY_INDEX"
"""Variable that holds a job's array index where no scheduler sets one."""

HOSTS = {"pbs": "PBS_NODEFILE", "cobalt": "COBALT_NODEFILE"}
"""Variables that hold the name of a file with the nodes of a job."""

JobState = Literal["waiting", "stuck", "queued", "running", "ended"]
"""State of a job; waiting: held, or for another job; stuck: for one that has failed."""


@dataclass(frozen=True)
class Answer:
    """What a scheduler says of jobs.

    Parameters
    ----------
    states : states by job.
    unclear : why the scheduler's answer leaves the state open, by job.
    reasons : why a job does not run yet, in the scheduler's words, by job.

    """

    states: Mapping[str, JobState]
    unclear: Mapping[str, str]
    reasons: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Listed:
    """A job as its scheduler lists it."""

    word: str
    """the scheduler's word for its state"""
    command: str = ""
    """text that contains the name of its script; empty if the scheduler does not show it"""
    reason: str = ""
    """why it does not run yet"""


Jobs = dict[str, Listed]


@dataclass(frozen=True)
class Scheduler:
    """Commands of a scheduler, and how to read their output."""

    title: str
    words: Mapping[str, JobState]
    """its words for the states of jobs"""
    submit: tuple[str, ...]
    """command that submits a script and prints the job's id"""
    job_id: re.Pattern[str]
    look_up: Callable[[Sequence[str]], tuple[Jobs, Mapping[str, str]]]
    """returns the jobs with these ids, and why others are unclear; it names those that have ended, or lists them"""
    list_own: Callable[[], Jobs]
    """lists the user's jobs that have not ended"""
    cancel: tuple[str, ...]
    """command that cancels jobs"""
    move: Callable[[str, Sequence[str]], list[str]] | None
    """returns the command that makes a job wait for others; None if the scheduler has none"""
    directives: Mapping[Literal["after", "array"], str]
    """patterns of the directives by which a job waits for others, and is an array"""
    has_arrays: bool = True
    release: tuple[str, ...] = ()
    """command that releases held jobs, where a job must be held until those that wait for it are queued"""
    submit_inside: tuple[str, ...] = ()
    """command that submits a script from inside a job, if it is another one"""

    def element(self, job: str, index: int) -> str:
        """Return the id to wait for where a job depends on one element of an array."""
        return f"{job}_{index}" if self.title == "Slurm" else job

    def whole(self, job: str) -> str:
        """Return the id of the array to which a job belongs, or of the job if it belongs to none."""
        return re.sub(r"_\d+$", "", job) if self.title == "Slurm" else job

    def sibling(self, job: str, index: int | None) -> str:
        """Return the id of another element of the array to which a job belongs, or of the job if it has no array."""
        return re.sub(r"_\d+$", f"_{index}", job) if self.title == "Slurm" else job


# ---- words of the schedulers ------------------------------------------------------------------------------------


def _words(**words: str) -> dict[str, JobState]:
    return {word: cast(JobState, state) for state, listed in words.items() for word in listed.split()}


SLURM_WORDS = _words(
    waiting="Dependency",
    stuck="DependencyNeverSatisfied",
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
    waiting="admin_hold dep_hold user_hold",
    stuck="dep_fail",
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


class Unclear(ConfigError):
    """The scheduler does not report what its jobs are doing."""


class _NoAnswer(Exception):
    """The scheduler's command failed; the text is what was seen."""


def _call(command: Sequence[str], keep: Sequence[int] = ()) -> subprocess.CompletedProcess[str]:
    """Run a scheduler's command; descriptors to keep stay open until it ends, even if this process is killed.

    A shell keeps them, not the command: the qsub of OpenPBS leaves a process that would hold them for a minute more.
    """
    closed = " ".join(f"{descriptor}>&-" for descriptor in keep)
    words = ["bash", "-c", f'"$@" {closed}; exit $?', command[0], *command] if keep else command
    try:
        with subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=_environment_outside(), pass_fds=keep, process_group=0,
        ) as process:  # fmt: skip
            try:
                output, errors = process.communicate(timeout=TIMEOUT)
            except BaseException:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # the command too, before anybody can take the lock
                raise
    except subprocess.TimeoutExpired:
        raise _NoAnswer(f"{command[0]} did not answer within {TIMEOUT:g} s") from None
    except OSError as error:
        raise _NoAnswer(f"{command[0]}: {error.strerror}") from None
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def _failure(result: subprocess.CompletedProcess[str]) -> str:
    """Describe what a command that failed has printed."""
    lines = (result.stderr or result.stdout).strip().splitlines()
    return f"{result.args[0]} ended with exit code {result.returncode}: {lines[-1] if lines else 'no text'}"


def _list_slurm() -> Jobs:
    """List the user's jobs, also those in partitions that are hidden from the user."""
    result = _call([*SQUEUE, "--user", str(os.getuid())])
    if result.returncode:
        raise _NoAnswer(_failure(result))
    return _read_slurm(result)


SQUEUE = ("squeue", "--all", "--noheader", "--array", "--format", "%i|%T|%r|%o")


def _read_slurm(result: subprocess.CompletedProcess[str]) -> Jobs:
    rows = [line.split("|", 3) for line in result.stdout.splitlines() if line]
    for row in rows:
        if len(row) < 4:
            raise _NoAnswer(f"squeue lists {'|'.join(row)!r}")
    return {job: Listed(_slurm_word(word, why), command, why) for job, word, why, command in rows}


def _slurm_word(word: str, why: str) -> str:
    return why if word == "PENDING" and why.startswith("Dependency") else word


def _look_up_slurm(jobs: Sequence[str]) -> tuple[Jobs, Mapping[str, str]]:
    """List all jobs of the user: those that are not listed have ended, unless the accounting says otherwise."""
    listed = _list_slurm()
    accounted = _ask_accounting([job for job in jobs if job not in listed])
    return dict.fromkeys(jobs, Listed("COMPLETED")) | accounted | listed, {}


def _ask_accounting(jobs: Sequence[str]) -> Jobs:
    """Return what sacct calls jobs that are not in the list of squeue; nothing where there is no accounting."""
    if not jobs or not shutil.which("sacct"):
        return {}
    result = _call(
        ["sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID,State", "--jobs", ",".join(jobs)]
    )
    lines = [line.partition("|") for line in result.stdout.splitlines()] if result.returncode == 0 else []
    words = {job: word.split()[0] for job, _, word in lines if job in jobs and word.strip()}  # "CANCELLED by 1000"
    ended = {job for job, word in words.items() if SLURM_WORDS.get(word) == "ended"}
    return {job: Listed(word if job in ended else f"{word} (sacct alone)") for job, word in words.items()}


def _list_pbs() -> Jobs:
    result = _call(["qselect", "-u", pwd.getpwuid(os.getuid()).pw_name])
    if result.returncode or result.stderr.strip():
        raise _NoAnswer(_failure(result))
    jobs = result.stdout.split()
    found, seen = _look_up_pbs(jobs) if jobs else ({}, {})
    for job in jobs:
        if job not in found:
            raise _NoAnswer(seen[job])
    return found


def _look_up_pbs(jobs: Sequence[str]) -> tuple[Jobs, Mapping[str, str]]:
    """Ask for jobs by their ids; a job has ended if qstat shows it so, or names it as unknown or finished."""
    result = _call(["qstat", "-f", *jobs])
    text = result.stdout.replace("\n\t", "")  # long values are continued on lines that begin with a tabulator
    blocks = [block.splitlines() for block in text.split("Job Id: ")[1:]]
    found = {_key(block[0].strip()): _read_pbs(block[1:]) for block in blocks}
    gone = {_key(match[1] or match[2]): Listed("F") for match in UNKNOWN.finditer(result.stderr)}
    seen = _failure(result) if result.stderr.strip() else "qstat shows no state"
    known = gone | found
    return {job: known[_key(job)] for job in jobs if _key(job) in known}, dict.fromkeys(jobs, seen)


def _read_pbs(lines: Sequence[str]) -> Listed:
    values = {name.strip(): value.strip() for name, _, value in (line.partition(" = ") for line in lines)}
    command = values.get("Submit_arguments") or values.get("submit_args", "")
    return Listed(values.get("job_state", ""), command, values.get("comment", ""))


def _list_cobalt() -> Jobs:
    return _call_cobalt(())


def _look_up_cobalt(jobs: Sequence[str]) -> tuple[Jobs, Mapping[str, str]]:
    """Ask for jobs by their ids: those that are not in the table have ended; without any, qstat fails and is silent."""
    return dict.fromkeys(jobs, Listed("done")) | _call_cobalt(jobs), {}


def _call_cobalt(jobs: Sequence[str]) -> Jobs:
    result = _call(["qstat", "--header", "JobID:State:Command", *jobs])
    if result.returncode and (result.returncode != 1 or (result.stderr + result.stdout).strip()):
        raise _NoAnswer(_failure(result))
    rows = (line.split(None, 2) for line in result.stdout.splitlines())
    return {row[0]: Listed(row[1], " ".join(row[2:])) for row in rows if len(row) > 1 and row[0].isdecimal()}


def _list_flux() -> Jobs:
    return _call_flux(())[0]


def _look_up_flux(jobs: Sequence[str]) -> tuple[Jobs, Mapping[str, str]]:
    """Ask for jobs by their ids: Flux names those that it does not have, because it purged them after their end.

    A Flux inside a job does not have the jobs of the Flux outside either.
    """
    listed, result = _call_flux(jobs)
    is_inside = "FLUX_ENCLOSING_ID" in os.environ
    gone = set() if is_inside else {_decimal(match[1]) for match in UNKNOWN_TO_FLUX.finditer(result.stderr)}
    found = {job: listed[_decimal(job)] for job in jobs if _decimal(job) in listed}
    found |= {job: Listed("COMPLETED") for job in jobs if _decimal(job) in gone and job not in found}
    seen = _failure(result) if result.stderr.strip() else "flux jobs shows no state"
    return found, dict.fromkeys(jobs, seen)


def _call_flux(jobs: Sequence[str]) -> tuple[Jobs, subprocess.CompletedProcess[str]]:
    """Ask for jobs; the name of a job of a chain is that of its script."""
    result = _call(["flux", "jobs", "--no-header", "--format={id.dec} {status} {name}", *jobs])
    if result.returncode and not jobs:
        raise _NoAnswer(_failure(result))
    rows = (line.split(None, 2) for line in result.stdout.splitlines())
    return {row[0]: Listed(row[1], " ".join(row[2:])) for row in rows if len(row) > 1 and row[0].isdecimal()}, result


def _decimal(job: str) -> str:
    """Return a job's id of Flux as a decimal number, which does not depend on the locale."""
    number = 0
    if job[:1] not in ("f", "ƒ"):
        return job
    for digit in job[1:]:
        number = 58 * number + F58.index(digit)
    return str(number)


def query_states(scheduler: Scheduler, jobs: Mapping[str, str]) -> Answer:
    """Ask for the states of jobs; all are unclear where the scheduler does not answer.

    Parameters
    ----------
    scheduler : the scheduler.
    jobs : name of the script by job: a job with that id and another script is a later one, so this one has ended.

    """
    if not jobs:
        return Answer({}, {})
    try:
        found, seen = scheduler.look_up(tuple(jobs))
    except _NoAnswer as error:
        return Answer({}, dict.fromkeys(jobs, str(error)))
    known: Jobs = {job: found[job] for job in jobs if job in found}
    unclear = {job: seen[job] for job in jobs if job not in known}
    others = {job for job, listed in known.items() if listed.command and jobs[job] not in listed.command}
    words = {job: listed.word for job, listed in known.items() if job not in others}
    unclear |= {job: f"state {word!r} is unknown" for job, word in words.items() if word not in scheduler.words}
    states = {job: scheduler.words[word] for job, word in words.items() if word in scheduler.words}
    reasons = {job: known[job].reason for job, state in states.items() if state in ("waiting", "stuck", "queued")}
    return Answer(states | dict.fromkeys(others, "ended"), unclear, reasons)


def shows_scripts(scheduler: Scheduler, jobs: Mapping[str, str]) -> bool:
    """Return whether none of some jobs, all just submitted, is shown with another script than its own."""
    try:
        found = scheduler.look_up(tuple(jobs))[0] if jobs else {}
    except _NoAnswer:
        return True
    return all(jobs[job] in listed.command for job, listed in found.items() if job in jobs and listed.command)


def has_ended(scheduler: Scheduler, jobs: Collection[str]) -> set[str]:
    """Return those of some jobs, perhaps of other users, that have certainly ended."""
    if not jobs:
        return set()
    if scheduler.title == "Slurm":
        try:
            result = _call([*SQUEUE, "--jobs", ",".join(jobs)])
            listed = {job: one.word for job, one in _read_slurm(result).items()}
        except _NoAnswer:
            return set()
        known = dict.fromkeys(jobs, "COMPLETED") if result.returncode == 0 or "Invalid job id" in result.stderr else {}
        return {job for job, word in (known | listed).items() if SLURM_WORDS.get(word) == "ended"}
    states = query_states(scheduler, dict.fromkeys(jobs, "")).states
    return {job for job, state in states.items() if state == "ended"}


def find_jobs(scheduler: Scheduler, scripts: Collection[str]) -> dict[str, str]:
    """Find jobs that have not ended by the names of their scripts; return the ids of those that there are.

    Raises
    ------
    Unclear : the scheduler does not answer.
    """
    try:
        jobs = scheduler.list_own() if scripts else {}
    except _NoAnswer as error:
        what = f"{scheduler.title} did not report whether a job was queued: {error}"
        raise Unclear(what, remedy="repeat the command once it answers") from None
    alive = {job: one.command for job, one in jobs.items() if scheduler.words.get(one.word) != "ended"}
    listed = {script: [job for job, command in alive.items() if script in command] for script in scripts}
    return {script: found[0] for script, found in listed.items() if found}


def _key(job: str) -> str:
    """Return a job's id without its server, whose name qstat truncates."""
    return job.partition(".")[0]


PBS_JOB_ID = re.compile(r"\d+(\[\d*\])?(\.[\w.-]+)?")
SCHEDULERS = {
    "slurm": Scheduler(
        "Slurm", SLURM_WORDS, ("sbatch", "--parsable"), re.compile(r"\d+(_\d+)?"), _look_up_slurm, _list_slurm,
        cancel=("scancel",),
        move=lambda job, others: ["scontrol", "update", f"JobId={job}", f"Dependency=afterok:{':'.join(others)}"],
        directives={"after": "#SBATCH --(dependency|kill-on-invalid-dep)=.*", "array": "#SBATCH --array=.*"},
    ),
    "pbs": Scheduler(
        "PBS", PBS_WORDS, ("qsub",), PBS_JOB_ID, _look_up_pbs, _list_pbs,
        cancel=("qdel",),
        move=lambda job, others: ["qalter", "-W", f"depend=afterok:{':'.join(others)}", job],
        directives={"after": "#PBS -W depend=.*", "array": "#PBS -J .*"},
        release=("qrls",),
    ),
    "cobalt": Scheduler(
        "Cobalt", COBALT_WORDS, ("qsub",), re.compile(r"\d+"), _look_up_cobalt, _list_cobalt,
        cancel=("qdel",),
        move=lambda job, others: ["qalter", "--dependencies", ":".join(others), job],
        directives={"after": "#COBALT --dependencies .*", "array": "(?!)"},
        has_arrays=False,
        release=("qrls",),
    ),
    "flux": Scheduler(
        "Flux", FLUX_WORDS, ("flux", "batch"), re.compile(rf"[fƒ][{F58}]+|\d+"), _look_up_flux, _list_flux,
        cancel=("flux", "cancel"),
        move=None,
        directives={"after": "# flux: --dependency=.*", "array": "(?!)"},
        has_arrays=False,
        submit_inside=("flux", "--parent", "batch"),
    ),
}  # fmt: skip


# ---- changing ---------------------------------------------------------------------------------------------------


def submit_script(scheduler: Scheduler, script: Path, options: Sequence[str] = (), keep: Sequence[int] = ()) -> str:
    """Submit a script from the current directory; return the job's id.

    Parameters
    ----------
    scheduler, script : what to submit, and where.
    options : more options of the scheduler's command.
    keep : descriptors that the command keeps open while it runs.

    Raises
    ------
    ConfigError : its command is missing, or it refuses the script: nothing is queued; or it does not answer.
    """
    words = (
        scheduler.submit_inside if scheduler.submit_inside and "FLUX_ENCLOSING_ID" in os.environ else scheduler.submit
    )
    command = [*words, *options, str(script)]
    if not shutil.which(command[0]):
        remedy = "submit on a login node of the machine; you may have to load a module"
        raise ConfigError(f"{command[0]} of {scheduler.title} is not on PATH", remedy=remedy)
    try:
        result = _call(command, keep)
    except _NoAnswer as error:
        remedy = "see whether the job was queued all the same; a chain does that itself if you repeat the command"
        raise ConfigError(str(error), where=" ".join(command), remedy=remedy) from None
    lines = result.stdout.split()
    job = lines[-1].partition(";")[0] if lines else ""
    if result.returncode or not scheduler.job_id.fullmatch(job):
        answer = result.stderr or result.stdout or f"exit code {result.returncode}"
        raise ConfigError(f"{scheduler.title} refuses the job: {answer}", where=str(script))
    return job


def _environment_outside() -> dict[str, str]:
    """Return the environment without what a job has set: sbatch would take its scheduler's variables as options.

    Flux prints ids with an f instead of a ƒ, which not every locale has.
    """
    environment = {**os.environ, "FLUX_F58_FORCE_ASCII": "1"}
    environment = {name: value for name, value in environment.items() if name != INDEX and name[:7] != "SQUEUE_"}
    if not {"SLURM_JOB_ID", "PBS_JOBID", "COBALT_JOBID"} & environment.keys():
        return environment
    of_job = re.compile(r"(?!SLURM_CONF$|SLURM_CLUSTERS$)SLURM_|PBS_(?!CONF_FILE$|DEFAULT$|SERVER$|EXEC$)|COBALT_")
    return {name: value for name, value in environment.items() if not of_job.match(name)}


HOLD = ("-h",)
"""Option of ``qsub`` that holds a job, in PBS and Cobalt."""


def change(command: Sequence[str]) -> str:
    """Run a command that changes jobs; return what it says if it fails."""
    try:
        result = _call(command)
    except _NoAnswer as error:
        return str(error)
    return _failure(result) if result.returncode else ""


def release(scheduler: Scheduler, jobs: Sequence[str]) -> None:
    """Release held jobs.

    Raises
    ------
    ConfigError : the scheduler does not release them.
    """
    command = [*scheduler.release, *jobs]
    if change(command):
        raise ConfigError(f"{scheduler.title} still holds the first jobs", remedy=f"release them: {' '.join(command)}")
