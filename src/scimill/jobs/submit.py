"""Submit jobs: check everything, keep the exact script beside the results, pass it to the scheduler."""

import itertools
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scimill.config import with_values
from scimill.errors import ConfigError, StorageError
from scimill.jobs.chain import Chain, Step
from scimill.jobs.machine import Machine, complete_resources
from scimill.jobs.render import RECORDS, Command, Place, render
from scimill.jobs.resources import Resources, indices
from scimill.jobs.schedulers import HOLD, INDEX, SCHEDULERS, Answer, Scheduler, release, submit_script
from scimill.jobs.steps import Steps


def scheduler_of(machine: Machine) -> Scheduler:
    """Return the scheduler of a machine.

    Raises
    ------
    ConfigError : it has none.
    """
    if machine.scheduler not in SCHEDULERS:
        remedy = "scimill jobs run CHAIN.yaml, or run the script that scimill jobs render prints with bash"
        raise ConfigError(f"machine {machine.name} has no scheduler to submit to", remedy=remedy)
    return SCHEDULERS[machine.scheduler]


def check_runnable(command: Command, resources: Resources, machine: Machine, coming: Collection[Path] = ()) -> None:
    """Refuse a job whose image, program or output directory is missing.

    Parameters
    ----------
    command, resources, machine : the job.
    coming : directories that will exist when it runs.

    Raises
    ------
    ConfigError : something is missing.
    """
    image = complete_resources(resources, machine).image
    if image and not os.access(image, os.R_OK):
        raise ConfigError("image is missing or unreadable", where=image, remedy="see containers/README.md")
    program = command.words[0] if command.words else ""
    if "/" in program and not image and not (Path(program).is_file() and os.access(program, os.X_OK)):
        raise ConfigError("not an executable program", where=program, remedy="chmod +x it, or choose another program")
    for path in command.outputs:
        if not path.parent.is_dir() and path.parent not in coming:
            remedy = f"mkdir -p {path.parent}"
            raise ConfigError("the output's directory does not exist", where=str(path), remedy=remedy)


def write_script(text: str, name: str) -> Path:
    """Write a job's script where it is submitted, under a new name; Cobalt needs it executable.

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
        raise StorageError(f"cannot write the script: {error.strerror}", where=str(folder.resolve())) from None
    raise AssertionError("itertools.count does not end")


def submit(resources: Resources, machine: Machine, command: Command) -> list[str]:
    """Submit one job; return its id, or one id per element of an array where the scheduler has no arrays.

    Raises
    ------
    ConfigError : the job is wrong, or the scheduler refuses it.
    StorageError : its script cannot be written.
    """
    scheduler = scheduler_of(machine)
    check_runnable(command, resources, machine)
    script = write_script(render(resources, machine, command), resources.name)
    return list(_submit_all(scheduler, script, resources))


def _submit_all(scheduler: Scheduler, script: Path, resources: Resources, options: Sequence[str] = ()) -> Iterator[str]:
    """Submit a script once, or once per element of an array where the scheduler has no arrays."""
    if resources.array and not scheduler.has_arrays:
        for index in indices(resources.array):
            yield submit_script(scheduler, script, (*options, "--env", f"{INDEX}={index}"))
    else:
        yield submit_script(scheduler, script, options)


# ---- chains -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StepPlan:
    """What submitting a chain does with a step: submit its script, or leave it in its state."""

    step: Step
    state: str
    script: Callable[[Sequence[str]], str]
    """makes the script of a job that waits for the jobs with these ids"""

    @property
    def is_due(self) -> bool:
        """Whether to submit it."""
        return self.state not in ("complete", "waiting", "queued", "running")


def make_plans(steps: Steps, machine: Machine, commands: Mapping[str, Command]) -> list[StepPlan]:
    """Plan and check all steps of a chain before any is queued.

    Parameters
    ----------
    steps : the chain and its state.
    machine : machine to submit it to.
    commands : commands of its steps, by name.

    Raises
    ------
    ConfigError : a step cannot be submitted.
    """
    scheduler_of(machine)
    if steps.scheduler not in ("", machine.scheduler):
        raise ConfigError(
            f"the chain was submitted to {steps.scheduler}, not to {machine.scheduler}",
            where=str(steps.folder), remedy="submit it there, or from another directory",
        )  # fmt: skip
    answer = steps.query_jobs()
    require_clear(answer, steps.scheduler)
    plans: list[StepPlan] = []
    for step in steps.chain.steps.values():
        plans.append(_plan_step(steps.chain, step, steps.state(step, answer), machine, commands))
        _refuse_stuck(plans, steps)
    return plans


def require_clear(answer: Answer, scheduler: str) -> None:
    """Refuse to go on where a scheduler does not tell the state of each job.

    Raises
    ------
    ConfigError : it does not; the first job is named with what was seen.
    """
    for job, seen in answer.unclear.items():
        what = f"{SCHEDULERS[scheduler].title} does not tell the state of job {job}: {seen}"
        raise ConfigError(what, remedy="repeat the command once it answers")


def _plan_step(chain: Chain, step: Step, state: str, machine: Machine, commands: Mapping[str, Command]) -> StepPlan:
    followers = [(other.units, chain.units_before(other)) for other in chain.followers(step)]
    place, command = Place(chain.name, step.name, step.digest, chain.units_before(step), followers), commands[step.name]
    plan = StepPlan(
        step, state, lambda jobs: render(with_values(step.resources, after=tuple(jobs)), machine, command, place)
    )
    if plan.is_due:
        check_runnable(command, step.resources, machine, all_outputs(commands))
        plan.script(())
    return plan


def all_outputs(commands: Mapping[str, Command]) -> set[Path]:
    """Return the outputs of all commands of a chain."""
    return {path for command in commands.values() for path in command.outputs}


def _refuse_stuck(plans: Sequence[StepPlan], steps: Steps) -> None:
    """Refuse a job that waits for a failed one, which is about to be replaced."""
    last = plans[-1]
    due = {plan.step.name for plan in plans if plan.is_due}
    if last.state == "waiting" and due & set(last.step.after):
        jobs = ", ".join(sorted(set(steps.jobs(last.step))))
        raise ConfigError(
            f"step {last.step.name} waits for a job that has ended", remedy=f"delete its job first: {jobs}"
        )


def submit_chain(steps: Steps, machine: Machine, plans: Sequence[StepPlan]) -> dict[str, list[str]]:
    """Queue all steps that are due, each behind those that it waits for; return the ids of the jobs by step.

    Raises
    ------
    ConfigError : the scheduler refuses one; those before it are queued, and a second call continues from there.
    StorageError : a script cannot be written.
    """
    scheduler = scheduler_of(machine)
    steps.make_folder()
    complete = {plan.step.name for plan in plans if plan.state == "complete"}
    for name in complete:
        steps.record_success(steps.chain.steps[name])
    queued: dict[str, list[str]] = {}
    with _held(scheduler) as held:
        for plan in (plan for plan in plans if plan.is_due):
            before = [steps.chain.steps[name] for name in plan.step.after if name not in complete]
            waits = sorted({job for step in before for job in steps.jobs(step)})
            queued[plan.step.name] = _submit_step(steps, machine, plan, waits, held)
    return queued


@contextmanager
def _held(scheduler: Scheduler) -> Iterator[list[str]]:
    """Release the jobs in the list at the end, whatever happens.

    Cobalt and most PBS servers forget a job that ends before another that waits for it is queued.
    """
    held: list[str] = []
    try:
        yield held
    finally:
        if held:
            release(scheduler, held)


def _submit_step(steps: Steps, machine: Machine, plan: StepPlan, waits: Sequence[str], held: list[str]) -> list[str]:
    """Queue the jobs of a step; hold and list those that wait for no job but have followers."""
    step, scheduler = plan.step, scheduler_of(machine)
    script = write_script(plan.script(waits), f"{steps.chain.name}-{step.name}")
    steps.clear(step)
    is_held = bool(scheduler.release and not waits and any(steps.chain.followers(step)))
    jobs: list[str] = []
    for job in _submit_all(scheduler, script, step.resources, HOLD if is_held else ()):
        jobs.append(job)
        held += [job] * is_held
    for unit, job in zip(step.units, _jobs_of_units(scheduler, step, jobs), strict=True):
        steps.record_job(unit, job, machine.scheduler)
    return jobs


def _jobs_of_units(scheduler: Scheduler, step: Step, jobs: Sequence[str]) -> list[str]:
    """Return the job id to wait for, for each unit of a step."""
    if step.resources.array and len(jobs) == 1:
        return [scheduler.element(jobs[0], index) for index in indices(step.resources.array)]
    return list(jobs)
