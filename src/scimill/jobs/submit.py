"""Submitting: the exact script next to the results, then to the scheduler. Nothing is queued before all is checked."""

import itertools
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scimill.config import replaced
from scimill.errors import ConfigError, StorageError
from scimill.jobs.campaign import Campaign, Step
from scimill.jobs.machine import Machine, completed
from scimill.jobs.render import RECORDS, Command, Place, render
from scimill.jobs.resources import Resources, indices
from scimill.jobs.schedulers import HOLD, INDEX, SCHEDULERS, Scheduler, hand_over, release
from scimill.jobs.steps import Steps


def scheduler_of(machine: Machine) -> Scheduler:
    """Scheduler of a machine.

    Raises
    ------
    ConfigError : it has none.
    """
    if machine.scheduler not in SCHEDULERS:
        remedy = "scimill jobs run CAMPAIGN.yaml, or bash with the script that scimill jobs render prints"
        raise ConfigError(f"machine {machine.name} has no scheduler to submit to", remedy=remedy)
    return SCHEDULERS[machine.scheduler]


def check_runnable(command: Command, resources: Resources, machine: Machine, coming: Collection[Path] = ()) -> None:
    """Refuse a job whose image, program or folder of results is not there.

    Parameters
    ----------
    command, resources, machine : the job.
    coming : folders that will be there when it runs.

    Raises
    ------
    ConfigError : one of these.
    """
    image = completed(resources, machine).image
    if image and not os.access(image, os.R_OK):
        raise ConfigError(
            "there is no such image, or it cannot be read", where=image, remedy="see containers/README.md"
        )
    program = command.words[0] if command.words else ""
    if "/" in program and not image and not (Path(program).is_file() and os.access(program, os.X_OK)):
        raise ConfigError("this is no program that can be run", where=program, remedy="chmod +x it, or name another")
    for path in command.products:
        if not path.parent.is_dir() and path.parent not in coming:
            raise ConfigError(
                "the output's directory does not exist", where=str(path), remedy=f"mkdir -p {path.parent}"
            )


def write_script(text: str, name: str) -> Path:
    """Write a job's script where it is submitted, under a name that no other has; Cobalt wants it executable.

    Raises
    ------
    StorageError : it cannot be written.
    """
    folder = Path(RECORDS)
    try:
        folder.mkdir(exist_ok=True)
        for number in itertools.count(1):
            path = folder / f"{name}-{number}.sh"
            try:
                with path.open("x", encoding="utf-8") as file:
                    file.write(text)
            except FileExistsError:
                continue
            path.chmod(0o755)
            return path
    except OSError as error:
        raise StorageError(f"the script cannot be written: {error.strerror}", where=str(folder.resolve())) from None
    raise AssertionError("itertools.count does not end")


def submit(resources: Resources, machine: Machine, command: Command) -> list[str]:
    """Submit one job; return its id, or the ids of all jobs of an array where the scheduler has no arrays.

    Raises
    ------
    ConfigError : something is wrong with it, or the scheduler refuses it.
    StorageError : its script cannot be written.
    """
    scheduler = scheduler_of(machine)
    check_runnable(command, resources, machine)
    script = write_script(render(resources, machine, command), resources.name)
    return list(_submit_all(scheduler, script, resources))


def _submit_all(scheduler: Scheduler, script: Path, resources: Resources, options: Sequence[str] = ()) -> Iterator[str]:
    """Hand a script over, once for each element of an array where the scheduler has none."""
    if resources.array and not scheduler.has_arrays:
        for index in indices(resources.array):
            yield hand_over(scheduler, script, (*options, "--env", f"{INDEX}={index}"))
    else:
        yield hand_over(scheduler, script, options)


# ---- campaigns --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What submitting a campaign would do with a step: the script of its job, or why there is none."""

    step: Step
    standing: str
    script: Callable[[Sequence[str]], str]
    """makes the script of a job that waits for the jobs of these ids"""

    @property
    def is_due(self) -> bool:
        """Whether it is to be submitted."""
        return self.standing not in ("complete", "waiting", "queued", "running")


def plan(steps: Steps, machine: Machine, commands: Mapping[str, Command]) -> list[Plan]:
    """Check all steps of a campaign that are not complete, before any is queued.

    Parameters
    ----------
    steps : the campaign and where it stands.
    machine : where it is to be submitted.
    commands : what its steps run, by name.

    Raises
    ------
    ConfigError : something is wrong with one.
    """
    scheduler_of(machine)
    if steps.scheduler not in ("", machine.scheduler):
        raise ConfigError(
            f"the campaign was submitted to {steps.scheduler}, not to {machine.scheduler}",
            where=str(steps.folder), remedy="submit it there, or from another directory",
        )  # fmt: skip
    live = steps.live()
    if live is None:
        raise ConfigError(f"{machine.scheduler} does not answer what has become of the campaign's jobs")
    plans: list[Plan] = []
    for step in steps.campaign.steps.values():
        standing = steps.standing(step, live)
        plans.append(_plan_step(steps.campaign, step, standing, machine, commands))
        _refuse_stuck(plans, steps)
    return plans


def _plan_step(
    campaign: Campaign, step: Step, standing: str, machine: Machine, commands: Mapping[str, Command]
) -> Plan:
    place, command = place_of(campaign, step), commands[step.name]
    made = Plan(
        step, standing, lambda jobs: render(replaced(step.resources, after=tuple(jobs)), machine, command, place)
    )
    if made.is_due:
        check_runnable(command, step.resources, machine, products(commands))
        made.script(())
    return made


def products(commands: Mapping[str, Command]) -> set[Path]:
    """All that the commands of a campaign write."""
    return {path for command in commands.values() for path in command.products}


def _refuse_stuck(plans: Sequence[Plan], steps: Steps) -> None:
    """Refuse a job that still waits for one that has failed, and that is to be done again."""
    last = plans[-1]
    again = {plan.step.name for plan in plans if plan.is_due}
    if last.standing == "waiting" and again & set(last.step.after):
        jobs = ", ".join(sorted({steps.job(unit) for unit in last.step.units}))
        raise ConfigError(
            f"step {last.step.name} waits for a job that has ended", remedy=f"delete its job first: {jobs}"
        )


def place_of(campaign: Campaign, step: Step) -> Place:
    """Place of a step's job in its campaign."""
    followers = [(other.units, campaign.units_before(other)) for other in campaign.followers(step)]
    return Place(campaign.name, step.name, step.digest, campaign.units_before(step), followers)


def submit_campaign(steps: Steps, machine: Machine, plans: Sequence[Plan]) -> dict[str, list[str]]:
    """Queue all steps that are due, each behind those that it waits for; return the ids of the jobs by step.

    Raises
    ------
    ConfigError : the scheduler refuses one; those before it are queued, and a second call goes on from there.
    StorageError : a script cannot be written.
    """
    scheduler = scheduler_of(machine)
    steps.make_folder()
    complete = {plan.step.name for plan in plans if plan.standing == "complete"}
    for name in complete:
        steps.confirm(steps.campaign.steps[name])
    queued: dict[str, list[str]] = {}
    with _held(scheduler) as held:
        for plan in (plan for plan in plans if plan.is_due):
            before = [steps.campaign.steps[name] for name in plan.step.after if name not in complete]
            waits = sorted({steps.job(unit) for step in before for unit in step.units})
            queued[plan.step.name] = _submit_step(steps, machine, plan, waits, held)
    return queued


@contextmanager
def _held(scheduler: Scheduler) -> Iterator[list[str]]:
    """Let the jobs in the list go in the end, whatever happens.

    Of a job that has ended before one that is to wait for it is queued, Cobalt and most PBS servers know nothing more.
    """
    held: list[str] = []
    try:
        yield held
    finally:
        if held:
            release(scheduler, held)


def _submit_step(steps: Steps, machine: Machine, plan: Plan, waits: Sequence[str], held: list[str]) -> list[str]:
    """Queue the jobs of a step; those that others wait for, and that wait for none, are held and join the list."""
    step, scheduler = plan.step, scheduler_of(machine)
    script = write_script(plan.script(waits), f"{steps.campaign.name}-{step.name}")
    steps.begin(step)
    is_held = bool(scheduler.release and not waits and any(steps.campaign.followers(step)))
    jobs: list[str] = []
    for job in _submit_all(scheduler, script, step.resources, HOLD if is_held else ()):
        jobs.append(job)
        held += [job] * is_held
    for unit, job in zip(step.units, _jobs_of_units(scheduler, step, jobs), strict=True):
        steps.submitted(unit, job, machine.scheduler)
    return jobs


def _jobs_of_units(scheduler: Scheduler, step: Step, jobs: Sequence[str]) -> list[str]:
    """What to wait for, for each unit of a step."""
    if step.resources.array and len(jobs) == 1:
        return [scheduler.element(jobs[0], index) for index in indices(step.resources.array)]
    return list(jobs)
