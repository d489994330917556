"""Submit jobs: check everything, keep the exact script beside the results, pass it to the scheduler."""

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scimill.config import with_values
from scimill.errors import ConfigError
from scimill.jobs.chain import Step
from scimill.jobs.machine import Machine, complete_resources
from scimill.jobs.render import Command, Place, render
from scimill.jobs.resources import Resources, indices
from scimill.jobs.schedulers import (
    HOLD,
    SCHEDULERS,
    Answer,
    Scheduler,
    Unclear,
    change,
    has_ended,
    query_states,
    release,
    submit_script,
)
from scimill.jobs.scripts import detach, reserve_script, write_script
from scimill.jobs.state import ChainLock
from scimill.jobs.steps import IN_QUEUE, OPEN, Condition, Steps


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


def submit(resources: Resources, machine: Machine, command: Command) -> list[str]:
    """Submit one job; return its id, or one id per element of an array where the scheduler has no arrays.

    Raises
    ------
    ConfigError : the job is wrong, or the scheduler refuses it.
    StorageError : its script cannot be written.
    """
    scheduler = scheduler_of(machine)
    check_runnable(command, resources, machine)
    text = render(resources, machine, command)
    return [submit_script(scheduler, _keep(resources.name, text)) for text in _scripts(scheduler, resources, text)]


def _keep(name: str, text: str) -> Path:
    """Keep a script where it is submitted."""
    path = reserve_script(name)
    write_script(text, path)
    return path


def _scripts(scheduler: Scheduler, resources: Resources, text: str) -> Iterator[str]:
    """Yield the script of a job, or one per element of its array where the scheduler has no arrays."""
    if resources.array and not scheduler.has_arrays:
        yield from (detach(text, "array", index=index) for index in indices(resources.array))
    else:
        yield text


# ---- chains -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StepPlan:
    """What submitting a chain does with a step: submit some of its units, or leave it in its condition."""

    step: Step
    condition: Condition
    due: Sequence[str]
    """units to submit"""
    text: Callable[[str, Sequence[str]], str]
    """makes the script with this name of a job that waits for the jobs with these ids"""


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
    is_open = any(unit.script and unit.code in OPEN for _, unit in steps.state.units())
    if steps.state.machine not in ("", machine.name) and is_open:
        raise ConfigError(
            f"the chain was submitted to {steps.state.machine}, not to {machine.name}", where=str(steps.folder),
            remedy=f"submit it there, or from another directory; or first scimill jobs cancel {steps.chain.name}.yaml",
        )  # fmt: skip
    answer = steps.query_jobs()
    require_clear(answer, steps.state.scheduler)
    for name, unit in steps.state.former.items():
        what = f"{name} was removed from the chain, but its job {unit.job} has not ended"
        raise ConfigError(what, remedy=f"scimill jobs cancel {steps.chain.name}.yaml")
    plans: list[StepPlan] = []
    for step in steps.chain.steps.values():
        plans.append(_plan_step(steps, step, answer, machine, commands))
        _refuse_stuck(plans, steps)
    return plans


def require_clear(answer: Answer, scheduler: str) -> None:
    """Refuse to go on where a scheduler does not report the state of each job.

    Raises
    ------
    Unclear : it does not; the first job is named with what was seen.
    """
    for job, seen in answer.unclear.items():
        what = f"{SCHEDULERS[scheduler].title} did not report the state of job {job}: {seen}"
        raise Unclear(what, remedy="repeat the command once it answers")


def _plan_step(steps: Steps, step: Step, answer: Answer, machine: Machine, commands: Mapping[str, Command]) -> StepPlan:
    conditions = [steps.unit_condition(step, number, answer) for number in range(len(step.units))]
    finished = (*IN_QUEUE, "complete")
    due = [name for name, condition in zip(step.units, conditions, strict=True) if condition not in finished]
    command = commands[step.name]

    ended = has_ended(scheduler_of(machine), step.resources.after) if due else set()
    outside = [job for job in step.resources.after if job not in ended]

    def text(script: str, jobs: Sequence[str]) -> str:
        resources = with_values(step.resources, after=(*outside, *jobs))
        return render(resources, machine, command, Place(steps.chain.name, step.name, script))

    if due:
        check_runnable(command, step.resources, machine, all_outputs(commands))
        text("script.sh", ())
    return StepPlan(step, steps.condition(step, answer), due, text)


def all_outputs(commands: Mapping[str, Command]) -> set[Path]:
    """Return the outputs of all commands of a chain."""
    return {path for command in commands.values() for path in command.outputs}


def _refuse_stuck(plans: Sequence[StepPlan], steps: Steps) -> None:
    """Refuse a job that waits for a failed one, which is about to be replaced."""
    last = plans[-1]
    due = {plan.step.name for plan in plans if plan.due}
    if last.condition == "stuck" or (last.condition == "waiting" and due & set(last.step.after)):
        jobs = ", ".join(sorted(set(steps.jobs(last.step))))
        remedy = f"scimill jobs cancel {steps.chain.name}.yaml {last.step.name}"
        raise ConfigError(f"step {last.step.name}, job {jobs}, waits for a job that has ended", remedy=remedy)


def submit_chain(steps: Steps, machine: Machine, plans: Sequence[StepPlan], lock: ChainLock) -> dict[str, list[str]]:
    """Queue all steps that are due, each behind those that it waits for; return the ids of the jobs by step.

    Parameters
    ----------
    steps : the chain, which must be locked.
    machine : machine to submit it to.
    plans : what to do with its steps.
    lock : the lock.

    Raises
    ------
    ConfigError : the scheduler refuses one; those before it are queued, and a second call continues from there.
    StorageError : a script cannot be written.
    """
    submission = Submission(steps, machine, lock)
    for plan in plans:
        steps.record_success(plan.step)
    steps.write()
    try:
        for plan in (plan for plan in plans if plan.due):
            submission.submit_step(plan)
        steps.learn_what_is_shown([job for jobs in submission.queued.values() for job in jobs])
    finally:
        submission.release()
    return submission.queued


class Submission:
    """The submission of a chain's steps, of which no instant leaves a job that nobody can find again.

    Parameters
    ----------
    steps : the chain, which must be locked.
    machine : machine to submit to.
    lock : the lock, which the scheduler's command keeps even if this process is killed.

    Attributes
    ----------
    queued : ids of the jobs by step.

    """

    def __init__(self, steps: Steps, machine: Machine, lock: ChainLock) -> None:
        self._steps, self._lock = steps, lock
        self._scheduler = scheduler_of(machine)
        self.queued: dict[str, list[str]] = {}
        self._submitted: list[str] = []
        steps.state.scheduler, steps.state.machine = machine.scheduler, machine.name

    def submit_step(self, plan: StepPlan) -> None:
        """Queue the units of a step that are due: as an array if all are and the scheduler has arrays.

        What is about to be submitted is written before, and the ids of the jobs at once after.

        Cobalt and most PBS servers forget a job that ends before another that waits for it is queued. So jobs that wait
        for no other but have followers are held until all are queued.
        """
        step = plan.step
        waits = self._pending(step)
        is_held = bool(self._scheduler.release and not waits and any(self._steps.chain.followers(step)))
        is_array = bool(step.resources.array) and self._scheduler.has_arrays and list(plan.due) == step.units
        for names in [plan.due] if is_array else [[name] for name in plan.due]:
            script = self._keep(plan, names, waits, is_array=is_array)
            units = self._steps.reset(step, names, script.name)
            for unit in units:
                unit.is_held = is_held
            self._steps.write()
            job = submit_script(self._scheduler, script, HOLD if is_held else (), keep=(self._lock.descriptor,))
            for unit, index in zip(units, step.indices, strict=False):
                unit.job = self._scheduler.element(job, index) if is_array and index is not None else job
            self._steps.write()
            self.queued.setdefault(step.name, []).append(job)
            self._submitted += names
            self._let_others_in()

    def _let_others_in(self) -> None:
        """Let jobs that have ended record it, and other commands change the chain, if this takes long.

        Raises
        ------
        ConfigError : jobs of this submission were cancelled meanwhile: no more are queued.
        """
        if not self._lock.let_others_in():
            return
        self._steps.read()
        for name in self._submitted:
            if not self._steps.state.unit(name).script:
                what = f"{name} was cancelled while the chain was being submitted"
                raise ConfigError(what, remedy="submit the chain again to continue it")

    def _keep(self, plan: StepPlan, names: Sequence[str], waits: Sequence[str], *, is_array: bool) -> Path:
        """Keep the script for some units of a step under a new name."""
        script = reserve_script(f"{self._steps.chain.name}-{plan.step.name}")
        text = plan.text(script.name, waits)
        index = plan.step.indices[plan.step.units.index(names[0])]
        write_script(text if is_array or index is None else detach(text, "array", index=index), script)
        return script

    def _pending(self, step: Step) -> list[str]:
        """Return the jobs of the steps before a step that were just submitted or are in the queue."""
        units = [unit for name in step.after for unit in self._steps.units(self._steps.chain.steps[name])]
        jobs = {unit.job for unit in units if unit.job and unit.code is None}
        return sorted(job for job in jobs if self._steps.answer.states.get(job, "queued") != "ended")

    def release(self) -> None:
        """Release the jobs that are held, also by an earlier submission that was killed; leave those that are not."""
        held = [unit for _, unit in self._steps.state.units() if unit.is_held]
        states = self._steps.answer.states
        jobs = {unit.job for unit in held if unit.job and states.get(unit.job, "waiting") == "waiting"}
        if jobs:
            release(self._scheduler, sorted(jobs))
        for unit in held:
            unit.is_held = False
        self._steps.write()


def cancel_steps(steps: Steps, names: Collection[str]) -> dict[str, list[str]]:
    """Cancel the jobs of some steps that have not ended, the last steps first; return their ids by step.

    With all steps, it also cancels the jobs of units that the chain no longer has.

    Raises
    ------
    ConfigError : the scheduler does not report the states of the jobs, or does not cancel one.
    """
    answer = steps.query_jobs()
    require_clear(answer, steps.state.scheduler)
    chosen = [step for step in steps.chain.steps.values() if step.name in names]
    units = [(step.name, unit) for step in chosen for unit in steps.units(step)]
    if set(names) == steps.chain.steps.keys():
        units += steps.state.former.items()
    jobs: dict[str, list[str]] = {}
    for name, unit in reversed(units):
        if answer.states.get(unit.job, "ended") != "ended":
            jobs.setdefault(name, []).append(unit.job)
        if unit.code in OPEN:
            unit.script = ""  # so that its job submits no next link
    steps.write()
    failures = [why for ids in jobs.values() if (why := _cancel(steps, sorted(set(ids))))]
    for why in failures:
        raise ConfigError(f"{SCHEDULERS[steps.state.scheduler].title} did not cancel all jobs: {why}")
    return {name: sorted(set(ids)) for name, ids in jobs.items()}


def _cancel(steps: Steps, jobs: Sequence[str]) -> str:
    """Cancel jobs; return what the scheduler says if one is still there."""
    scheduler = SCHEDULERS[steps.state.scheduler]
    why = change([*scheduler.cancel, *jobs])
    states = query_states(scheduler, dict.fromkeys(jobs, "")).states if why else {}
    return why if why and any(states.get(job) != "ended" for job in jobs) else ""
