"""Run a chain on this computer without a scheduler: one step after the other, with the same scripts."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from scimill.config import with_values
from scimill.errors import ConfigError, Stopped
from scimill.jobs.chain import Chain, Step
from scimill.jobs.follow import StepFailure
from scimill.jobs.machine import Machine
from scimill.jobs.parts import CONTINUED
from scimill.jobs.render import Command, Place, render
from scimill.jobs.resources import Resources
from scimill.jobs.schedulers import INDEX
from scimill.jobs.scripts import reserve_script, write_script
from scimill.jobs.state import running
from scimill.jobs.steps import Steps
from scimill.jobs.submit import all_outputs, check_runnable, require_clear

UNLIMITED = 10 * 365 * 86400.0  # s, the walltime of local jobs
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)


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
        after=(),
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
    prepared = [_prepare(steps.chain, step, commands, machine, ranks) for step in steps.chain.steps.values()]
    with running(steps.folder):
        with steps.locked():
            _refuse_queued(steps)
        for number, (step, text) in enumerate(zip(steps.chain.steps.values(), prepared, strict=True), start=1):
            _run_step(steps, step, text, f"{step.name} ({number} of {len(prepared)})", report)


def _refuse_queued(steps: Steps) -> None:
    """Refuse to run a chain that has jobs in the queue of a scheduler."""
    answer = steps.query_jobs()
    require_clear(answer, steps.state.scheduler)
    for job, state in answer.states.items():
        if state != "ended":
            remedy = f"wait for it, or scimill jobs cancel {steps.chain.name}.yaml"
            raise ConfigError(f"job {job} of this chain has not ended", remedy=remedy)


def _run_step(steps: Steps, step: Step, text: Callable[[str], str], title: str, report: Callable[[str], None]) -> None:
    """Run the units of a step that are not complete."""
    with steps.locked():
        due, script = _begin(steps, step)
    if not due:
        report(f"== {title}: already complete")
        return
    write_script(text(script.name), script)
    for index in due:
        report(f"== {title}{'' if index is None else f', index {index}'}: {' '.join(step.command)}")
        _run_script(step, script, index)
    with steps.locked():
        steps.is_complete(step)  # check now: a later step may write into the same folder
        steps.write()


def _begin(steps: Steps, step: Step) -> tuple[list[int | None], Path]:
    """Record that the units of a step that are not complete are about to run; return their indices, and the script."""
    steps.record_success(step)
    due = {name: index for number, (name, index) in enumerate(zip(step.units, step.indices, strict=True))
           if not steps.is_unit_complete(step, number)}  # fmt: skip
    script = reserve_script(step.name) if due else Path()
    steps.reset(step, list(due), script.name)
    steps.write()
    return list(due.values()), script


def _prepare(
    chain: Chain, step: Step, commands: Mapping[str, Command], machine: Machine, ranks: int | None
) -> Callable[[str], str]:
    """Check a step; return what renders the script of its job with a name."""
    resources = fit_resources(step.resources, machine, ranks)
    command = commands[step.name]
    check_runnable(command, resources, machine, all_outputs(commands))

    def text(script: str) -> str:
        return render(resources, machine, command, Place(chain.name, step.name, script))

    text("script.sh")
    return text


def _run_script(step: Step, script: Path, index: int | None) -> None:
    environment = {name: value for name, value in os.environ.items() if name != INDEX}
    own = {} if index is None else {INDEX: str(index)}
    code, interrupted = _run(["bash", str(script)], environment | own)
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
