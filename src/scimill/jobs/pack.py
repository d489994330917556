"""Run all steps of a chain in one job, side by side where they are independent and fit its nodes."""

import math
from collections.abc import Mapping, Sequence

from scimill.config import with_values
from scimill.errors import ConfigError
from scimill.jobs.chain import Step
from scimill.jobs.machine import Machine, complete_resources, ranks_per_node
from scimill.jobs.parts import Part, Room, duration
from scimill.jobs.render import Command, Place, render
from scimill.jobs.resources import Resources, most_at_once
from scimill.jobs.schedulers import submit_script
from scimill.jobs.scripts import detach, reserve_script, write_script
from scimill.jobs.state import ChainLock
from scimill.jobs.steps import IN_QUEUE, Steps
from scimill.jobs.submit import StepPlan, scheduler_of

SHARING = ("srun", "flux")
"""Launchers that give each of several commands on a node cores and GPUs of its own."""


def submit_pack(
    steps: Steps, machine: Machine, commands: Mapping[str, Command], plans: Sequence[StepPlan],
    walltime: float | None, lock: ChainLock,
) -> str:  # fmt: skip
    """Queue one job for all steps of a chain that are due; return its id, empty if none is.

    Parameters
    ----------
    steps : the chain, which must be locked.
    machine : machine to submit it to.
    commands : commands of its steps, by name.
    plans : what to do with its steps.
    walltime : the job's walltime if the user gave it, s; otherwise as long as the steps may take.
    lock : the lock.

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
    script = reserve_script(f"{steps.chain.name}-pack")
    room = combine(steps, due, machine)
    parts = _write_scripts(steps, machine, commands, due, room, script.name)
    resources = with_values(room, walltime=walltime or _longest(steps, due, parts, room, machine))
    place = Place(steps.chain.name, "", script.name, parts, _room_words(room, machine))
    write_script(render(resources, machine, Command(("scimill",)), place), script)
    units = [unit for plan in due for unit in steps.reset(plan.step, plan.due, script.name)]
    steps.write()
    job = submit_script(scheduler_of(machine), script, keep=(lock.descriptor,))
    for unit in units:
        unit.job = job
    steps.write()
    return job


# ---- the nodes --------------------------------------------------------------------------------------------------


def combine(steps: Steps, due: Sequence[StepPlan], machine: Machine) -> Resources:
    """Return the resources of a job that can run each of some steps, and as many elements at once as its array says."""
    full = [complete_resources(plan.step.resources, machine) for plan in due]
    wide = [_widen(one, machine, len(plan.due)) for one, plan in zip(full, due, strict=True)]
    memory = [one.memory for one in wide if one.memory]
    return with_values(
        full[0],
        nodes=max(one.nodes for one in wide),
        ranks_per_node=max(_cores(one, machine) for one in wide),
        threads_per_rank=1,
        gpus_per_node=max(one.gpus_per_node for one in wide),
        memory=max(memory) if len(memory) == len(full) else None,
        array=None,
        after=tuple(dict.fromkeys(job for one in full for job in one.after)),
        name=f"{steps.chain.name[:10]}-pack",
        resumable=True,
    )


def _cores(resources: Resources, machine: Machine) -> int:
    return ranks_per_node(resources, machine) * resources.threads_per_rank


def _widen(one: Resources, machine: Machine, elements: int) -> Resources:
    """Return what a step needs if as many elements of its array as `%N` says run at once; one if it does not say."""
    count = min(most_at_once(one.array) or 1, elements)
    cores, gpus = _cores(one, machine), one.gpus_per_node
    limits = [machine.cores_per_node // cores]
    limits += [machine.gpus_per_node // gpus] if gpus else []
    limits += [machine.memory_per_node // one.memory] if one.memory and machine.memory_per_node else []
    per_node = min(count, *limits) if machine.launcher in SHARING else 1
    return with_values(
        one, nodes=one.nodes * math.ceil(count / per_node), ranks_per_node=cores * per_node, threads_per_rank=1,
        gpus_per_node=gpus * per_node, memory=one.memory * per_node if one.memory else None,
    )  # fmt: skip


def _share(room: Resources, machine: Machine) -> dict[str, int]:
    """Return what each node of the job has, by the names that `Room` gives it."""
    return {"cores": _cores(room, machine), "gpus": room.gpus_per_node, "memory": _mebibytes(room.memory)}


def _mebibytes(memory: int | None) -> int:
    return math.ceil((memory or 0) / 1024**2)


def _room_words(room: Resources, machine: Machine) -> list[str]:
    """Return the options that tell `scimill jobs pack` what the job has."""
    share = ",".join(f"{key}={value}" for key, value in _share(room, machine).items())
    return ["--nodes", str(room.nodes), "--each", share, *(["--shared"] if machine.launcher in SHARING else [])]


def _longest(steps: Steps, due: Sequence[StepPlan], parts: Sequence[Part], room: Resources, machine: Machine) -> float:
    """Return how long the job runs if each step takes its walltime, s."""
    units = {plan.step.name: plan.due for plan in due}
    needs = {unit: [other for name in plan.step.after for other in units.get(name, ())] for plan in due
             for unit in plan.due}  # fmt: skip
    nodes = Room(room.nodes, **_share(room, machine), is_shared=machine.launcher in SHARING)
    return duration(parts, needs, nodes)


# ---- the steps --------------------------------------------------------------------------------------------------


def _write_scripts(
    steps: Steps, machine: Machine, commands: Mapping[str, Command], due: Sequence[StepPlan], room: Resources, name: str
) -> list[Part]:
    """Write the scripts of the units that are due; return what each needs."""
    parts = []
    for step, unit in ((plan.step, unit) for plan in due for unit in plan.due):
        index = step.indices[step.units.index(unit)]
        place = Place(steps.chain.name, step.name, name, is_packed=True)
        text = render(with_values(step.resources, after=()), machine, commands[step.name], place)
        script = reserve_script(f"{steps.chain.name}-{step.name}")
        write_script(text if index is None else detach(text, "array", index=index), script)
        parts.append(_part(unit, script.name, step, commands[step.name], room, machine))
    return parts


def _part(unit: str, script: str, step: Step, command: Command, room: Resources, machine: Machine) -> Part:
    full = complete_resources(step.resources, machine)
    return Part(
        unit, script, full.nodes, _cores(full, machine), full.gpus_per_node,
        _mebibytes(full.memory) if room.memory else 0, int(full.walltime),
        int(command.is_resumable or full.resumable),
    )  # fmt: skip
