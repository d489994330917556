"""Cobalt: its command line, and its treatment of jobs."""

import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from jobs.directives import COBALT_FLAGS, Reading, cobalt_minutes, read_cobalt
from jobs.standin.state import Job, State, locked, read, site, user
from jobs.states import CANCELLED, DEP_FAIL, RUNNING, WAITING

SYNTAX = re.compile(r"no such option|ambiguous option|.*requires \d argument|.*invalid integer value")
TAKEN = re.compile(r"ignored:|dependency .* is no job id|--(?!time)\w+: quotes stay|.* is taken as the script")
"""Mistakes that Cobalt queues all the same."""


# ---- qsub -------------------------------------------------------------------------------------------------------


def qsub(folder: Path, arguments: Sequence[str]) -> int:
    options, rest = _cut(arguments)
    if not rest:
        return _say("'command' not provided", 1)
    cwd = Path(_value(options, "--cwd") or Path.cwd())
    script = cwd / rest[0]
    if not (script.is_file() and os.access(script, os.X_OK | os.R_OK)):
        return _say(f"command {rest[0]} not found, or is not executable", 1)
    text = script.read_bytes().decode()  # with its line ends
    reading = read_cobalt(text, arguments=options, folder=cwd)
    if any("is taken as the script" in problem for problem in reading.problems):
        reading = read_cobalt(text, folder=cwd)  # the command line's options are dropped
    problems = [problem for problem in reading.problems if not TAKEN.match(problem)]
    for problem in problems + _of_the_queue(reading, site(folder).queues):
        return _say(problem, 2 if SYNTAX.match(problem) else 1)
    with locked(folder) as state:
        job = _queue(state, reading, script, rest[1:], cwd)
        _depend(job, reading.options.get("dependencies", ""), state)
    print(job.number)
    return 0


def _cut(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Cut a command line at its first word that is neither an option nor an option's value: the script."""
    flags = {name for names in COBALT_FLAGS for name in names}
    left, options = list(arguments), []
    while left and left[0].startswith("-"):
        options.append(left.pop(0))
        has_value = options[-1] not in flags and "=" not in options[-1]
        if has_value and (options[-1].startswith("--") or len(options[-1]) == 2) and left:
            options.append(left.pop(0))
    return options, left


def _value(options: Sequence[str], name: str) -> str | None:
    for word, value in zip(options, [*options, ""][1:], strict=True):
        if word == name:
            return value
        if word.startswith(name + "="):
            return word.partition("=")[2]
    return None


def _of_the_queue(reading: Reading, queues: dict[str, int]) -> list[str]:
    queue = reading.options.get("queue", next(iter(queues)))
    if queue not in queues:
        return [f"queue '{queue}' does not exist"]
    if 60 * (cobalt_minutes(reading.options.get("time", "0")) or 0) > queues[queue]:
        return [f"Walltime greater than maximum of queue {queue}"]
    return []


def _queue(state: State, reading: Reading, script: Path, arguments: list[str], cwd: Path) -> Job:
    options, number = reading.options, state.next
    state.next += 1
    queue = options.get("queue", next(iter(state.site.queues)))
    minutes = cobalt_minutes(options["time"]) or state.site.queues[queue] // 60
    nodes = int(options["nodecount"])
    prefix = str(cwd / _expand(options.get("outputprefix", str(number)), number))
    job = Job(
        number=number, name=_expand(options.get("jobname", "N/A"), number), user=user(), queue=queue,
        account=options.get("project", ""), cwd=str(cwd), command=[str(script), *arguments], walltime=60 * minutes,
        nodes=nodes, hosts=[os.uname().nodename] * nodes, held="held" in options,
        umask=int(options.get("umask", "022"), 8),
        env=_environment(options.get("env", ""), number),
        output=str(cwd / _expand(options.get("output", f"{prefix}.output"), number)),
        error=str(cwd / _expand(options.get("error", f"{prefix}.error"), number)),
    )  # fmt: skip
    job.comment = str(cwd / _expand(options.get("debuglog", f"{prefix}.cobaltlog"), number))
    state.jobs.append(job)
    _log(job, f"submitted with cwd set to: {cwd}")
    return job


def _expand(text: str, number: int) -> str:
    return text.replace("$COBALT_JOBID", str(number)).replace("$jobid", str(number))


def _environment(text: str, number: int) -> dict[str, str]:
    r"""Read NAME=VALUE:NAME=VALUE, where \: and \= belong to a value."""
    items = [item for item in re.split(r"(?<!\\):", text) if item]
    pairs = (re.split(r"(?<!\\)=", item, maxsplit=1) for item in items)
    return {name: re.sub(r"\\([:=])", r"\1", _expand(value, number)) for name, value in pairs}


def _log(job: Job, message: str) -> None:
    with Path(job.comment).open("a") as log:
        print(f"{time.ctime()}\tInfo: {message}", file=log)


# ---- dependencies -----------------------------------------------------------------------------------------------


def _depend(job: Job, text: str, state: State) -> None:
    """Record dependencies. A job that is not in the queue, even a successful one, can never satisfy one."""
    job.depend, job.needs = text, [other for other in text.split(":") if other]
    queued = {str(other.number) for other in state.jobs if other.state in (WAITING, RUNNING)} - {str(job.number)}
    lost = [other for other in job.needs if other not in queued]
    if lost:
        print(f"WARNING: dependencies {':'.join(lost)} do not match jobs currently in the queue", file=sys.stderr)
    job.state = DEP_FAIL if lost else WAITING


def look_at_dependencies(job: Job, state: State) -> None:
    """Do nothing: the end of a job releases or fails those that wait for it."""


def finish(job: Job, state: State) -> None:
    """Release jobs that waited for one that ended with status 0; the others can never run."""
    _log(job, f"task completed with an exit code of {job.code}; initiating job cleanup and removal")
    for other in state.jobs:
        if other.state == WAITING and str(job.number) in other.needs:
            if job.well:
                other.needs.remove(str(job.number))
            else:
                other.state = DEP_FAIL


# ---- the job ----------------------------------------------------------------------------------------------------


def environment(job: Job, state: State, nodefile: Path) -> dict[str, str]:
    """Return the login environment with the additions of --env and of Cobalt."""
    start = job.started or time.time()
    login = {"USER": job.user, "LOGNAME": job.user, "SHELL": "/bin/bash", **state.site.login}
    return login | job.env | {
        "COBALT_JOBID": str(job.number), "COBALT_NODEFILE": str(nodefile), "COBALT_PARTNAME": job.hosts[0],
        "COBALT_PARTSIZE": str(job.nodes), "COBALT_JOBSIZE": str(job.nodes), "COBALT_STARTTIME": str(int(start)),
        "COBALT_ENDTIME": str(int(start + job.walltime * state.site.scale)),
    }  # fmt: skip


def places(job: Job, state: State) -> tuple[Path, Path, Path]:
    """Return the files of output and error, and the folder where the script starts: where qsub was called."""
    return Path(job.output), Path(job.error), Path(job.cwd)


def exit_code(job: Job, returncode: int) -> int:
    return returncode


def id_of(job: Job) -> str:
    return str(job.number)


# ---- qdel, qrls, qalter, qstat ---------------------------------------------------------------------------------------


def _numbers(arguments: Sequence[str]) -> list[int] | None:
    numbers = [int(word) for word in arguments if word.isdecimal()]
    return numbers if numbers and len(numbers) == len(arguments) else None


def qdel(folder: Path, arguments: Sequence[str]) -> int:
    numbers = _numbers(arguments)
    if numbers is None:
        return _say("jobid must be an integer", 1)
    with locked(folder) as state:
        jobs = [job for job in state.jobs if job.number in numbers and _in_queue(job)]
        for job in jobs:
            job.ending = "delete"
            if job.state != RUNNING:
                job.state, job.ended = CANCELLED, time.time()
    if not jobs:
        return _say("qdel: no job matches", 1)
    print("      Deleted Jobs", *_table(["JobID", "User"], [[str(job.number), job.user] for job in jobs]), sep="\n")
    return 0


def qrls(folder: Path, arguments: Sequence[str]) -> int:
    """Release held jobs."""
    numbers = _numbers(arguments)
    if numbers is None:
        return _say("jobid must be an integer", 1)
    with locked(folder) as state:
        jobs = [job for job in state.jobs if job.number in numbers and _in_queue(job)]
        for job in jobs:
            job.held = False
    return 0 if jobs else _say("Failed to match any jobs", 1)


def qalter(folder: Path, arguments: Sequence[str]) -> int:
    options, rest = _cut(arguments)
    dependencies, numbers = _value(options, "--dependencies"), _numbers(rest)
    if dependencies is None or len(options) > 2:
        return _say("the stand-in of qalter knows --dependencies only", 99)
    if numbers is None:
        return _say("jobid must be an integer", 1)
    with locked(folder) as state:
        jobs = [job for job in state.jobs if job.number in numbers and job.state in (WAITING, DEP_FAIL)]
        for job in jobs:
            _depend(job, "" if dependencies.lower() == "none" else dependencies, state)
    return 0 if jobs else _say("Failed to match any jobs", 1)


def qstat(folder: Path, arguments: Sequence[str]) -> int:
    """Show the jobs in the queue; ended jobs are forgotten."""
    words = list(arguments)
    shown = words.pop(words.index("--header") + 1).split(":") if "--header" in words else None
    flags = {word for word in words if word.startswith("-")} - {"--header"}
    names = [word for word in words if not word.startswith("-")]
    if not all(name.isdecimal() for name in names):
        return _say(f"{names[0]} is not a valid jobid or queue name", 1)
    if flags - {"-f", "--full", "-l", "--long"}:
        return _say("the stand-in of qstat knows -f and -l only", 99)
    jobs = [job for job in read(folder).jobs if _in_queue(job) and (not names or str(job.number) in names)]
    if names and not jobs:
        return 1
    full = bool(flags & {"-f", "--full"})
    header = ["JobID", *(["JobName"] if full else []), "User", "WallTime", "Nodes", "State", "Location"]
    header += ["Queue", "Project", "Dependencies"] if full else []
    header = shown or header
    rows = [[_shown(job)[name] for name in header] for job in jobs]
    if flags & {"-l", "--long"}:
        for row in rows:
            print(*(f"{name:<15}: {value}" for name, value in zip(header, row, strict=True)), "", sep="\n")
    else:
        print(*_table(header, rows), sep="\n")
    return 0


def _in_queue(job: Job) -> bool:
    return job.state in (WAITING, RUNNING, DEP_FAIL)


def _shown(job: Job) -> dict[str, str]:
    waiting = "user_hold" if job.held else "dep_hold" if job.needs else "queued"
    state = {WAITING: waiting, RUNNING: "killing" if job.ending else "running", DEP_FAIL: "dep_fail"}[job.state]
    minutes = job.walltime // 60
    return {
        "JobID": str(job.number), "JobName": job.name, "User": job.user, "Command": job.command[0],
        "WallTime": f"{minutes // 60:02d}:{minutes % 60:02d}:00", "Nodes": str(job.nodes), "State": state,
        "Location": job.hosts[0] if job.state == RUNNING else "None", "Queue": job.queue,
        "Project": job.account or "-", "Dependencies": job.depend or "-",
    }  # fmt: skip


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = ["  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)) for row in [header, *rows]]
    return [lines[0], "=" * len(lines[0]), *lines[1:]]


def _say(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code
