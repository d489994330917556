"""Machines: what a site's scheduler, launcher and nodes are like, each in one YAML file."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic.dataclasses import dataclass

from scimill.config import (
    REQUIRED,
    STRICT,
    Duration,
    Hints,
    Layer,
    PowerOfTwo,
    Switch,
    Whole,
    build,
    parameter,
    read_yaml,
    replaced,
)
from scimill.errors import ConfigError
from scimill.jobs.resources import Memory, Resources, Word, Words, indices
from scimill.jobs.schedulers import SCHEDULERS


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Queue:
    """A queue or partition, as far as it limits jobs."""

    most_walltime: Duration | None = parameter(None, "longest walltime")
    least_walltime: Duration | None = parameter(None, "shortest walltime")
    most_nodes: Whole | None = parameter(None, "most nodes", ge=1)
    least_nodes: Whole = parameter(1, "fewest nodes", ge=1)
    walltime_up_to: dict[int, Duration] = parameter({}, "longest walltime of jobs up to so many nodes")
    directives: tuple[str, ...] = parameter((), "more directives of jobs in it, without what they begin with")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Container:
    """How images run on a machine."""

    runtime: Literal["apptainer", "singularity"] = parameter("apptainer", "command that runs images")
    modules: tuple[str, ...] = parameter((), "modules that bring it")
    options: tuple[str, ...] = parameter((), "more options of it, such as --fakeroot")
    gpu_option: Literal["--nv", "--rocm", ""] = parameter("--nv", "option that shows images the GPUs")
    binds: tuple[str, ...] = parameter((), "paths of the host that images see")
    setup: tuple[str, ...] = parameter((), "lines of shell to run for images, once modules are loaded")
    mpi: Literal["hybrid", "bind"] = parameter(
        "hybrid", "hybrid: the image's MPI under the host's launcher; bind: the host's MPI in the image"
    )
    environment: dict[str, str] = parameter({}, "environment inside the image")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Machine:
    """A machine."""

    name: Word = parameter(REQUIRED, "name")
    description: str = parameter(REQUIRED, "what it is, in a line")
    scheduler: Literal["local", "slurm", "pbs", "cobalt"] = parameter(REQUIRED, "scheduler")
    launcher: Literal["mpirun", "mpiexec-pals", "srun"] = parameter(REQUIRED, "what starts ranks")
    launcher_options: tuple[str, ...] = parameter((), "more options of the launcher, such as --mpi=pmix")
    cores_per_node: Whole = parameter(REQUIRED, "cores per node that jobs may use", ge=1)
    gpus_per_node: Whole = parameter(0, "GPUs per node", ge=0)
    memory_per_node: Memory | None = parameter(None, "memory per node", unit="bytes")
    threads_per_core: Whole = parameter(1, "hardware threads per core that Slurm counts as CPUs", ge=1)
    gpu_order: Literal["ascending", "descending"] | tuple[int, ...] = parameter(
        "ascending", "GPUs from the first cores on; descending: the last GPU is the nearest to the first cores"
    )
    gpu_variable: str = parameter("CUDA_VISIBLE_DEVICES", "variable that says which GPU a rank sees")
    queues: dict[str, Queue] = parameter({}, "queues by name; any is taken where there are none")
    queue: Word | None = parameter(None, "queue of jobs that name none")
    account: Word | None = parameter(None, "account of jobs that name none")
    filesystems: Words = parameter((), "file systems of jobs that name none")
    image: str | None = parameter(None, "container image of jobs that name none")
    queue_option: Literal["partition", "qos"] = parameter("partition", "Slurm: what a queue is")
    requires: tuple[Literal["account", "queue", "filesystems"], ...] = parameter((), "what every job must name")
    directives: tuple[str, ...] = parameter((), "more directives, without what they begin with")
    chunk: tuple[str, ...] = parameter((), "PBS: more resources of each chunk, such as system=polaris")
    login_shell: Switch = parameter(False, "whether scripts need a login shell, for the module command")
    modules: tuple[str, ...] = parameter((), "modules to load")
    environment: dict[str, str] = parameter({}, "environment of every job")
    setup: tuple[str, ...] = parameter((), "lines of shell to run before anything else")
    mpi_io_hints: Hints = parameter({}, "hints to MPI-IO of commands that write a store, such as striping_factor=16")
    alignment: PowerOfTwo | None = parameter(None, "stripe size of the file system that stores go to", unit="bytes")
    container: Container = parameter(Container(), "how images run")


def folder() -> Path:
    """Where machines and templates lie: beside the sources, or where they were installed."""
    beside = Path(__file__).resolve().parents[3] / "jobs"
    return beside if beside.is_dir() else Path(sys.prefix) / "share" / "scimill" / "jobs"


def own_folder() -> Path:
    """Where a user's own machines lie."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "scimill" / "machines"


def names() -> dict[str, Path]:
    """Files of all machines by name; a user's own come before those that scimill brings."""
    found: dict[str, Path] = {}
    for place in (own_folder(), folder() / "machines"):
        for path in sorted(place.glob("*.yaml")):
            found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def read_machine(name: str) -> Machine:
    """Read a machine by its name, or by the path of its file.

    Raises
    ------
    ConfigError : no such machine, or its file is wrong.
    """
    known = names()
    path = Path(name) if name.endswith(".yaml") or "/" in name else known.get(name)
    if path is None:
        remedy = f"put yours into {own_folder()}, or give its path"
        raise ConfigError(f"there is no machine {name!r}", allowed=", ".join(known), remedy=remedy)
    layer = read_yaml(path)
    machine = build(Machine, [Layer("defaults", {"name": path.stem}), layer])
    if machine.queue and machine.queues and machine.queue not in machine.queues:
        what = f"queue {machine.queue!r} is none of queues"
        raise ConfigError(what, where=f"file {path}", allowed=", ".join(machine.queues))
    return machine


def completed(resources: Resources, machine: Machine) -> Resources:
    """Fill in what a job leaves to the machine, and refuse what the machine cannot give, before anything is queued.

    Raises
    ------
    ConfigError : the first thing that is missing, or too much.
    """
    given = {name: getattr(resources, name) or getattr(machine, name) for name in LEFT_TO_THE_MACHINE}
    full = replaced(resources, **given)
    for problem in _problems(full, machine):
        raise problem
    return full


LEFT_TO_THE_MACHINE = ("queue", "account", "filesystems", "image")
COBALT_LEAST_WALLTIME = 300.0  # s; get_time in its sources


def _problems(resources: Resources, machine: Machine) -> Iterator[ConfigError]:
    where, queue = f"machine {machine.name}", resources.queue
    missing = [f"--{name}" for name in machine.requires if not getattr(resources, name)]
    if missing:
        required = ", ".join(f"--{name}" for name in machine.requires)
        yield ConfigError(f"{' and '.join(missing)} missing", where=where, allowed=f"every job must give {required}")
    if queue and machine.queues and queue not in machine.queues:
        yield ConfigError(f"there is no queue {queue!r}", where=where, allowed=", ".join(machine.queues))
    if resources.gpus_per_node > machine.gpus_per_node:
        allowed = f"at most {machine.gpus_per_node}"
        yield ConfigError(f"{resources.gpus_per_node} GPUs per node", where=where, allowed=allowed)
    ranks = ranks_per_node(resources, machine)
    if ranks * resources.threads_per_rank > machine.cores_per_node:
        text = f"{ranks} ranks of {resources.threads_per_rank} threads per node"
        yield ConfigError(f"{text} need more than its cores", where=where, allowed=f"{machine.cores_per_node} cores")
    if resources.memory and machine.memory_per_node and resources.memory > machine.memory_per_node:
        allowed = f"at most {machine.memory_per_node / 1024**3:.0f}GiB per node"
        yield ConfigError("more memory than a node has", where=where, allowed=allowed)
    yield from _scheduler_problems(resources, machine, where)
    if queue in machine.queues:
        yield from _queue_problems(resources, machine.queues[queue], f"{where}, queue {queue}")


def _scheduler_problems(resources: Resources, machine: Machine, where: str) -> Iterator[ConfigError]:
    """Refuse what a scheduler itself refuses, or would pass over in silence."""
    if machine.scheduler == "local":
        given = [f"--{name}" for name in ("array", "after") if getattr(resources, name)]
        yield from (ConfigError(f"{name} needs a scheduler, and there is none", where=where) for name in given)
    elif not all(map(SCHEDULERS[machine.scheduler].job_id.fullmatch, resources.after)):
        yield ConfigError(f"no job ids of {machine.scheduler}: {', '.join(resources.after)}", where="--after")
    if machine.scheduler == "cobalt" and "%" in (resources.array or ""):
        yield ConfigError("Cobalt has no arrays, and cannot limit how many run", where="--array", allowed="FIRST-LAST")
    if machine.scheduler == "cobalt" and resources.walltime < COBALT_LEAST_WALLTIME:
        allowed = f"at least {clock(COBALT_LEAST_WALLTIME)}"
        yield ConfigError(f"a walltime of {clock(resources.walltime)} is too short", where=where, allowed=allowed)
    if machine.scheduler == "pbs" and len(indices(resources.array)) == 1:
        yield ConfigError("PBS takes no array of one job", where="--array", remedy="give at least two indices")


def _queue_problems(resources: Resources, queue: Queue, where: str) -> Iterator[ConfigError]:
    steps = [limit for nodes, limit in sorted(queue.walltime_up_to.items()) if resources.nodes <= nodes]
    most = steps[0] if steps else queue.most_walltime
    if most and resources.walltime > most:
        allowed = f"at most {clock(most)}" + (f" for {resources.nodes} node(s)" if steps else "")
        yield ConfigError(f"a walltime of {clock(resources.walltime)} is too long", where=where, allowed=allowed)
    if queue.least_walltime and resources.walltime < queue.least_walltime:
        allowed = f"at least {clock(queue.least_walltime)}"
        yield ConfigError(f"a walltime of {clock(resources.walltime)} is too short", where=where, allowed=allowed)
    if not queue.least_nodes <= resources.nodes <= (queue.most_nodes or resources.nodes):
        allowed = f"{queue.least_nodes} … {queue.most_nodes or 'any number'}"
        yield ConfigError(f"{resources.nodes} node(s)", where=where, allowed=allowed)


def ranks_per_node(resources: Resources, machine: Machine) -> int:
    """Ranks per node that a job asks for, or that its GPUs or threads suggest."""
    if resources.ranks_per_node is not None:
        return resources.ranks_per_node
    return resources.gpus_per_node or max(1, machine.cores_per_node // resources.threads_per_rank)


def clock(seconds: float) -> str:
    """Write a walltime as HH:MM:SS, which all schedulers read alike."""
    whole = int(seconds)
    return f"{whole // 3600:02d}:{whole % 3600 // 60:02d}:{whole % 60:02d}"
