"""Extra directives of a job: refuses those that its scheduler would refuse, or that scimill writes itself."""

import re
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from scimill.errors import ConfigError
from scimill.jobs.machine import Machine
from scimill.jobs.resources import Resources

ENVIRONMENT = "set variables in the command: env NAME=VALUE …"
DIRECTORY = "submit from that directory"
LOG = "remove it: scimill names the log"
WAIT = "remove it: scimill jobs status shows when the job has ended"
NODES_AND_RANKS = "give --nodes and --ranks-per-node"


class _Malformed(Exception):
    """Why a scheduler does not read a directive."""


@dataclass(frozen=True)
class Option:
    """An option in a directive; one of PBS's resources has the name ``-l RESOURCE``."""

    name: str
    value: str = ""


@dataclass(frozen=True)
class Syntax:
    """How a scheduler reads a directive.

    Parameters
    ----------
    prefix : what begins the line of a directive.
    read : reads the options of a directive.
    own : options that scimill writes or relies on, and what to do instead.
    abbreviates : whether an option may be abbreviated.

    """

    prefix: str
    read: Callable[[str], list[Option]]
    own: Mapping[str, str]
    abbreviates: bool

    def own_option(self, name: str) -> str | None:
        """Return the option of scimill that a name gives, perhaps as an abbreviation."""
        if name in self.own:
            return name
        return next((own for own in self.own if self.abbreviates and own.startswith(name)), None)


# ---- words ------------------------------------------------------------------------------------------------------


def _words(directive: str) -> list[str]:
    """Split a directive of Slurm or PBS, which read quotes."""
    try:
        words = shlex.split(directive)
    except ValueError as error:
        raise _Malformed(str(error).lower()) from None
    if "\\" in directive:
        raise _Malformed("it has a backslash")
    return words


def _long_options(words: list[str], short: Mapping[str, str]) -> list[Option]:
    """Read ``--name=value``, ``--name value``, ``-n value`` and ``-nvalue``."""
    options: list[Option] = []
    for word in words:
        if word.startswith("--") and len(word) > 2:
            name, _, value = word.partition("=")
            options.append(Option(name, value))
        elif re.match(r"-[A-Za-z]", word):
            options.append(Option(short.get(word[1], word[:2]), word[2:]))
        elif options and not options[-1].value and not word.startswith("#"):
            options[-1] = Option(options[-1].name, word)
        else:
            raise _Malformed(f"{word!r} is neither an option nor the value of one")
    return options


# ---- Slurm ------------------------------------------------------------------------------------------------------

SLURM_SHORT = {
    "A": "--account", "D": "--chdir", "G": "--gpus", "J": "--job-name", "M": "--clusters", "N": "--nodes",
    "W": "--wait", "a": "--array", "c": "--cpus-per-task", "d": "--dependency", "n": "--ntasks", "o": "--output",
    "p": "--partition", "q": "--qos", "t": "--time",
}  # fmt: skip
SLURM_OWN = {
    "--account": "give --account",
    "--array": "give --array",
    "--chdir": DIRECTORY,
    "--cpus-per-task": "give --threads-per-rank",
    "--clusters": "set SLURM_CLUSTERS where you call scimill",
    "--dependency": "give --after",
    "--export": ENVIRONMENT,
    "--gpus": "give --gpus-per-node",
    "--gpus-per-node": "give --gpus-per-node, and a type as --directive --gres=gpu:TYPE:NUMBER",
    "--gpus-per-task": "give --gpus-per-node",
    "--job-name": "give --name",
    "--mail-user": "give --mail",
    "--mem": "give --memory",
    "--nodes": "give --nodes",
    "--ntasks": NODES_AND_RANKS,
    "--ntasks-per-node": "give --ranks-per-node",
    "--output": LOG,
    "--time": "give --walltime",
    "--tmp": "give --local-disk",
    "--wait": WAIT,
}
GPUS = re.compile(r"gpu(?::(?!\d+$)[^:,]+)?(?::(\d+))?")


def _read_slurm(directive: str) -> list[Option]:
    return _long_options(_words(directive), SLURM_SHORT)


def _typed_gpus(options: Collection[Option]) -> int | None:
    """Return the GPUs that ``--gres`` requests; None where it requests none."""
    items = [item for option in options if option.name == "--gres" for item in option.value.split(",")]
    found = [match for item in items if (match := GPUS.fullmatch(item))]
    return sum(int(match[1] or 1) for match in found) if found else None


# ---- PBS --------------------------------------------------------------------------------------------------------

PBS_FLAGS = "fGhIVXz"
PBS_OWN = {
    "-I": "remove it: the job runs a script",
    "-J": "give --array",
    "-M": "give --mail",
    "-N": "give --name",
    "-o": LOG,
    "-q": "give --queue",
    "-v": ENVIRONMENT,
    "-W block": WAIT,
    "-W depend": "give --after",
    "-l filesystems": "give --filesystems",
    "-l mem": "give --memory",
    "-l ncpus": NODES_AND_RANKS,
    "-l ngpus": "give --gpus-per-node",
    "-l nodes": NODES_AND_RANKS,
    "-l select": f"{NODES_AND_RANKS}; put more resources of each chunk into chunk: of the machine",
    "-l walltime": "give --walltime",
    "-z": "remove it: scimill needs the id of the job",
}


PBS_DIALECTS = {
    "select": {"-A": "give --account"},
    "torque": {"-A": "give --account", "-t": "submit one job for each index", "-w": DIRECTORY},
    "nci": {"-P": "give --account", "-l jobfs": "give --local-disk", "-l storage": "give --filesystems"},
}


def _read_pbs(directive: str) -> list[Option]:
    """Read as qsub does, with getopt."""
    options: list[Option] = []
    words = _words(directive)
    while words:
        word = words.pop(0)
        if not re.match(r"-[A-Za-z]", word):
            raise _Malformed(f"{word!r} is not an option; PBS has only those of one letter")
        name, value = word[:2], word[2:]
        if name[1] in PBS_FLAGS:
            options.append(Option(name))
        elif value or words:
            options += _of_pbs(name, value or words.pop(0))
        else:
            raise _Malformed(f"{name} has no value")
    return options


def _of_pbs(name: str, value: str) -> list[Option]:
    """Return an option, or one for each item of ``-l`` and ``-W``."""
    if name not in ("-l", "-W"):
        return [Option(name, value)]
    items = [item.partition("=") for item in value.split(",")]
    if not all(re.fullmatch(r"[A-Za-z]\w*", key) for key, _, _ in items):
        raise _Malformed(f"{name} {value} is not NAME=VALUE,NAME=VALUE")
    return [Option(f"{name} {key}", text) for key, _, text in items]


# ---- Cobalt -----------------------------------------------------------------------------------------------------

COBALT_SHORT = {
    "A": "--project", "M": "--notify", "O": "--outputprefix", "e": "--error", "n": "--nodecount", "o": "--output",
    "q": "--queue", "t": "--time", "u": "--umask",
}  # fmt: skip
COBALT_OWN = {
    "--cwd": DIRECTORY,
    "--dependencies": "give --after",
    "--env": ENVIRONMENT,
    "--jobname": "give --name",
    "--nodecount": "give --nodes",
    "--notify": "give --mail",
    "--output": LOG,
    "--outputprefix": LOG,
    "--project": "give --account",
    "--queue": "give --queue",
    "--time": "give --walltime",
}


def _read_cobalt(directive: str) -> list[Option]:
    """Read as Cobalt does, which splits at blanks and leaves quotes where they are."""
    if set(directive) & set("'\"\\"):
        raise _Malformed("Cobalt reads no quotes")
    options = _long_options(directive.split(), COBALT_SHORT)
    return [Option("--attrs", option.value) if option.name.startswith("--at") else option for option in options]


# ---- Flux -------------------------------------------------------------------------------------------------------

FLUX_SHORT = {
    "B": "--bank", "N": "--nodes", "c": "--cores-per-slot", "g": "--gpus-per-slot", "n": "--nslots", "q": "--queue",
    "t": "--time-limit",
}  # fmt: skip
FLUX_OWN = {
    "--bank": "give --account",
    "--cores-per-slot": "give --ranks-per-node and --threads-per-rank",
    "--cwd": DIRECTORY,
    "--dependency": "give --after",
    "--dry-run": "give --dry-run to scimill jobs submit",
    "--env": ENVIRONMENT,
    "--gpus-per-slot": "give --gpus-per-node",
    "--job-name": "give --name",
    "--nodes": "give --nodes",
    "--nslots": NODES_AND_RANKS,
    "--output": LOG,
    "--queue": "give --queue",
    "--quiet": "remove it: scimill needs the id of the job",
    "--time-limit": "give --walltime",
    "--wrap": "remove it: the job runs a script",
}


def _read_flux(directive: str) -> list[Option]:
    return _long_options(_words(directive), FLUX_SHORT)


# ---- all --------------------------------------------------------------------------------------------------------


def _syntax(machine: Machine) -> Syntax | None:
    """Return how a machine's scheduler reads directives; None where there is none."""
    if machine.scheduler == "slurm":
        own = {**SLURM_OWN, f"--{machine.queue_option}": "give --queue"}
        return Syntax("#SBATCH", _read_slurm, own, abbreviates=True)
    if machine.scheduler == "pbs":
        return Syntax("#PBS", _read_pbs, PBS_OWN | PBS_DIALECTS[machine.pbs_dialect], abbreviates=False)
    if machine.scheduler == "flux":
        return Syntax("# flux:", _read_flux, FLUX_OWN, abbreviates=True)
    return Syntax("#COBALT", _read_cobalt, COBALT_OWN, abbreviates=True) if machine.scheduler == "cobalt" else None


def check_directives(resources: Resources, machine: Machine) -> None:
    """Refuse a job's extra directives where its scheduler would, or where scimill writes the same option.

    Raises
    ------
    ConfigError : one is malformed, or contradicts a resource.
    """
    syntax = _syntax(machine)
    if syntax is None:
        return
    for directive in resources.directives:
        for problem in _find_problems(directive, syntax):
            raise problem
    gpus = _typed_gpus(read_options(resources.directives, machine)) if machine.scheduler == "slurm" else None
    if gpus is not None and gpus != resources.gpus_per_node:
        what = f"GPUs per node differ: {gpus} in --gres, {resources.gpus_per_node} in --gpus-per-node"
        raise ConfigError(what, where="--directive", remedy=f"give --gpus-per-node {gpus}")


def _find_problems(directive: str, syntax: Syntax) -> Iterator[ConfigError]:
    where = f"--directive {directive!r}"
    if directive.startswith("#"):
        yield ConfigError("a directive is given without its prefix", where=where, remedy=f"remove {syntax.prefix}")
    try:
        options = syntax.read(directive)
    except _Malformed as error:
        yield ConfigError(f"not a directive: {error}", where=where, allowed=f"options after {syntax.prefix}")
        return
    for option in options:
        own = syntax.own_option(option.name)
        if own:
            yield ConfigError(f"{own} is not accepted as a directive", where=where, remedy=syntax.own[own])
    yield from (
        ConfigError(f"Cobalt reads NAME=VALUE:NAME=VALUE, not {option.value!r}", where=where)
        for option in options
        if syntax.prefix == "#COBALT" and option.name == "--attrs" and not _is_attributes(option.value)
    )
    if any(item.startswith("filesystems=") for item in _attributes(options)):
        yield ConfigError("filesystems= is not accepted as a directive", where=where, remedy="give --filesystems")


def read_options(directives: Collection[str], machine: Machine) -> list[Option]:
    """Return the options in directives; those that cannot be read are left out."""
    found: list[Option] = []
    syntax = _syntax(machine)
    for directive in directives if syntax else ():
        try:
            found += syntax.read(directive) if syntax else []
        except _Malformed:
            continue
    return found


@dataclass(frozen=True)
class Extra:
    """Directives beyond those of the resources.

    Parameters
    ----------
    lines : the directives, without their prefix.
    given : names of their options: scimill leaves out its own defaults of these.
    attributes : Cobalt: what they add to the one ``--attrs`` that a script may have.

    """

    lines: tuple[str, ...]
    given: frozenset[str]
    attributes: tuple[str, ...]


def extra_directives(resources: Resources, machine: Machine) -> Extra:
    """Return the directives of a machine, of the job's queue and of the job, in this order."""
    queues = [machine.queues[queue] for queue in resources.queues[:1] if queue in machine.queues]
    lines = (*machine.directives, *(line for queue in queues for line in queue.directives), *resources.directives)
    options = read_options(lines, machine)
    given = {option.name for option in options} | ({"gpus"} if _typed_gpus(options) is not None else set())
    if machine.scheduler != "cobalt":
        return Extra(lines, frozenset(given), ())
    kept = [line for line in map(_without_attributes, lines) if line]
    return Extra(tuple(kept), frozenset(given), tuple(_attributes(options)))


def _is_attributes(value: str) -> bool:
    return all(re.fullmatch(r"[^=]+(=[^=]*)?", item) for item in value.split(":"))


def _attributes(options: Collection[Option]) -> list[str]:
    return [item for option in options if option.name == "--attrs" for item in option.value.split(":")]


def _without_attributes(line: str) -> str:
    return re.sub(r"(^| )--at\w*[= ]\S+", "", line).strip()
