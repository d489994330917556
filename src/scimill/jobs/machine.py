"""Machines: the scheduler, launcher and nodes of a site, described in one YAML file each."""

import os
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import StringConstraints
from pydantic.dataclasses import dataclass

from scimill.config import (
    REQUIRED,
    STRICT,
    Duration,
    Hints,
    Kind,
    Layer,
    PowerOfTwo,
    Switch,
    Whole,
    build,
    parameter,
    read_yaml,
    with_values,
)
from scimill.errors import ConfigError
from scimill.jobs.resources import Memory, Resources, Word, Words, indices, most_at_once, step_of
from scimill.jobs.schedulers import SCHEDULERS

Page = Annotated[str, StringConstraints(pattern=r"^https?://\S+$"), Kind("an address, https://…", "URL")]
Day = Annotated[date, Kind("a day such as 2026-11-30", "DATE")]
DayOrUndated = Annotated[date | Literal["undated"], Kind("a day such as 2026-11-30, or undated", "DATE|undated")]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Queue:
    """Limits of a queue or partition."""

    most_walltime: Duration | None = parameter(None, "longest walltime")
    least_walltime: Duration | None = parameter(None, "shortest walltime")
    most_nodes: Whole | None = parameter(None, "maximum number of nodes", ge=1)
    least_nodes: Whole = parameter(1, "minimum number of nodes", ge=1)
    walltime_up_to: dict[int, Duration] = parameter(
        {}, "longest walltime by number of nodes, for jobs of up to that many"
    )
    most_jobs: Whole | None = parameter(None, "maximum number of a user's jobs, running ones included", ge=1)
    directives: tuple[str, ...] = parameter((), "more directives for its jobs, without their prefix")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Container:
    """How a machine runs container images."""

    runtime: Literal["apptainer", "singularity"] = parameter("apptainer", "command that runs images")
    modules: tuple[str, ...] = parameter((), "modules that provide it")
    options: tuple[str, ...] = parameter((), "more options for it, such as --fakeroot")
    gpu_option: Literal["--nv", "--rocm", ""] = parameter("--nv", "option that gives images access to GPUs")
    binds: tuple[str, ...] = parameter((), "host paths to mount in images")
    setup: tuple[str, ...] = parameter((), "shell lines to run for images after modules are loaded")
    mpi: Literal["hybrid", "bind"] = parameter(
        "hybrid", "hybrid: the image's MPI under the host's launcher; bind: the host's MPI in the image"
    )
    environment: dict[str, str] = parameter({}, "environment inside the image")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Machine:
    """A machine."""

    name: Word = parameter(REQUIRED, "name")
    description: str = parameter(REQUIRED, "one-line description")
    page: Page | None = parameter(None, "page from which the limits were read; every real machine has one")
    read: Day | None = parameter(None, "day on which it was read")
    copied: DayOrUndated | None = parameter(None, "day of the copy that was read, if it was not the page itself")
    scheduler: Literal["local", "slurm", "pbs", "cobalt", "flux"] = parameter(REQUIRED, "scheduler")
    launcher: Literal["mpirun", "mpiexec-pals", "srun", "flux"] = parameter(REQUIRED, "command that starts ranks")
    launcher_options: tuple[str, ...] = parameter((), "more options for the launcher, such as --mpi=pmix")
    cores_per_node: Whole = parameter(REQUIRED, "cores per node available to jobs", ge=1)
    gpus_per_node: Whole = parameter(0, "GPUs per node", ge=0)
    memory_per_node: Memory | None = parameter(None, "memory per node", unit="bytes")
    threads_per_core: Whole = parameter(1, "hardware threads per core that Slurm counts as CPUs", ge=1)
    gpu_order: Literal["ascending", "descending"] | tuple[int, ...] = parameter(
        "ascending", "order of GPUs along the cores; descending: the last GPU is nearest to the first cores"
    )
    gpu_variable: str = parameter("CUDA_VISIBLE_DEVICES", "variable that selects the GPU of a rank")
    queues: dict[str, Queue] = parameter({}, "queues by name; if empty, any name is accepted")
    queue: Word | None = parameter(None, "default queue")
    account: Word | None = parameter(None, "default account")
    filesystems: Words = parameter((), "default file systems")
    image: str | None = parameter(None, "default container image")
    queue_option: Literal["partition", "qos"] = parameter("partition", "Slurm: option that selects a queue")
    pbs_dialect: Literal["select", "torque", "nci"] = parameter(
        "select",
        "PBS: how a job requests nodes: select; Torque's nodes=N:ppn=M; totals of ncpus, mem, jobfs, as at NCI",
    )
    requires: tuple[Literal["account", "queue", "filesystems", "memory"], ...] = parameter(
        (), "resources that every job must name"
    )
    directives: tuple[str, ...] = parameter((), "more directives, without their prefix")
    chunk: tuple[str, ...] = parameter((), "PBS: more resources or properties of each node, such as system=polaris")
    login_shell: Switch = parameter(False, "whether scripts need a login shell for the module command")
    modules: tuple[str, ...] = parameter((), "modules to load")
    environment: dict[str, str] = parameter({}, "environment of every job")
    setup: tuple[str, ...] = parameter((), "shell lines to run first")
    mpi_io_hints: Hints = parameter({}, "MPI-IO hints for commands that write a store, such as striping_factor=16")
    alignment: PowerOfTwo | None = parameter(None, "stripe size of the file system that holds stores", unit="bytes")
    container: Container = parameter(Container(), "how to run images")


def folder() -> Path:
    """Return the folder of machines, templates and chains; in the sources, ``shipped`` is a link to ``jobs``."""
    return Path(__file__).parent / "shipped"


def own_folder() -> Path:
    """Return the folder of the user's own machine files."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "scimill" / "machines"


def names() -> dict[str, Path]:
    """Return the files of all machines by name; a user's own override those that scimill ships."""
    found: dict[str, Path] = {}
    for place in (own_folder(), folder() / "machines"):
        for path in sorted(place.glob("*.yaml")):
            found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def is_generic(machine: Machine) -> bool:
    """Whether a machine stands for many, so that no site's page describes it."""
    return machine.name == "local" or machine.name.endswith("-generic")


def describe_machine(machine: Machine) -> str:
    """Return a machine's line in the list."""
    gpus = f", {machine.gpus_per_node} GPUs" if machine.gpus_per_node else ""
    nodes = f"{machine.cores_per_node} cores{gpus} per node"
    return f"{machine.scheduler:<8} {machine.launcher:<14} {nodes:<32} {machine.description}"


def describe_source(machine: Machine, path: Path) -> str:
    """Return where and when a machine's values were read.

    Raises
    ------
    ConfigError : a real machine's file does not say it.
    """
    if is_generic(machine):
        return "generic"
    missing = [key for key in ("page", "read") if not getattr(machine, key)]
    if missing:
        remedy = "add page: https://… and read: YYYY-MM-DD"
        raise ConfigError(f"{' and '.join(missing)} missing", where=f"file {path}", remedy=remedy)
    copy = f"copy of {machine.copied}" if isinstance(machine.copied, date) else "undated copy" if machine.copied else ""
    return f"{machine.read} {copy:<18} {machine.page}"


def read_machine(name: str) -> Machine:
    """Read a machine by name, or by the path of its file.

    Raises
    ------
    ConfigError : the machine is unknown, or its file is invalid.
    """
    known = names()
    path = Path(name) if name.endswith(".yaml") or "/" in name else known.get(name)
    if path is None:
        remedy = f"put its file into {own_folder()}, or give a path"
        raise ConfigError(f"unknown machine {name!r}", allowed=", ".join(known), remedy=remedy)
    layer = read_yaml(path)
    machine = build(Machine, [Layer("defaults", {"name": path.stem}), layer])
    if machine.queue and machine.queues and machine.queue not in machine.queues:
        raise ConfigError(f"unknown queue {machine.queue!r}", where=f"file {path}", allowed=", ".join(machine.queues))
    return machine


def complete_resources(resources: Resources, machine: Machine) -> Resources:
    """Fill in the machine's defaults, and refuse a job that the machine cannot run, before anything is queued.

    Raises
    ------
    ConfigError : a resource is missing or exceeds a limit.
    """
    given = {name: getattr(resources, name) or getattr(machine, name) for name in DEFAULTED}
    full = with_values(resources, **given)
    for problem in _find_problems(full, machine):
        raise problem
    return full


DEFAULTED = ("queue", "account", "filesystems", "image")
COBALT_LEAST_WALLTIME = 300.0  # s; from get_time in its source


def _find_problems(resources: Resources, machine: Machine) -> Iterator[ConfigError]:
    where = f"machine {machine.name}"
    missing = [f"--{name}" for name in machine.requires if not getattr(resources, name)]
    if missing:
        required = ", ".join(f"--{name}" for name in machine.requires)
        yield ConfigError(f"{' and '.join(missing)} missing", where=where, allowed=f"every job must name {required}")
    unknown = [queue for queue in resources.queues if machine.queues and queue not in machine.queues]
    if unknown:
        yield ConfigError(f"unknown queue {unknown[0]!r}", where=where, allowed=", ".join(machine.queues))
    if len(resources.queues) > 1 and not takes_queue_lists(machine):
        allowed = "one queue; only Slurm's partitions can be listed"
        yield ConfigError(f"several queues: {resources.queue}", where=where, allowed=allowed)
    if resources.gpus_per_node > machine.gpus_per_node:
        allowed = f"at most {machine.gpus_per_node}"
        yield ConfigError(f"too many GPUs per node: {resources.gpus_per_node}", where=where, allowed=allowed)
    ranks = ranks_per_node(resources, machine)
    if ranks * resources.threads_per_rank > machine.cores_per_node:
        text = f"--ranks-per-node {ranks} with --threads-per-rank {resources.threads_per_rank}"
        yield ConfigError(
            f"a node has too few cores for {text}", where=where, allowed=f"{machine.cores_per_node} cores"
        )
    if resources.memory and machine.memory_per_node and resources.memory > machine.memory_per_node:
        allowed = f"at most {machine.memory_per_node / 1024**3:.0f}GiB per node"
        yield ConfigError("more memory than a node has", where=where, allowed=allowed)
    yield from _scheduler_problems(resources, machine, where)
    for queue in resources.queues:
        if queue in machine.queues:
            yield from _queue_problems(resources, machine.queues[queue], f"{where}, queue {queue}")
    if len({machine.queues[queue].directives for queue in resources.queues if queue in machine.queues}) > 1:
        yield ConfigError(f"queues {resources.queue} need different directives", where=where, remedy="name one of them")


def takes_queue_lists(machine: Machine) -> bool:
    """Whether a job may name several queues, of which the scheduler takes the first that is free."""
    return machine.scheduler == "slurm" and machine.queue_option == "partition"


def _scheduler_problems(resources: Resources, machine: Machine, where: str) -> Iterator[ConfigError]:
    """Refuse what the scheduler refuses, or ignores silently."""
    if machine.scheduler == "local":
        given = [f"--{name}" for name in ("array", "after") if getattr(resources, name)]
        yield from (ConfigError(f"{name} needs a scheduler; this machine has none", where=where) for name in given)
    elif not all(map(SCHEDULERS[machine.scheduler].job_id.fullmatch, resources.after)):
        yield ConfigError(f"invalid job ids for {machine.scheduler}: {', '.join(resources.after)}", where="--after")
    if resources.local_disk and machine.scheduler != "local" and not (machine.scheduler == "slurm" or is_nci(machine)):
        yield ConfigError("local disk cannot be requested here", where="--local-disk", remedy="remove it")
    if machine.scheduler == "pbs" and machine.pbs_dialect == "torque":
        yield from _torque_problems(resources)
    if is_nci(machine):
        yield from _nci_problems(resources, machine, where)
    scheduler = SCHEDULERS.get(machine.scheduler)
    if scheduler and not scheduler.has_arrays and most_at_once(resources.array):
        what = f"{scheduler.title} has no arrays and cannot limit how many jobs run"
        yield ConfigError(what, where="--array", remedy="remove %N")
    if machine.scheduler == "flux":
        yield from _flux_problems(resources, machine)
    if machine.scheduler == "cobalt" and resources.walltime < COBALT_LEAST_WALLTIME:
        allowed = f"at least {clock(COBALT_LEAST_WALLTIME)}"
        yield ConfigError(f"a walltime of {clock(resources.walltime)} is too short", where=where, allowed=allowed)
    if machine.scheduler == "pbs" and len(indices(resources.array)) == 1:
        yield ConfigError("PBS refuses an array of one job", where="--array", remedy="give at least two indices")
    if machine.scheduler == "pbs" and resources.array and not step_of(indices(resources.array)):
        remedy = "submit each range as its own job or step"
        yield ConfigError(
            f"PBS cannot list the indices {resources.array}", where="--array",
            allowed="a range with equal steps, such as 0-9, 0-10:2 or 1,3,5", remedy=remedy,
        )  # fmt: skip


def is_nci(machine: Machine) -> bool:
    """Whether a machine's PBS reads totals over all nodes, as at NCI."""
    return machine.scheduler == "pbs" and machine.pbs_dialect == "nci"


def _torque_problems(resources: Resources) -> Iterator[ConfigError]:
    """Refuse what Torque lacks, or has in another form than other kinds of PBS."""
    if resources.array:
        remedy = "submit one job for each index"
        yield ConfigError("scimill does not support the arrays of Torque", where="--array", remedy=remedy)
    if resources.filesystems:
        yield ConfigError("Torque has no resource for file systems", where="--filesystems", remedy="remove it")
    if resources.memory and resources.nodes > 1:
        remedy = 'remove it, or limit each process: --directive "-l pmem=SIZE"'
        yield ConfigError("Torque ignores mem in a job of several nodes", where="--memory", remedy=remedy)


def _flux_problems(resources: Resources, machine: Machine) -> Iterator[ConfigError]:
    """Refuse what Flux has no option for, and GPUs that it cannot divide among the ranks."""
    for name in ("memory", "filesystems", "mail"):
        if getattr(resources, name):
            yield ConfigError(f"Flux has no option for --{name}", where=f"--{name}", remedy="remove it")
    ranks = ranks_per_node(resources, machine)
    if resources.gpus_per_node % ranks:
        what = f"{resources.gpus_per_node} GPUs cannot be divided among {ranks} ranks per node"
        yield ConfigError(what, where="--gpus-per-node", remedy="give one rank per GPU")


def _nci_problems(resources: Resources, machine: Machine, where: str) -> Iterator[ConfigError]:
    """Refuse cores and GPUs that do not belong together: a GPU comes with its share of the cores, as at NCI."""
    wrong = [name for name in resources.filesystems if not re.fullmatch(r"(gdata|scratch|massdata)/\w+", name)]
    if wrong:
        allowed = "such as gdata/ab01,scratch/ab01"
        yield ConfigError(f"unknown file system {wrong[0]!r}", where=f"{where}, --filesystems", allowed=allowed)
    gpus, cores = resources.gpus_per_node, requested_cores(resources, machine)
    if gpus and resources.nodes > 1 and gpus < machine.gpus_per_node:
        remedy = f"give --gpus-per-node {machine.gpus_per_node}"
        yield ConfigError("several nodes are always whole nodes", where=where, remedy=remedy)
    needed = ranks_per_node(resources, machine) * resources.threads_per_rank
    if needed > cores:
        text = f"--gpus-per-node {gpus} comes with {cores} cores, but ranks and threads need {needed}"
        yield ConfigError(text, where=where, remedy="request more GPUs, or fewer ranks or threads")


def requested_cores(resources: Resources, machine: Machine) -> int:
    """Return the cores per node to request where they are not those of the ranks: at NCI."""
    if resources.nodes > 1:
        return machine.cores_per_node
    if resources.gpus_per_node:
        return machine.cores_per_node // machine.gpus_per_node * resources.gpus_per_node
    return ranks_per_node(resources, machine) * resources.threads_per_rank


def _queue_problems(resources: Resources, queue: Queue, where: str) -> Iterator[ConfigError]:
    limits = [limit for nodes, limit in sorted(queue.walltime_up_to.items()) if resources.nodes <= nodes]
    most = limits[0] if limits else queue.most_walltime
    if most and resources.walltime > most:
        allowed = f"at most {clock(most)}" + (f" for --nodes {resources.nodes}" if limits else "")
        yield ConfigError(f"a walltime of {clock(resources.walltime)} is too long", where=where, allowed=allowed)
    if queue.least_walltime and resources.walltime < queue.least_walltime:
        allowed = f"at least {clock(queue.least_walltime)}"
        yield ConfigError(f"a walltime of {clock(resources.walltime)} is too short", where=where, allowed=allowed)
    if not queue.least_nodes <= resources.nodes <= (queue.most_nodes or resources.nodes):
        allowed = f"{queue.least_nodes} … {queue.most_nodes or 'any number'}"
        yield ConfigError(f"number of nodes is out of range: {resources.nodes}", where=where, allowed=allowed)


def ranks_per_node(resources: Resources, machine: Machine) -> int:
    """Return the ranks per node that a job requests, or that follow from its GPUs or threads."""
    if resources.ranks_per_node is not None:
        return resources.ranks_per_node
    return resources.gpus_per_node or max(1, machine.cores_per_node // resources.threads_per_rank)


def clock(seconds: float) -> str:
    """Format a walltime as HH:MM:SS, also beyond a day: all schedulers read that in the same way."""
    whole = int(seconds)
    return f"{whole // 3600:02d}:{whole % 3600 // 60:02d}:{whole % 60:02d}"
