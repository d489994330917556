"""Render a job script from a machine, resources and a command."""

import contextlib
import math
import os
import shlex
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from jinja2.bccache import Bucket

from scimill.errors import ConfigError
from scimill.jobs.directives import check_directives, extra_directives
from scimill.jobs.machine import Machine, clock, complete_resources, folder, ranks_per_node, requested_cores
from scimill.jobs.parts import Part
from scimill.jobs.resources import Resources, as_range, indices
from scimill.jobs.schedulers import HOSTS, SCHEDULERS
from scimill.jobs.scripts import RECORDS

RESERVE = 30  # s that a packed job keeps for its end; commands of scimill stop 60 s before it
IMAGE_ENVIRONMENT = {"apptainer": "APPTAINERENV", "singularity": "SINGULARITYENV"}


@dataclass(frozen=True)
class Command:
    """The command of a job.

    Parameters
    ----------
    words : its command line.
    options : names of its parameters, if it is a command of scimill.
    outputs : files and folders that its command line names as output.
    margin : how long before the walltime it stops, if it can resume, s.
    rate : its measured speed, in words, if its campaign declares one.

    """

    words: tuple[str, ...]
    options: Collection[str] = ()
    outputs: Sequence[Path] = ()
    margin: float = 0.0
    rate: str = ""

    @property
    def is_resumable(self) -> bool:
        """Whether it can stop before the walltime and resume in another job."""
        return {"resume", "walltime"} <= set(self.options)


@dataclass(frozen=True)
class Place:
    """Place of a job in a chain.

    Parameters
    ----------
    chain, step : their names; no step for a job that runs several.
    script : name of its script.
    packed : the steps that it runs.
    room : what its nodes have for them: options of `scimill jobs pack`.
    is_packed : whether another job runs it, within its own nodes.

    """

    chain: str
    step: str
    script: str
    packed: Sequence[Part] = ()
    room: Sequence[str] = ()
    is_packed: bool = False


def render(resources: Resources, machine: Machine, command: Command, place: Place | None = None) -> str:
    """Render the script of a job.

    Parameters
    ----------
    resources, machine : the job's resources and the machine that has them.
    command : the command that it runs.
    place : its place in a chain, if it is part of one.

    Raises
    ------
    ConfigError : the machine or its scheduler cannot run the job, or there is no command.
    """
    resources = complete_resources(resources, machine)
    if not command.words:
        raise ConfigError("the command is missing", remedy="scimill jobs render ... -- scimill droplets generate ...")
    check_directives(resources, machine)
    extra = extra_directives(resources, machine)
    filesystems = [f"filesystems={','.join(resources.filesystems)}"] if resources.filesystems else []
    return _environment().get_template(f"{machine.scheduler}.sh.j2").render(
        resources=resources,
        machine=machine,
        place=place,
        records=RECORDS,
        directives=extra.lines,
        given=extra.given,
        ranks_per_node=ranks_per_node(resources, machine),
        walltime=clock(resources.walltime),
        seconds=int(resources.walltime),
        memory_mib=math.ceil((resources.memory or 0) / 1024**2),
        disk_mib=math.ceil((resources.local_disk or 0) / 1024**2),
        all_cores=resources.nodes * requested_cores(resources, machine),
        attributes=[*filesystems, *machine.chunk, *extra.attributes],
        modules=[*machine.modules, *(machine.container.modules if resources.image else ())],
        launcher=launcher(resources, machine, is_packed=place is not None and place.is_packed),
        gpus=gpu_order(machine),
        cpus_per_task=resources.threads_per_rank * machine.threads_per_core,
        image_environment=IMAGE_ENVIRONMENT[machine.container.runtime],
        python=sys.executable,
        submit=_submit_words(machine),
        command=[*command.words, *_store_options(machine, command)],
        resumable=command.is_resumable,
        continues=command.is_resumable or resources.resumable,
        scimill=command.words[0] if command.is_resumable else "scimill",
        margin=math.ceil(command.margin),
        reserve=RESERVE,
        printable="print_config" in command.options,
        array=indices(resources.array),
        array_range=as_range(resources.array) if resources.array else "",
        umask=f"{_umask():03o}",
    )  # fmt: skip


def _submit_words(machine: Machine) -> tuple[str, ...]:
    """Return the words of the command that submits the next link from inside a job."""
    scheduler = SCHEDULERS.get(machine.scheduler)
    return (scheduler.submit_inside or scheduler.submit) if scheduler else ()


def _store_options(machine: Machine, command: Command) -> list[str]:
    """Options for the machine's file system that a command accepts and does not give itself."""
    hints = ",".join(f"{name}={value}" for name, value in machine.mpi_io_hints.items())
    values = {"mpi_io_hints": hints, "alignment": machine.alignment}
    flags = {f"--{name.replace('_', '-')}": value for name, value in values.items() if name in command.options}
    return [word for flag, value in flags.items() if value and flag not in command.words for word in (flag, str(value))]


def gpu_order(machine: Machine) -> Sequence[int]:
    """Return the GPUs of a node in the order of their nearest cores."""
    if isinstance(machine.gpu_order, tuple):
        return machine.gpu_order
    return range(machine.gpus_per_node)[:: -1 if machine.gpu_order == "descending" else 1]


def launcher(resources: Resources, machine: Machine, *, is_packed: bool = False) -> list[str]:
    """Return the words of the command line that starts the ranks, perhaps on a part of the nodes."""
    per_node, threads = ranks_per_node(resources, machine), resources.threads_per_rank
    ranks = resources.nodes * per_node
    hosts = HOSTS.get(machine.scheduler)
    options = list(machine.launcher_options)
    if machine.launcher == "srun":
        cpus = threads * machine.threads_per_core
        part = _srun_part(resources) if is_packed else []
        return [
            "srun",
            *part,
            f"--ntasks={ranks}",
            f"--ntasks-per-node={per_node}",
            f"--cpus-per-task={cpus}",
            *options,
        ]
    if machine.launcher == "flux":
        words = ["flux", "run", f"--nodes={resources.nodes}", f"--ntasks={ranks}", f"--cores-per-task={threads}"]
        gpus = resources.gpus_per_node // per_node
        words += [f"--gpus-per-task={gpus}", "-o", "gpu-affinity=per-task"] if gpus else []
        # Ranks are children of Flux, whose umask is not the script's.
        return [*words, *options, "bash", "-c", rf'"umask {_umask():03o}; exec \"\$@\""', "umask"]
    if machine.launcher == "mpiexec-pals":
        words = ["mpiexec", "-n", str(ranks), "--ppn", str(per_node), "--depth", str(threads), "--cpu-bind", "depth"]
        return [*words, *([] if hosts is None else ["--hostfile", f'"${hosts}"']), *options]
    words = ["mpirun", "-n", str(ranks)]
    if hosts is not None:
        words += ["-hostfile", f'"${hosts}"', "--map-by", f"ppr:{per_node}:node:PE={threads}"]
        words += [word for name in _exported(resources, machine.environment) for word in ("-x", name)]
        # Pass these only where they are set.
        words += [f"${{{name}:+-x {name}}}" for name in ("LD_LIBRARY_PATH", "PYTHONPATH")]
    elif is_packed:
        words += ["${SCIMILL_HOSTFILE:+-hostfile $SCIMILL_HOSTFILE}"]
    return [*words, *options]


def _srun_part(resources: Resources) -> list[str]:
    """Return the options by which srun takes only a part of its job, so that others run beside it.

    Without them it takes all memory and all GPUs, and those beside it wait.
    """
    words = ["--exact", f"--nodes={resources.nodes}", f"--gpus-per-node={resources.gpus_per_node}"]
    return [*words, "${SCIMILL_HOSTS:+--nodelist=$SCIMILL_HOSTS}", "${SCIMILL_MEMORY:+--mem=$SCIMILL_MEMORY}"]


def _exported(resources: Resources, environment: Mapping[str, str]) -> list[str]:
    """Variables that Open MPI's mpirun passes to other hosts only on request."""
    index = ["SCIMILL_ARRAY_INDEX"] if resources.array else []
    ours = ["OMP_NUM_THREADS", "HDF5_USE_FILE_LOCKING", "HOROVOD_CONTROLLER", "HOROVOD_CPU_OPERATIONS"]
    return ["PATH", *ours, *index, *environment]


def _umask() -> int:
    """Return this process's umask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _environment() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(folder() / "templates")
    layout: Any = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    undefined, cache = jinja2.StrictUndefined, _bytecode_cache()
    environment = jinja2.Environment(loader=loader, undefined=undefined, bytecode_cache=cache, **layout)
    environment.filters["quote"] = shlex.quote
    return environment


class _BytecodeCache(jinja2.FileSystemBytecodeCache):
    """Cache of compiled templates in the user's temporary folder; not kept if the disk is full."""

    def dump_bytecode(self, bucket: Bucket) -> None:
        with contextlib.suppress(OSError):
            super().dump_bytecode(bucket)


def _bytecode_cache() -> _BytecodeCache | None:
    """Make the cache, which saves a tenth of the time; None if no folder is safe from other users."""
    with contextlib.suppress(OSError, RuntimeError):
        return _BytecodeCache()
    return None
