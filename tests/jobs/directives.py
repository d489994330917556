"""An independent reader of job directives that refuses what qsub and sbatch refuse.

Sources: for PBS what OpenPBS 23.06.06 was seen to do, and its chk_Jrange.c; for Cobalt its own clients (qsub.py,
client_utils.py), which parse with optparse as here; for Slurm sbatch(1); for Flux flux-batch(1). A directive that a
scheduler would pass over in silence is a problem too, and begins with "ignored:".
"""

import optparse
import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Reading:
    """Problems, and the values of options; those of ``-l`` and ``-W`` by the names of the resources or attributes."""

    problems: list[str] = field(default_factory=list)
    options: dict[str, str] = field(default_factory=dict)
    dialect: str = ""

    def refuse(self, problem: str) -> None:
        self.problems.append(problem)


def pbs(text: str, **server: object) -> list[str]:
    return read_pbs(text, **server).problems  # type: ignore[arg-type]


def cobalt(text: str, *, executable: bool = True, **server: object) -> list[str]:
    return read_cobalt(text, executable=executable, **server).problems  # type: ignore[arg-type]


def slurm(text: str) -> list[str]:
    return read_slurm(text).problems


def header(text: str) -> list[str]:
    """Lines before the first command."""
    lines = text.split("\n")
    first = next((n for n, line in enumerate(lines) if line.strip() and not line.startswith("#")), len(lines))
    return lines[:first]


def _ignored(text: str, prefix: str) -> Iterator[str]:
    """A line that was meant as a directive but is not one."""
    before = header(text)
    for number, line in enumerate(text.split("\n")):
        if number >= len(before) and line.startswith(prefix + " "):
            yield f"ignored: {line!r} comes after the first command"
        elif not line.startswith(prefix + " ") and re.match(rf"\s*#\s*{prefix[1:]}\s+-", line, re.IGNORECASE):
            yield f"ignored: {line!r} is no directive"


# ---- PBS --------------------------------------------------------------------------------------------------------

PBS_VALUES = "aAcCDeJjklmMNopPqrRSuvW"
PBS_FLAGS = "fGhIVXz"
JOB_RESOURCES = {"select", "place", "walltime", "ncpus", "nodes", "mem", "filesystems", "singularity_fakeroot"}
DIALECTS = {
    "select": JOB_RESOURCES,
    # Torque's pbs_resources(7B), and gpus= as a part of nodes=
    "torque": {"walltime", "nodes", "mem", "pmem", "vmem", "pvmem", "cput", "pcput", "file", "nice", "host", "arch"},
    "nci": {"walltime", "ncpus", "ngpus", "mem", "jobfs", "storage", "software", "wd"},
}
TOTALS = {
    "nodes": r"[1-9]\d*(:ppn=[1-9]\d*)?(:gpus=[1-9]\d*)?(:[A-Za-z][\w-]*)*",
    "ncpus": r"[1-9]\d*",
    "ngpus": r"[1-9]\d*",
    "mem": r"\d+[kmgt]?[bw]",
    "pmem": r"\d+[kmgt]?[bw]",
    "jobfs": r"\d+[kmgt]?[bw]",
    "storage": r"(gdata|scratch)/\w+(\+(gdata|scratch)/\w+)*",
    "walltime": r"\d+(:\d+){0,2}",
}
CHUNK_RESOURCES = {"ncpus", "mpiprocs", "ompthreads", "ngpus", "mem", "host", "vnode", "arch", "system"}
ATTRIBUTES = {"depend", "group_list", "umask", "sandbox", "stagein", "stageout", "run_count", "block", "run_job_after"}
PBS_JOB = r"\d+(\[\d*\])?(\.[A-Za-z0-9.-]+)?"
PBS_DEPEND = re.compile(rf"(after|before)(ok|notok|any)?(:{PBS_JOB})+|on:\d+")
PBS_PATTERNS = {
    "N": (r"[A-Za-z][A-Za-z0-9_.+-]{0,229}", "illegal -N value"),
    "j": (r"oe|eo|n", "illegal -j value"),
    "k": (r"n|[doe]+", "illegal -k value"),
    "m": (r"n|[abej]+", "illegal -m value"),
    "r": (r"[yn]", "illegal -r value"),
    "q": (r"[A-Za-z0-9_@.-]+", "illegal -q value"),
    "A": (r"[^\s$]+", "illegal -A value"),
    "M": (r"[^\s,]+(,[^\s,]+)*", "illegal -M value"),
}


def read_pbs(
    text: str,
    *,
    arguments: Sequence[str] = (),
    queues: Mapping[str, float] | None = None,
    jobs: Collection[str] | None = None,
    required: Collection[str] = (),
    dialect: str = "select",
) -> Reading:
    """Read as OpenPBS's qsub; its server knows the queues (and their longest walltime, s) and jobs, if they are given.

    Parameters
    ----------
    arguments : qsub's command line, which wins over the directives.
    required : options and resources that the site makes mandatory.
    dialect : select, or that of Torque or NCI.

    """
    reading = Reading(dialect=dialect)
    if "\r" in text:
        reading.refuse("script contains cr, lf")
        return reading
    reading.problems += _ignored(text, "#PBS")
    for line in header(text):
        if line.startswith("#PBS ") or line == "#PBS":
            _pbs_words(_pbs_split(line[4:], reading), reading)
    _pbs_words(arguments, reading)
    _pbs_together(reading, queues, jobs, required)
    return reading


def _pbs_split(line: str, reading: Reading) -> list[str]:
    """Cut a directive into words: quotes hold blanks together, and there is neither continuation nor expansion."""
    if "\\" in line:
        reading.refuse(f"directive error: {line.strip()!r}")
        return []
    try:
        return shlex.split(line)
    except ValueError:
        reading.refuse(f"directive error: {line.strip()!r}")
        return []


def _pbs_words(words: Sequence[str], reading: Reading) -> None:
    """Parse words like getopt."""
    left = list(words)
    while left:
        word = left.pop(0)
        if len(word) < 2 or word[0] != "-":
            reading.refuse(f"directive error: {word!r}")
            return
        letter, value = word[1], word[2:]
        if letter in PBS_FLAGS and not value:
            reading.options[letter] = ""
        elif letter not in PBS_VALUES:
            reading.refuse(f"invalid option -- {letter!r}")
            return
        elif value or left:
            _pbs_option(letter, value or left.pop(0), reading)
        else:
            reading.refuse(f"option requires an argument -- {letter!r}")


def _pbs_option(letter: str, value: str, reading: Reading) -> None:
    if letter in "lW":
        for item in value.split(","):
            name, _, content = item.partition("=")
            _pbs_resource(name, content, reading) if letter == "l" else _pbs_attribute(name, content, reading)
        return
    reading.options[letter] = value
    pattern, problem = PBS_PATTERNS.get(letter, (r"[^\s]+", f"illegal -{letter} value"))
    if not re.fullmatch(pattern, value):
        reading.refuse(f"{problem}: {value!r}")
    if letter == "J" and reading.dialect == "torque":
        reading.refuse("invalid option -- 'J'")
    if letter == "J":
        _pbs_array(value, reading)


def _pbs_array(value: str, reading: Reading) -> None:
    match = re.fullmatch(r"(\d+)-(\d+)(?::(\d+))?(?:%(\d+))?", value)
    # OpenPBS refuses an array of one: chk_Jrange refuses first >= last.
    if not match or int(match[1]) >= int(match[2]) or match[3] == "0" or match[4] == "0":
        reading.refuse(f"illegal -J value: {value!r}")


def _pbs_resource(name: str, value: str, reading: Reading) -> None:
    reading.options[name] = value
    if name not in DIALECTS[reading.dialect]:
        reading.refuse(f"Unknown resource {name}")
    elif not value:
        reading.refuse(f"Illegal attribute or resource value: {name}")
    elif name == "select":
        reading.problems += _pbs_select(value)
    elif reading.dialect != "select" and not re.fullmatch(TOTALS.get(name, r"\S+"), value, re.IGNORECASE):
        reading.refuse(f"Illegal attribute or resource value: {name}={value}")
    elif name == "walltime" and pbs_seconds(value) is None:
        reading.refuse(f"Illegal attribute or resource value: walltime={value}")
    elif name == "place" and not re.fullmatch(r"(free|pack|v?scatter)(:(excl|shared|exclhost))?(:group=\w+)?", value):
        reading.refuse(f"Illegal attribute or resource value: place={value}")
    elif name == "filesystems" and not re.fullmatch(r"[\w-]+(:[\w-]+)*", value):
        reading.refuse(f"Illegal attribute or resource value: filesystems={value}")


def _pbs_attribute(name: str, value: str, reading: Reading) -> None:
    reading.options[name] = value
    if name not in ATTRIBUTES or not value or (name == "depend" and not PBS_DEPEND.fullmatch(value)):
        reading.refuse(f"illegal -W value: {name}={value}")


def _pbs_select(value: str) -> Iterator[str]:
    for chunk in value.split("+"):
        count, _, rest = chunk.partition(":")
        items = rest.split(":") if rest else []
        if "=" in count:
            items, count = [count, *items], "1"
        names = [item.partition("=")[0] for item in items]
        yield from (f"Unknown resource {name}" for name in names if name not in CHUNK_RESOURCES)
        if not re.fullmatch(r"[1-9]\d*", count) or len(set(names)) < len(names):
            yield f"Illegal attribute or resource value: select={chunk}"
        for item in items:
            name, _, content = item.partition("=")
            pattern = {"mem": r"\d+([kmgt]?[bw])?", "host": r"[\w.-]+"}.get(name, r"\w+")
            pattern = r"\d+" if name in {"ncpus", "mpiprocs", "ompthreads", "ngpus"} else pattern
            if not re.fullmatch(pattern, content, re.IGNORECASE):
                yield f"Illegal attribute or resource value: {item}"


def pbs_seconds(text: str) -> int | None:
    """Read a walltime like PBS: one number is seconds, and there are no days."""
    if not re.fullmatch(r"\d+(:\d+){0,2}", text):
        return None
    seconds = 0
    for part in text.split(":"):
        seconds = 60 * seconds + int(part)
    return seconds


def _pbs_together(
    reading: Reading, queues: Mapping[str, float] | None, jobs: Collection[str] | None, required: Collection[str]
) -> None:
    """Refuse invalid combinations of options."""
    options = reading.options
    if "select" in options and {"ncpus", "nodes", "mem"} & options.keys():
        reading.refuse('"-lresource=" cannot be used with "select" or "place"')
    if "J" in options and options.get("r") == "n":
        reading.refuse("cannot submit a non-rerunable array job")
    reading.problems += [f"{name} is mandatory here" for name in required if name not in options]
    if queues is not None and "q" in options:
        if options["q"] not in queues:
            reading.refuse(f"Unknown queue {options['q']}")
        elif (pbs_seconds(options.get("walltime", "")) or 0) > queues[options["q"]]:
            reading.refuse("Job violates queue and/or server resource limits")
    if jobs is not None and "depend" in options:
        unknown = set(options["depend"].split(":")[1:]) - set(jobs)
        reading.problems += [f"depends on the unknown job {job}: it would end at once" for job in sorted(unknown)]


# ---- Cobalt -----------------------------------------------------------------------------------------------------

COBALT_VALUES = [
    ["-q", "--queue"], ["-A", "--project"], ["-O", "--outputprefix"], ["-o", "--output"], ["-e", "--error"],
    ["--debuglog"], ["-i", "--inputfile"], ["--dependencies"], ["--jobname"], ["--cwd"], ["-M", "--notify"],
    ["-u", "--umask"], ["--mode"], ["--user_list", "--run_users"], ["-t", "--time"],
    ["--kernel"], ["-K"], ["--ion_kernel"], ["--ion_kerneloptions"], ["--geometry"],
]  # fmt: skip
COBALT_FLAGS = [
    ["-h", "--held"], ["-I", "--interactive"], ["--run_project"], ["--preemptable"], ["--disable_preboot"],
    ["-d", "--debug"], ["-v", "--verbose"], ["--help"], ["--version"],
]  # fmt: skip
BLUE_GENE = ("kernel", "K", "ion_kernel", "ion_kerneloptions", "geometry")
COBALT_FILES = ("outputprefix", "output", "error", "debuglog")
LEAST_MINUTES = 5


class _Refused(Exception):
    """The message that optparse prints before it exits with 2."""


class _Parser(optparse.OptionParser):
    def error(self, msg: str) -> None:  # type: ignore[override]
        raise _Refused(msg)


def _cobalt_parser() -> _Parser:
    parser = _Parser(add_help_option=False)
    parser.disable_interspersed_args()  # the first word that is not an option is the script, the rest its arguments
    for names in COBALT_VALUES:
        parser.add_option(*names, dest=names[-1].lstrip("-"))
    for names in COBALT_FLAGS:
        parser.add_option(*names, action="store_true", dest=names[-1].lstrip("-"))
    for names in (["-n", "--nodecount"], ["--proccount"]):
        parser.add_option(*names, type="int", dest=names[-1].lstrip("-"))
    for name in ("--attrs", "--env"):
        parser.add_option(name, action="append", dest=name[2:])
    return parser


def read_cobalt(
    text: str, *, executable: bool = True, arguments: Sequence[str] = (), folder: Path | None = None
) -> Reading:
    """Read as Cobalt's qsub.

    Parameters
    ----------
    executable : whether the script's file has the permission.
    arguments : qsub's command line before the script, which wins over the directives.
    folder : where qsub is called; files of the output are looked for from there, if it is given.

    """
    reading = Reading()
    lines = text.replace("\r\n", "\n").split("\n")
    if not lines[0].startswith("#!"):
        reading.refuse("ignored: all directives, as line 1 does not begin with #!")
        lines = [lines[0]]
    if not executable:
        reading.refuse("command is not executable")
    last = next((n for n, line in enumerate(lines[1:], 1) if not line.startswith("#COBALT ")), len(lines))
    for line in lines[last:]:
        if re.match(r"\s*#\s*COBALT\s+-", line, re.IGNORECASE):
            reading.refuse(f"ignored: {line!r} comes after the first line that is no directive")
    words = [word for line in lines[1:last] for word in line.split()[1:]]
    try:
        options, rest = _cobalt_parser().parse_args([*words, *arguments])
    except _Refused as refusal:
        reading.refuse(str(refusal))
        return reading
    if rest:
        reading.refuse(f"{rest[0]!r} is taken as the script, and options after it are dropped")
    given = {name: value for name, value in vars(options).items() if value is not None}
    reading.options = {name: value[-1] if isinstance(value, list) else str(value) for name, value in given.items()}
    reading.problems += _cobalt_problems(given, folder)
    return reading


def _cobalt_problems(given: Mapping[str, object], folder: Path | None) -> Iterator[str]:
    lists = {name: value for name, value in given.items() if isinstance(value, list)}
    texts = {name: str(value) for name, value in given.items() if name not in lists}
    yield from (f"required option missing: {name}" for name in ("nodecount", "time") if name not in texts)
    for name, value in [*texts.items(), *((name, part) for name, parts in lists.items() for part in parts)]:
        if set(value) & set("'\""):
            yield f"--{name}: quotes stay in the value: {value}"
        elif not value:
            yield f"--{name} is empty"
    yield from (f"--{name} must be above zero" for name in ("nodecount", "proccount") if int(texts.get(name, 1)) <= 0)
    minutes = cobalt_minutes(texts.get("time", "0"))
    if minutes is None:
        yield f"invalid time specification: {texts['time']}"
    elif 0 < minutes < LEAST_MINUTES:
        yield "Walltime less than minimum"
    if len(lists.get("attrs", [])) > 1:
        yield "Multiple --attrs options not supported"
    for attribute in ":".join(lists.get("attrs", ["flag"])).split(":"):
        if attribute.count("=") > 1 or not attribute.partition("=")[0]:
            yield f"Improperly formatted argument to attrs : {attribute}"
    yield from (f"Improperly formatted argument to env : {part}" for part in _cobalt_env(lists) if "=" not in part)
    for job in texts.get("dependencies", "0").split(":"):
        if not job.isdecimal():
            yield f"dependency {job!r} is no job id: dep_fail"
    if not re.fullmatch(r"[0-7]+", texts.get("umask", "022")):
        yield f"Invalid umask value {texts['umask']}"
    yield from (f"--{name} is for BlueGene only" for name in BLUE_GENE if name in texts)
    if "interactive" in texts:
        yield "an interactive job takes no executable"
    for name in COBALT_FILES if folder else ():
        if folder and name in texts and not (folder / texts[name]).parent.is_dir():
            yield f"--{name}: directory {Path(texts[name]).parent} does not exist"


def _cobalt_env(lists: Mapping[str, list[str]]) -> list[str]:
    r"""Cut NAME=VALUE:NAME=VALUE, where \: and \= belong to a value."""
    parts = [part.replace(r"\:", "").replace(r"\=", "") for part in lists.get("env", [])]
    return [item for part in parts for item in re.split(r":(?=\w+\b=)", part)]


def cobalt_minutes(text: str) -> int | None:
    """Read a walltime like Cobalt: one number is minutes, and seconds are dropped."""
    if not re.fullmatch(r"\d+(:\d+){0,3}", text):
        return None
    parts = [int(part) for part in text.split(":")]
    if len(parts) == 1:
        return parts[0]
    days, hours, minutes, _ = {2: [0, *parts, 0], 3: [0, *parts], 4: parts}[len(parts)]
    return (24 * days + hours) * 60 + minutes


# ---- Slurm ------------------------------------------------------------------------------------------------------

NUMBER = r"[1-9]\d*"
SLURM_VALUES = {
    "account": r"[\w.@-]+",
    "array": r"\d+(-\d+(:[1-9]\d*)?)?(,\d+(-\d+(:[1-9]\d*)?)?)*(%[1-9]\d*)?",
    "chdir": r"\S.*",
    "comment": r"\S.*",
    "constraint": r"[\w&|*,\[\]()-]+",
    "cpu-bind": r"[\w,:]+",
    "cpus-per-gpu": NUMBER,
    "cpus-per-task": NUMBER,
    "dependency": r"(after|afterany|afterok|afternotok|aftercorr)(:\d+(_\d+)?)+|singleton",
    "distribution": r"[\w:,*]+",
    "error": r"\S+",
    "export": r"ALL|NONE|NIL|[\w=,./-]+",
    "gpu-bind": r"[\w:,]+",
    "gpus": r"([\w.-]+:)?" + NUMBER,
    "gpus-per-node": r"([\w.-]+:)?" + NUMBER,
    "gpus-per-task": r"([\w.-]+:)?" + NUMBER,
    "gres": r"[\w.:,-]+",
    "hint": r"compute_bound|memory_bound|(no)?multithread",
    "job-name": r"[\w.+-]+",
    "kill-on-invalid-dep": r"yes|no",
    "licenses": r"[\w.:,@-]+",
    "mail-type": r"(NONE|BEGIN|END|FAIL|REQUEUE|ALL|INVALID_DEPEND|STAGE_OUT|TIME_LIMIT(_\d0)?|ARRAY_TASKS)"
    r"(,(NONE|BEGIN|END|FAIL|REQUEUE|ALL|INVALID_DEPEND|STAGE_OUT|TIME_LIMIT(_\d0)?|ARRAY_TASKS))*",
    "mail-user": r"[\w.+@-]+",
    "mem": r"\d+[KMGT]?",
    "mem-per-cpu": r"\d+[KMGT]?",
    "mem-per-gpu": r"\d+[KMGT]?",
    "nodes": NUMBER + rf"(-{NUMBER})?",
    "ntasks": NUMBER,
    "ntasks-per-node": NUMBER,
    "open-mode": r"append|truncate",
    "output": r"\S+",
    "partition": r"[\w.,-]+",
    "qos": r"[\w.-]+",
    "reservation": r"[\w.,-]+",
    "signal": r"([BR]{1,2}:)?(\d+|(SIG)?[A-Z]+\d*)(@\d{1,5})?",
    "threads-per-core": NUMBER,
    "tmp": r"\d+[KMGT]?",
    "time-min": r".+",
    "time": r".+",
}
SLURM_FLAGS = {"exclusive", "no-requeue", "overcommit", "oversubscribe", "requeue", "wait"}


def read_slurm(text: str) -> Reading:
    """Read like sbatch, without short options, abbreviations and quotes, which generated scripts do not use."""
    reading = Reading()
    if not text.startswith("#!"):
        reading.refuse("This does not look like a batch script: the first line must begin with #!")
    if "\r" in text:
        reading.refuse("Batch script contains DOS line breaks")
        return reading
    reading.problems += _ignored(text, "#SBATCH")
    for line in header(text):
        for word in line.split()[1:] if line.startswith("#SBATCH ") else ():
            _slurm_option(word, reading)
    options = reading.options
    if {"mem", "mem-per-cpu"} <= options.keys():
        reading.refuse("--mem and --mem-per-cpu exclude each other")
    array = re.match(r"(\d+)-(\d+)", options.get("array", "0-0"))
    if array and int(array[1]) > int(array[2]):
        reading.refuse(f"Invalid job array specification: {options['array']}")
    return reading


def _slurm_option(word: str, reading: Reading) -> None:
    match = re.fullmatch(r"--([a-z-]+)(?:=(.*))?", word)
    if not match:
        reading.refuse(f"unexpected word {word!r}")
        return
    name, value = match[1], match[2]
    if name in reading.options:
        reading.refuse(f"--{name} is given twice")
    reading.options[name] = value or ""
    if name not in SLURM_VALUES and name not in SLURM_FLAGS:
        reading.refuse(f"unrecognized option '--{name}'")
    elif name in SLURM_FLAGS:
        if value is not None and name != "exclusive":
            reading.refuse(f"option '--{name}' doesn't allow an argument")
    elif value is None or not re.fullmatch(SLURM_VALUES[name], value):
        reading.refuse(f"Invalid --{name} specification: {value}")
    if name.startswith("time") and value and not slurm_seconds(value):
        reading.refuse(f"Invalid --{name} specification: {value}")


def slurm_seconds(text: str) -> int | None:
    """Read a time limit like Slurm: one number is minutes; after days, the first is hours."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if not match:
        return None
    days, *parts = match.groups()
    first, second, third = (None if part is None else int(part) for part in parts)
    if days is not None:
        return int(days) * 86400 + (first or 0) * 3600 + (second or 0) * 60 + (third or 0)
    if third is not None:
        return (first or 0) * 3600 + (second or 0) * 60 + third
    return (first or 0) * 60 + (second or 0)


# ---- Flux -------------------------------------------------------------------------------------------------------

FLUX_SENTINEL = re.compile(r"([^A-Za-z0-9]*)(flux:|FLUX:)(.*)")
FLUX_JOB = r"(f[1-9A-HJ-NP-Za-km-z]+|\d+)"
FLUX_VALUES = {
    "bank": r"\S+",
    "begin-time": r".+",
    "conf": r".+",
    "cores-per-slot": NUMBER,
    "dependency": rf"(afterok|afterany|afternotok|afterstart):{FLUX_JOB}",
    "env": r".+",
    "error": r"\S+",
    "flags": r"[\w,]+",
    "gpus-per-slot": NUMBER,
    "job-name": r"\S+",
    "nodes": NUMBER,
    "nslots": NUMBER,
    "output": r"\S+",
    "queue": r"[\w.-]+",
    "requires": r".+",
    "setattr": r".+",
    "setopt": r".+",
    "signal": r"\w*(@\S+)?",
    "time-limit": r"\d+(\.\d+)?[smhd]?",
    "urgency": r"\d+|hold|default|expedite",
}
FLUX_FLAGS = {"exclusive", "unbuffered"}


def read_flux(text: str) -> Reading:
    """Read like flux batch, without short options; values of an option that is given twice are joined by commas."""
    reading = Reading()
    sentinel, is_over = "", False
    for line in text.splitlines()[1:]:
        match = FLUX_SENTINEL.match(line)
        if not match:
            is_over = is_over or bool(sentinel and line.strip() and not line.startswith(sentinel.partition("flux")[0]))
            continue
        found = match[1] + match[2]
        if is_over or (sentinel and found != sentinel):
            reading.refuse(f"orphan or other sentinel: {line!r}")
        sentinel = sentinel or found
        for word in shlex.split(match[3], comments=True):
            _flux_option(word, reading)
    if "nslots" not in reading.options and "nodes" not in reading.options:
        reading.refuse("Number of slots to allocate must be specified")
    return reading


def _flux_option(word: str, reading: Reading) -> None:
    match = re.fullmatch(r"--([a-z-]+)(?:=(.*))?", word)
    name = match[1] if match else ""
    if not match or (name not in FLUX_VALUES and name not in FLUX_FLAGS):
        reading.refuse(f"unrecognized arguments: {word}")
    elif name in FLUX_VALUES and not re.fullmatch(FLUX_VALUES[name], match[2] or ""):
        reading.refuse(f"invalid --{name}: {match[2]}")
    before = reading.options.get(name)
    reading.options[name] = ",".join(filter(None, [before, match[2] or ""])) if match else ""
