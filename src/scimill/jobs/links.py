"""What a job of a chain does at its start and its end, in `scimill jobs begin` and `scimill jobs next`."""

import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from scimill.errors import InputError
from scimill.jobs.parts import CONTINUED, read_part
from scimill.jobs.schedulers import INDEX, SCHEDULERS, change, has_ended, submit_script
from scimill.jobs.scripts import detach, reserve_script, write_script
from scimill.jobs.state import ChainLock, ChainState, StepState, Unit, locked, read_state, write_state
from scimill.parallel.report import say


def write_next(script: Path) -> Path:
    """Write the script of the next link beside that of a job outside any chain, and return its path."""
    text = script.read_text("utf-8")
    link = int(re.findall(r"(?m)^link=(\d+)$", text)[0])
    following = script.with_name("next.sh")
    write_script(detach(text, "array", "after", link=link + 1, **_index()), following)
    following.chmod(0o755)
    return following


def _index() -> dict[str, object]:
    """Return the variable that gives this job's index in an array to its next link."""
    return {"index": os.environ[INDEX]} if INDEX in os.environ else {}


# ---- jobs of a chain --------------------------------------------------------------------------------------------


def begin(folder: Path, name: str, script: str) -> None:
    """Check that a job is still the one that its chain waits for, and that the steps before it are complete.

    Parameters
    ----------
    folder : folder of the chain's state.
    name : unit of the chain.
    script : name of the job's script.

    Raises
    ------
    InputError : it is not, or they are not: the job must end.
    """
    state = read_state(folder)
    unit = _own_unit(state, name, script)
    if unit is None:
        raise InputError(f"{name} was submitted again: this job, {script}, does nothing", where=str(folder))
    # The scheduler has checked this too, but it would miss a resumed job that was lost.
    for before in state.steps[_step(name)].after:
        if any(one.code != 0 for one in state.steps[before].units.values()):
            raise InputError(f"step {before} is not complete", where=str(folder), remedy="submit the chain again")


def _own_unit(state: ChainState, name: str, script: str) -> Unit | None:
    """Return a unit if this script is that of its current job."""
    step = state.steps.get(_step(name))
    unit = step.units.get(name) if step else None
    return unit if unit and unit.script == script else None


def _step(unit: str) -> str:
    return unit.partition(".")[0]


def end(folder: Path, name: str, text: str, own: str, status: int, links: int) -> int:
    """Record how a job ended; if it stopped before its walltime, submit the next link.

    Parameters
    ----------
    folder : folder of the chain's state.
    name : unit of the chain; empty for a job that runs several, which record their exit codes themselves.
    text : the job's script.
    own : the script's name.
    status : exit code of its command.
    links : maximum number of jobs.

    Returns
    -------
    the exit code of the job: 0 if another one resumes it.

    """
    with locked(folder) as lock:
        state = read_state(folder)
        units = {one: unit for one, unit in state.units() if unit.script == own and name in ("", one)}
        if not units:
            say(f"{name or folder.name} was submitted again: this job, {own}, records nothing")
            return status
        if name:
            units[name].code = status
            write_state(folder, state)
        left = {one: unit for one, unit in units.items() if unit.code in (None, CONTINUED)}
        link = max((len(unit.former) + 1 for unit in left.values()), default=1)
        if status != CONTINUED or not left or link >= links or state.scheduler not in SCHEDULERS:
            return status
        say(f"link {link} of at most {links} has stopped; submitting the next one")
        _submit_next(folder, state, left, text, lock)
        if name:
            _move_followers(state, _step(name))
    return 0


def _submit_next(folder: Path, state: ChainState, units: Mapping[str, Unit], text: str, lock: ChainLock) -> None:
    """Submit the script of the next link of some units, after recording that it is about to be."""
    own = next(iter(units.values())).script
    following = reserve_script(own.rpartition("-")[0])
    text = STEPS.sub(lambda match: _keep_steps(match[1], units), detach(text, "array", "after", **_index()))
    write_script(text.replace(own, following.name), following)
    for unit in units.values():
        unit.former.append(unit.job)
        unit.script, unit.job, unit.is_held = following.name, "", False
    write_state(folder, state)
    job = submit_script(SCHEDULERS[state.scheduler], following, keep=(lock.descriptor,))
    for unit in units.values():
        unit.job, unit.code = job, None
    write_state(folder, state)
    say(f"the next link is job {job}")


STEPS = re.compile(r"(?ms)^steps=\(\n(.*?)^\)$")
"""The steps that a job runs, in its script, one on each line."""


def _keep_steps(listed: str, units: Collection[str]) -> str:
    """Return the lines with the steps of some units alone."""
    kept = [line for line in listed.splitlines(keepends=True) if read_part(line.strip()).unit in units]
    return f"steps=(\n{''.join(kept)})"


def _move_followers(state: ChainState, name: str) -> None:
    """Let the jobs that wait for a step wait for its current jobs."""
    scheduler = SCHEDULERS[state.scheduler]
    for step in state.steps.values():
        if name not in step.after:
            continue
        waits = sorted({*_pending(state, step), *_outside(state, step)})
        jobs = {unit.job for unit in step.units.values() if unit.job and unit.code is None}
        for job in sorted({scheduler.whole(job) for job in jobs}):
            why = change(scheduler.move(job, waits)) if scheduler.move else f"{scheduler.title} cannot change that"
            if why:
                say(f"cannot make job {job} wait for {' '.join(waits)}: {why}")


def _pending(state: ChainState, step: StepState) -> Iterator[str]:
    """Yield the jobs of the chain that a step still waits for."""
    units = (unit for name in step.after for unit in state.steps[name].units.values())
    return (unit.job for unit in units if unit.code != 0 and unit.job)


def _outside(state: ChainState, step: StepState) -> list[str]:
    """Return the jobs outside the chain that a step still waits for: a job that has ended may be unknown."""
    ended = has_ended(SCHEDULERS[state.scheduler], step.outside)
    return [job for job in step.outside if job not in ended]
