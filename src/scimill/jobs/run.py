"""Running a campaign here, without a scheduler: one step after the other, by the same scripts."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

from scimill.config import replaced
from scimill.errors import ConfigError, ScimillError, Stopped
from scimill.jobs.campaign import Campaign, Step
from scimill.jobs.machine import Machine
from scimill.jobs.render import Command, Place, render
from scimill.jobs.resources import Resources, indices
from scimill.jobs.schedulers import INDEX
from scimill.jobs.steps import CONTINUED, Steps
from scimill.jobs.submit import check_runnable, products, write_script

NO_END = 10 * 365 * 86400.0  # s, the walltime of what runs here
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)


class Failed(ScimillError):
    """A step's command failed; it has said why itself."""

    def __init__(self, what: str, code: int, **details: str) -> None:
        super().__init__(what, **details)
        self.exit_code = code


def here(machine: Machine) -> Machine:
    """Return a machine without a scheduler as this computer is: with the cores that this process may use.

    Raises
    ------
    ConfigError : it has a scheduler.
    """
    if machine.scheduler != "local":
        remedy = "scimill jobs submit CAMPAIGN.yaml, or --machine local"
        raise ConfigError(f"machine {machine.name} has a scheduler: nothing runs there without it", remedy=remedy)
    return replaced(machine, cores_per_node=len(os.sched_getaffinity(0)))


def scaled(resources: Resources, machine: Machine, ranks: int | None) -> Resources:
    """Cut a job to one node of a machine: as many of its ranks as there are cores for.

    Parameters
    ----------
    resources : what the job asks for elsewhere.
    machine : this one.
    ranks : most ranks, if given.

    """
    threads = min(resources.threads_per_rank, machine.cores_per_node)
    most = ranks or machine.cores_per_node // threads
    return replaced(
        resources,
        nodes=1,
        ranks_per_node=min(resources.ranks_per_node or most, most),
        threads_per_rank=threads,
        gpus_per_node=min(resources.gpus_per_node, machine.gpus_per_node),
        memory=None,
        walltime=NO_END,
        queue=None,
        account=None,
        array=None,
    )


def run_campaign(
    steps: Steps, machine: Machine, commands: Mapping[str, Command], ranks: int | None, tell: Callable[[str], None]
) -> None:
    """Run all steps that are not complete.

    Parameters
    ----------
    steps : the campaign and where it stands.
    machine : this machine, see `here`.
    commands : what its steps run, by name.
    ranks : most ranks of a step, if given.
    tell : takes a line on what is done.

    Raises
    ------
    ConfigError : something is wrong with a step; nothing has run.
    Stopped : interrupted; a second call goes on from there.
    Failed : a step failed.
    """
    prepared = {
        step.name: _prepare(steps.campaign, step, commands, machine, ranks) for step in steps.campaign.steps.values()
    }
    steps.make_folder()
    for number, step in enumerate(steps.campaign.steps.values(), start=1):
        title = f"{step.name} ({number} of {len(prepared)})"
        if steps.is_complete(step):
            steps.confirm(step)
            tell(f"== {title}: complete already")
            continue
        steps.begin(step)
        for index in indices(step.resources.array) or [None]:
            tell(f"== {title}{'' if index is None else f', index {index}'}: {' '.join(step.command)}")
            _run_script(step, prepared[step.name], index)
        steps.forget(step)


def _prepare(
    campaign: Campaign, step: Step, commands: Mapping[str, Command], machine: Machine, ranks: int | None
) -> str:
    """Check a step and write the script of its job."""
    resources = scaled(step.resources, machine, ranks)
    check_runnable(commands[step.name], resources, machine, products(commands))
    place = Place(campaign.name, step.name, step.digest, campaign.units_before(step), ())
    return render(resources, machine, commands[step.name], place)


def _run_script(step: Step, script: str, index: int | None) -> None:
    path = write_script(script, step.name)
    more = {} if index is None else {INDEX: str(index)}
    code, interrupted = _run(["bash", str(path)], os.environ | more)
    if interrupted:
        raise Stopped(f"stopped by {interrupted} in step {step.name}", remedy="run the same command again to go on")
    if code:
        remedy = "run the same command again to go on" if code == CONTINUED else "see above, then run again"
        raise Failed(f"step {step.name} ended with exit code {code}", code, remedy=remedy)


def _run(command: list[str], environment: Mapping[str, str]) -> tuple[int, str]:
    """Run a command in a process group of its own; return its exit code and the signal that has ended it, if any."""
    process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, process_group=0)
    with _forwarding(process.pid) as heard:
        return process.wait(), heard[0] if heard else ""


@contextmanager
def _forwarding(group: int) -> Iterator[list[str]]:
    """Hand signals on to a process group; yield the list of those that came."""
    heard: list[str] = []

    def forward(number: int, _: FrameType | None) -> None:
        heard.append(f"signal {signal.Signals(number).name}")
        os.killpg(group, number)

    previous = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        yield heard
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
