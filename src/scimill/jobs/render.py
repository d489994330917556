"""From a machine, resources and a command to the script that its scheduler takes."""

import math
import shlex
from collections.abc import Sequence
from typing import Any

import jinja2

from scimill.errors import ConfigError
from scimill.jobs.machine import Machine, check, clock, folder, ranks_per_node
from scimill.jobs.resources import Resources

RESUMABLE = {("droplets", "generate"), ("droplets", "import-data"), ("droplets", "train")}
"""Commands that take --walltime and --resume, so that a chain of jobs can complete them."""
HOSTS = {"pbs": "PBS_NODEFILE", "cobalt": "COBALT_NODEFILE"}


def render(resources: Resources, machine: Machine, command: Sequence[str]) -> str:
    """Write the script of a job.

    Parameters
    ----------
    resources, machine : what the job asks for, and of whom.
    command : what it runs, such as ``scimill droplets generate out.h5 --count 1e9``.

    Raises
    ------
    ConfigError : the machine cannot give that, its scheduler does not know it, or there is no command.
    """
    check(resources, machine)
    if not command:
        raise ConfigError("there is no command", remedy="scimill jobs render ... -- scimill droplets generate ...")
    ranks, gpus = ranks_per_node(resources, machine), resources.gpus_per_node
    queue = resources.queue or machine.queue
    attributes = [f"filesystems={','.join(resources.filesystems)}"] if resources.filesystems else []
    container = machine.container.modules if resources.image else ()
    return _environment().get_template(f"{machine.scheduler}.sh.j2").render(
        resources=resources,
        machine=machine,
        queue=queue,
        directives=[*machine.directives, *(machine.queues[queue].directives if queue in machine.queues else ())],
        ranks_per_node=ranks,
        walltime=clock(resources.walltime),
        seconds=int(resources.walltime),
        memory_mib=math.ceil((resources.memory or 0) / 1024**2),
        attributes=[*attributes, *machine.chunk],
        modules=[*machine.modules, *container],
        launcher=launcher(resources, machine),
        gpus=gpu_order(machine)[:gpus],
        cpus_per_task=resources.threads_per_rank * machine.threads_per_core,
        command=command,
        resumable=is_resumable(command) and not resources.array,
    )  # fmt: skip


def is_resumable(command: Sequence[str]) -> bool:
    """Whether a command can be stopped before the walltime and gone on with in another job."""
    return command[0].endswith("scimill") and tuple(command[1:3]) in RESUMABLE


def gpu_order(machine: Machine) -> Sequence[int]:
    """GPUs of a node in the order of the cores that they are nearest to."""
    if isinstance(machine.gpu_order, tuple):
        return machine.gpu_order
    return range(machine.gpus_per_node)[:: -1 if machine.gpu_order == "descending" else 1]


def launcher(resources: Resources, machine: Machine) -> list[str]:
    """Words of the command line that starts the ranks."""
    per_node, threads = ranks_per_node(resources, machine), resources.threads_per_rank
    ranks = resources.nodes * per_node
    hosts = HOSTS.get(machine.scheduler)
    options = list(machine.launcher_options)
    if machine.launcher == "srun":
        cpus = threads * machine.threads_per_core
        return ["srun", f"--ntasks={ranks}", f"--ntasks-per-node={per_node}", f"--cpus-per-task={cpus}", *options]
    if machine.launcher == "mpiexec-pals":
        words = ["mpiexec", "-n", str(ranks), "--ppn", str(per_node), "--depth", str(threads), "--cpu-bind", "depth"]
        return [*words, *([] if hosts is None else ["--hostfile", f'"${hosts}"']), *options]
    words = ["mpirun", "-n", str(ranks)]
    if hosts is not None:
        words += ["-hostfile", f'"${hosts}"', "--map-by", f"ppr:{per_node}:node:PE={threads}"]
    return [*words, *options]


def _environment() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(folder() / "templates")
    layout: Any = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    environment = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, **layout)
    environment.filters["quote"] = shlex.quote
    return environment
