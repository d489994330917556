"""Run all steps of a chain in one job, one after the other, within nodes that suffice for the largest."""

from collections.abc import Iterator, Mapping, Sequence

from scimill.config import with_values
from scimill.errors import ConfigError
from scimill.jobs.chain import Step
from scimill.jobs.machine import Machine, complete_resources, ranks_per_node
from scimill.jobs.render import Command, Place, render
from scimill.jobs.resources import Resources
from scimill.jobs.schedulers import submit_script
from scimill.jobs.scripts import detach, reserve_script, write_script
from scimill.jobs.steps import IN_QUEUE, Steps
from scimill.jobs.submit import StepPlan, scheduler_of


def submit_pack(
    steps: Steps, machine: Machine, commands: Mapping[str, Command], plans: Sequence[StepPlan],
    walltime: object, lock: int,
) -> str:  # fmt: skip
    """Queue one job for all steps of a chain that are due; return its id, empty if none is.

    Parameters
    ----------
    steps : the chain, which must be locked.
    machine : machine to submit it to.
    commands : commands of its steps, by name.
    plans : what to do with its steps.
    walltime : walltime if the user gave it; otherwise the sum of those of the steps.
    lock : descriptor of the lock.

    Raises
    ------
    ConfigError : jobs of the chain are in the queue, or the scheduler refuses the job.
    StorageError : a script cannot be written.
    """
    due = [plan for plan in plans if plan.due]
    busy = next((plan for plan in plans if plan.condition in IN_QUEUE), None)
    if due and busy:
        jobs = " ".join(steps.jobs(busy.step))
        raise ConfigError(f"step {busy.step.name} is in the queue, as job {jobs}", remedy="wait for it, or cancel it")
    if not due:
        return ""
    steps.state.scheduler, steps.state.machine = machine.scheduler, machine.name
    for plan in plans:
        steps.record_success(plan.step)
    resources = combine(steps, [plan.step for plan in due], machine, walltime)
    script = reserve_script(f"{steps.chain.name}-pack")
    packed = dict(_write_scripts(steps, machine, commands, due, script.name))
    place = Place(steps.chain.name, "", script.name, packed)
    write_script(render(resources, machine, Command(("scimill",)), place), script)
    units = [unit for plan in due for unit in steps.reset(plan.step, plan.due, script.name)]
    steps.write()
    job = submit_script(scheduler_of(machine), script, keep=(lock,))
    for unit in units:
        unit.job = job
    steps.write()
    return job


def combine(steps: Steps, due: Sequence[Step], machine: Machine, walltime: object) -> Resources:
    """Return the resources of a job that can run each of some steps, one after the other."""
    full = [complete_resources(step.resources, machine) for step in due]
    lasting = sum(step.resources.walltime * len(step.units) for step in due)
    memory = [one.memory for one in full if one.memory]
    combined = with_values(
        full[0],
        nodes=max(one.nodes for one in full),
        ranks_per_node=max(ranks_per_node(one, machine) * one.threads_per_rank for one in full),
        threads_per_rank=1,
        gpus_per_node=max(one.gpus_per_node for one in full),
        memory=max(memory) if len(memory) == len(full) else None,
        walltime=full[0].walltime if walltime is not None else lasting,
        array=None,
        after=tuple(dict.fromkeys(job for one in full for job in one.after)),
        name=f"{steps.chain.name[:10]}-pack",
        resumable=True,
    )
    return complete_resources(combined, machine)


def _write_scripts(
    steps: Steps, machine: Machine, commands: Mapping[str, Command], due: Sequence[StepPlan], name: str
) -> Iterator[tuple[str, str]]:
    """Write the scripts of the units that are due; yield the names of unit and script."""
    for plan in due:
        step = plan.step
        place = Place(steps.chain.name, step.name, name, is_packed=True)
        text = render(with_values(step.resources, after=()), machine, commands[step.name], place)
        for unit in plan.due:
            index = step.indices[step.units.index(unit)]
            script = reserve_script(f"{steps.chain.name}-{step.name}")
            write_script(text if index is None else detach(text, "array", index=index), script)
            yield unit, script.name
