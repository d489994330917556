"""PBS: its command line, and its treatment of jobs. Exit codes are OpenPBS's error numbers modulo 256."""

import json
import os
import re
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from jobs.directives import PBS_DEPEND, PBS_VALUES, Reading, pbs_seconds, read_pbs
from jobs.standin.state import Job, State, locked, read, site, user
from jobs.states import CANCELLED, RUNNING, WAITING

SERVER = "standin"
REFUSALS = {
    r"script contains cr, lf": 1,
    r"directive error|invalid option|option requires|illegal -z": 1,
    r"illegal -[Nj]": 2,
    r"illegal -": 2,
    r'"-lresource="': 5,
    r"Unknown resource": 187,
    r"Illegal attribute or resource value": 166,
    r"Unknown queue": 170,
    r"Job violates queue": 188,
    r".* is mandatory": 1,
    r"cannot submit a non-rerunable": 166,
}
"""Exit codes of qsub by the start of its message; "ignored:" is not a refusal."""
UNKNOWN_JOB, HISTORY, RUNNING_ALREADY, BAD_VALUE, MOST_QUEUED = 153, 35, 167, 166, 198
OPTIONS_NOT_HERE = {"I", "X", "C", "S", "a", "c", "p", "u", "block", "stagein", "stageout", "run_job_after", "on"}


# ---- qsub -------------------------------------------------------------------------------------------------------


def qsub(folder: Path, arguments: Sequence[str]) -> int:
    options, rest = _cut(arguments)
    path = Path(rest[0]) if rest else None
    if path and not path.is_file():
        return _say(f"qsub: script file:: No such file or directory: {path}", 1)
    text = path.read_bytes().decode() if path else sys.stdin.read()  # with its line ends
    place = site(folder)
    reading = read_pbs(text, arguments=options, queues=place.queues, required=place.required)
    default = next(iter(place.queues))
    if "q" not in reading.options and (pbs_seconds(reading.options.get("walltime", "")) or 0) > place.queues[default]:
        reading.refuse("Job violates queue and/or server resource limits")
    for problem in reading.problems:
        for pattern, code in REFUSALS.items():
            if re.match(pattern, problem):
                return _say(f"qsub: {problem}", code)
        assert problem.startswith("ignored:"), problem
    if missing := sorted(OPTIONS_NOT_HERE & reading.options.keys()):
        return _say(f"the stand-in of qsub has no {', '.join(missing)}", 99)
    with locked(folder) as state:
        if place.most_jobs is not None and sum(job.alive for job in state.jobs) >= place.most_jobs:
            return _say("qsub: Maximum number of jobs already in queue", MOST_QUEUED)
        print(_queue(state, reading, text, path.name if path else "STDIN"))
    return 0


def _cut(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Cut a command line where getopt stops: at the first word that is neither an option nor an option's value."""
    left = list(arguments)
    options = []
    while left and len(left[0]) > 1 and left[0][0] == "-":
        options.append(left.pop(0))
        if options[-1] == "--":
            return options[:-1], left
        if options[-1][1] in PBS_VALUES and len(options[-1]) == 2 and left:
            options.append(left.pop(0))
    return options, left


def _queue(state: State, reading: Reading, text: str, script: str) -> str:
    """Accept a job, or the tasks of an array, with a copy of the script; return the id."""
    options, number = reading.options, state.next
    state.next += 1
    copy = state.folder / "spool" / f"{number}.{SERVER}.SC"
    copy.write_bytes(text.encode())
    copy.chmod(0o700)
    queue = options.get("q", next(iter(state.site.queues)))
    name = options.get("N", script)
    nodes, hosts = _hosts(options.get("select", "1"))
    for index, array in _indices(options.get("J")):
        job = Job(
            number=number, index=index, array=array, most=_most(options.get("J", "")), name=name, user=user(),
            queue=queue, account=options.get("A", ""), cwd=str(Path.cwd()), nodes=nodes, hosts=hosts,
            command=["/bin/bash", "-l", "-c", shlex.quote(str(copy))],
            walltime=pbs_seconds(options.get("walltime", "")) or state.site.queues[queue],
            env=_exported(options), submitted_as=" ".join(sys.argv[3:]),
            held="h" in options, umask=int(options.get("umask", "077"), 8),
        )  # fmt: skip
        _place_outputs(job, options)
        state.jobs.append(job)
        _depend(job, options.get("depend", ""), state)
    return f"{number}[].{SERVER}" if "J" in options else f"{number}.{SERVER}"


def _indices(array: str | None) -> Iterator[tuple[int | None, str | None]]:
    if array is None:
        yield None, None
        return
    first, last, step = re.fullmatch(r"(\d+)-(\d+)(?::(\d+))?(?:%\d+)?", array).groups()  # type: ignore[union-attr]
    yield from ((index, array) for index in range(int(first), int(last) + 1, int(step or 1)))


def _most(array: str) -> int | None:
    return int(array.partition("%")[2]) if "%" in array else None


def _hosts(select: str) -> tuple[int, list[str]]:
    """Return the number of chunks, and a line of the node file for each process; all nodes are this machine."""
    nodes, lines = 0, 0
    for chunk in select.split("+"):
        count = re.match(r"\d+(?=:|$)", chunk)
        processes = re.search(r"mpiprocs=(\d+)", chunk)
        nodes += int(count[0]) if count else 1
        lines += (int(count[0]) if count else 1) * (int(processes[1]) if processes else 1)
    return nodes, [os.uname().nodename] * lines


def _exported(options: dict[str, str]) -> dict[str, str]:
    """Return the environment that -v and -V pass on, and the variables that qsub always sets."""
    passed = dict(os.environ) if "V" in options else {}
    for item in filter(None, options.get("v", "").split(",")):
        name, sign, value = item.partition("=")
        passed[name] = value if sign else os.environ.get(name, "")
    kept = {name: os.environ.get(name, "") for name in ("HOME", "LANG", "LOGNAME", "PATH", "SHELL")}
    return passed | {f"PBS_O_{name}": value for name, value in kept.items()} | {
        "PBS_O_WORKDIR": str(Path.cwd()), "PBS_O_HOST": os.uname().nodename, "PBS_O_SYSTEM": "Linux",
        "PBS_O_QUEUE": options.get("q", ""),
    }  # fmt: skip


def _place_outputs(job: Job, options: dict[str, str]) -> None:
    task = "" if job.index is None else f".{job.index}"
    for letter in "oe":
        path = Path(job.cwd, options.get(letter, "").rpartition(":")[2])
        if path.is_dir():
            path /= f"{job.name}.{letter}{job.number}{task}"
        job.output, job.error = (str(path), job.error) if letter == "o" else (job.output, str(path))
    if options.get("j") == "oe":
        job.error = job.output
    elif options.get("j") == "eo":
        job.output = job.error


# ---- dependencies -----------------------------------------------------------------------------------------------


def _depend(job: Job, text: str, state: State) -> None:
    """Record a dependency; if the server does not know that job, the waiting job ends at once."""
    kind, *others = text.split(":") if text else [""]
    job.depend, job.needs = text, [f"{kind}:{other}" for other in others]
    for other in others:
        known = _resolve(other, state)
        if not known or not (state.site.history or any(one.alive for one in known)):
            _remove(job, f"Job deleted as result of dependency on job {other}")


def _remove(job: Job, why: str) -> None:
    job.state, job.ended, job.comment, job.needs = CANCELLED, time.time(), why, []


def look_at_dependencies(job: Job, state: State) -> None:
    """Drop satisfied dependencies; remove a job with one that can no longer be satisfied."""
    for need in list(job.needs):
        kind, _, other = need.partition(":")
        met = _met(kind, _resolve(other, state))
        if met:
            job.needs.remove(need)
        elif met is False:
            _remove(job, f"Job deleted as result of dependency on job {other}")
            return


def _met(kind: str, jobs: list[Job]) -> bool | None:
    """Return whether a dependency is satisfied; None while that is undecided."""
    if kind == "after":
        return all(job.started for job in jobs) or (None if any(job.alive for job in jobs) else False)
    if any(job.alive for job in jobs):
        return None
    well = all(job.well for job in jobs)
    return {"afterany": True, "afterok": well, "afternotok": not well}[kind]


def _resolve(text: str, state: State) -> list[Job]:
    """Find a job by its id; an array's id has brackets, with or without the index of a task."""
    match = re.fullmatch(r"(\d+)(?:(\[)(\d*)\])?(?:\.(.+))?", text)
    if not match or match[4] not in (None, SERVER):
        return []
    jobs = state.find(int(match[1]), int(match[3]) if match[3] else None)
    return [job for job in jobs if (job.index is not None) == bool(match[2])]


# ---- the job ----------------------------------------------------------------------------------------------------


def id_of(job: Job) -> str:
    return f"{job.number}{'' if job.index is None else f'[{job.index}]'}.{SERVER}"


def environment(job: Job, state: State, nodefile: Path) -> dict[str, str]:
    """Return the login environment with PBS's additions and the exported variables of the submission."""
    login = {"USER": job.user, "LOGNAME": job.user, "SHELL": "/bin/bash", **state.site.login}
    own = state.folder / "tmp" / f"pbs.{id_of(job)}"
    own.mkdir(exist_ok=True)
    added = {
        "PBS_JOBID": id_of(job), "PBS_JOBNAME": job.name, "PBS_QUEUE": job.queue, "PBS_ENVIRONMENT": "PBS_BATCH",
        "ENVIRONMENT": "BATCH", "PBS_NODEFILE": str(nodefile), "PBS_TASKNUM": "1", "PBS_NODENUM": "0",
        "PBS_JOBDIR": login["HOME"], "PBS_MOMPORT": "15003", "TMPDIR": str(own),
    }  # fmt: skip
    if job.index is not None:
        added |= {"PBS_ARRAY_INDEX": str(job.index), "PBS_ARRAY_ID": f"{job.number}[].{SERVER}"}
    return login | job.env | added


def places(job: Job, state: State) -> tuple[Path, Path, Path]:
    """Return the spooled output and error, and the folder where the shell starts: home, not where qsub was called."""
    output = state.folder / "spool" / f"{id_of(job)}.OU"
    error = output if job.error == job.output else output.with_suffix(".ER")
    return output, error, Path(state.site.login["HOME"])


def exit_code(job: Job, returncode: int) -> int:
    if job.ending == "walltime":
        return -29
    if job.ending == "delete":
        return 271
    return 256 - returncode if returncode < 0 else returncode


def finish(job: Job, state: State) -> None:
    """Move the spooled output to its destination."""
    output, error, _ = places(job, state)
    for spooled, goal in {output: job.output, error: job.error}.items():
        if Path(goal).parent.is_dir():
            Path(goal).write_bytes(spooled.read_bytes())


# ---- qdel, qrls, qalter, qstat ---------------------------------------------------------------------------------------


def qdel(folder: Path, arguments: Sequence[str]) -> int:
    code = 0
    with locked(folder) as state:
        for text in (word for word in arguments if not word.startswith("-")):
            jobs = _resolve(text, state)
            code = _unknown("qdel", text, jobs) or code
            for job in jobs:
                job.ending = "delete" if job.alive else job.ending
    return code


def qrls(folder: Path, arguments: Sequence[str]) -> int:
    """Release jobs that a user holds."""
    code = 0
    with locked(folder) as state:
        for text in arguments:
            jobs = _resolve(text, state)
            code = _unknown("qrls", text, jobs) or code
            for job in jobs:
                job.held = False
    return code


def qselect(folder: Path, arguments: Sequence[str]) -> int:
    """List the ids of a user's jobs that have not ended."""
    if len(arguments) != 2 or arguments[0] != "-u":
        return _say("the stand-in of qselect knows -u USER only", 99)
    jobs = [job for job in read(folder).jobs if job.alive and job.user == arguments[1]]
    print(*dict.fromkeys(map(_parent, jobs)), sep="\n")
    return 0


def qalter(folder: Path, arguments: Sequence[str]) -> int:
    options, rest = _cut(arguments)
    if options[:1] != ["-W"] or len(options) != 2 or not options[1].startswith("depend="):
        return _say("the stand-in of qalter knows -W depend=... only", 99)
    depend = options[1].removeprefix("depend=")
    if depend and not PBS_DEPEND.fullmatch(depend):
        return _say("qalter: illegal -W value", 2)
    with locked(folder) as state:
        for text in rest:
            jobs = _resolve(text, state)
            if code := _unknown("qalter", text, jobs):
                return code
            if any(job.state != WAITING for job in jobs):
                return _say(f"qalter: Cannot modify attribute while job running  depend {text}", RUNNING_ALREADY)
            for job in jobs:
                _depend(job, depend, state)
    return 0


def _unknown(command: str, text: str, jobs: list[Job]) -> int:
    """Report that the job does not exist, or no longer does."""
    if not jobs:
        return _say(f"{command}: Unknown Job Id {text}", UNKNOWN_JOB)
    if not any(job.alive for job in jobs):
        return _say(f"{command}: {text} Job has finished, use -x or -H to obtain historical job information", HISTORY)
    return 0


def qstat(folder: Path, arguments: Sequence[str]) -> int:
    """Show jobs as a table; -f shows everything, -F json JSON, -x also ended jobs, -t tasks."""
    words = list(arguments)
    as_json = "-F" in words and words.pop(words.index("-F") + 1) == "json"
    letters = {letter for word in words if word.startswith("-") for letter in word[1:]}
    state, code = read(folder), 0
    names = [word for word in words if not word.startswith("-")]
    shown: dict[str, list[Job]] = {}
    for text in names or dict.fromkeys(_parent(job) for job in state.jobs):
        jobs = _resolve(text, state)
        forgotten = bool(jobs) and not state.site.history and not any(job.alive for job in jobs)
        if ("x" in letters and jobs and not forgotten) or any(job.alive for job in jobs):
            shown[text] = jobs
        elif names:
            code = _unknown("qstat", text, [] if forgotten else jobs)
    if "t" in letters:
        shown = {id_of(job): [job] for jobs in shown.values() for job in jobs}
    _print(shown, as_json, "f" in letters)
    return code


def _print(shown: dict[str, list[Job]], as_json: bool, full: bool) -> None:
    attributes = {_parent(jobs[0]) if len(jobs) > 1 else id_of(jobs[0]): _attributes(jobs) for jobs in shown.values()}
    if as_json:
        print(json.dumps({"timestamp": int(time.time()), "pbs_server": SERVER, "Jobs": attributes}, indent=4))
    elif full:
        for job, values in attributes.items():
            print(f"Job Id: {job}", *(f"    {name} = {value}" for name, value in values.items()), sep="\n", end="\n\n")
    elif attributes:
        print(f"{'Job id':<17} {'Name':<16} {'User':<16}  {'Time Use':<8} S Queue")
        print(f"{'-' * 17} {'-' * 16} {'-' * 16}  {'-' * 8} - {'-' * 5}")
        for job, values in attributes.items():
            name, owner = values["Job_Name"][:15], values["Job_Owner"].partition("@")[0]
            print(f"{job:<17} {name:<16} {owner:<16}  {'00:00:00':>8} {values['job_state']} {values['queue']}")


def _attributes(jobs: list[Job]) -> dict[str, str]:
    job = jobs[0]
    values = {
        "Job_Name": job.name, "Job_Owner": f"{job.user}@{os.uname().nodename}", "job_state": _letter(jobs),
        "queue": job.queue, "server": SERVER, "Error_Path": job.error, "Output_Path": job.output,
        "Resource_List.nodect": str(job.nodes), "Resource_List.walltime": _clock(job.walltime),
        "ctime": time.ctime(job.submitted),
    }  # fmt: skip
    optional = {
        "Submit_arguments": job.submitted_as,
        "Account_Name": job.account,
        "comment": job.comment,
        "depend": job.depend if job.needs else "",
    }
    if job.started and not job.alive and job.code is not None:
        optional["Exit_status"] = str(next((one.code for one in jobs if one.code), 0))
    return values | {name: value for name, value in optional.items() if value}


def _letter(jobs: list[Job]) -> str:
    if not any(job.alive for job in jobs):
        return "F"
    if len(jobs) > 1 and any(job.started for job in jobs):
        return "B"
    if any(job.state == RUNNING for job in jobs):
        return "E" if jobs[0].ending else "R"
    return "H" if jobs[0].held or jobs[0].needs else "Q"


def _parent(job: Job) -> str:
    return f"{job.number}[].{SERVER}" if job.index is not None else id_of(job)


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02d}:{seconds % 3600 // 60:02d}:{seconds % 60:02d}"


def _say(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code
