"""Run a chain on this computer without a scheduler: one step after the other, with the same scripts."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

from scimill.config import with_values
from scimill.errors import ConfigError, ScimillError, Stopped
from scimill.jobs.chain import Chain, Step
from scimill.jobs.machine import Machine
from scimill.jobs.render import Command, Place, render
from scimill.jobs.resources import Resources, indices
from scimill.jobs.schedulers import INDEX
from scimill.jobs.steps import CONTINUED, Steps
from scimill.jobs.submit import all_outputs, check_runnable, write_script

UNLIMITED = 10 * 365 * 86400.0  # s, the walltime of local jobs
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)


class StepFailure(ScimillError):
    """A step's command failed and has reported why itself."""

    def __init__(self, what: str, code: int, **details: str) -> None:
        super().__init__(what, **details)
        self.exit_code = code


def fit_machine(machine: Machine) -> Machine:
    """Give a machine without a scheduler the cores that this process may use.

    Raises
    ------
    ConfigError : it has a scheduler.
    """
    if machine.scheduler != "local":
        remedy = "scimill jobs submit CHAIN.yaml, or --machine local"
        raise ConfigError(f"machine {machine.name} has a scheduler: jobs must be submitted to it", remedy=remedy)
    return with_values(machine, cores_per_node=len(os.sched_getaffinity(0)))


def fit_resources(resources: Resources, machine: Machine, ranks: int | None) -> Resources:
    """Reduce a job to one node of this machine, with as many of its ranks as the cores allow.

    Parameters
    ----------
    resources : resources of the job elsewhere.
    machine : this machine.
    ranks : maximum number of ranks, if given.

    """
    threads = min(resources.threads_per_rank, machine.cores_per_node)
    most = ranks or machine.cores_per_node // threads
    return with_values(
        resources,
        nodes=1,
        ranks_per_node=min(resources.ranks_per_node or most, most),
        threads_per_rank=threads,
        gpus_per_node=min(resources.gpus_per_node, machine.gpus_per_node),
        memory=None,
        walltime=UNLIMITED,
        queue=None,
        account=None,
        array=None,
    )


def run_chain(
    steps: Steps, machine: Machine, commands: Mapping[str, Command], ranks: int | None, report: Callable[[str], None]
) -> None:
    """Run all steps that are not complete.

    Parameters
    ----------
    steps : the chain and its state.
    machine : this machine, see `fit_machine`.
    commands : commands of its steps, by name.
    ranks : maximum number of ranks of a step, if given.
    report : prints a line of progress.

    Raises
    ------
    ConfigError : a step is wrong; nothing has run.
    Stopped : interrupted; a second call continues from there.
    StepFailure : a step failed.
    """
    scripts = {step.name: _prepare(steps.chain, step, commands, machine, ranks) for step in steps.chain.steps.values()}
    steps.make_folder()
    for number, step in enumerate(steps.chain.steps.values(), start=1):
        title = f"{step.name} ({number} of {len(scripts)})"
        if steps.is_complete(step):
            steps.record_success(step)
            report(f"== {title}: already complete")
            continue
        steps.clear(step)
        for index in indices(step.resources.array) or [None]:
            report(f"== {title}{'' if index is None else f', index {index}'}: {' '.join(step.command)}")
            _run_script(step, scripts[step.name], index)
        steps.recheck(step)
        steps.is_complete(step)  # check now: a later step may write into the same folder


def _prepare(chain: Chain, step: Step, commands: Mapping[str, Command], machine: Machine, ranks: int | None) -> str:
    """Check a step and render the script of its job."""
    resources = fit_resources(step.resources, machine, ranks)
    check_runnable(commands[step.name], resources, machine, all_outputs(commands))
    place = Place(chain.name, step.name, step.digest, chain.units_before(step), ())
    return render(resources, machine, commands[step.name], place)


def _run_script(step: Step, script: str, index: int | None) -> None:
    path = write_script(script, step.name)
    more = {} if index is None else {INDEX: str(index)}
    code, interrupted = _run(["bash", str(path)], os.environ | more)
    if interrupted:
        raise Stopped(f"stopped by {interrupted} in step {step.name}", remedy="run the same command again to continue")
    if code:
        remedy = (
            "run the same command again to continue" if code == CONTINUED else "fix the error above, then run it again"
        )
        raise StepFailure(f"step {step.name} ended with exit code {code}", code, remedy=remedy)


def _run(command: list[str], environment: Mapping[str, str]) -> tuple[int, str]:
    """Run a command in its own process group; return its exit code and the signal that interrupted it, if any."""
    process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, process_group=0)
    with _forwarding(process.pid) as received:
        return process.wait(), received[0] if received else ""


@contextmanager
def _forwarding(group: int) -> Iterator[list[str]]:
    """Forward signals to a process group; yield the list of those received."""
    received: list[str] = []

    def forward(number: int, _: FrameType | None) -> None:
        received.append(f"signal {signal.Signals(number).name}")
        os.killpg(group, number)

    previous = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
