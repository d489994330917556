"""What a job of a chain does at its start and its end, in `scimill jobs begin` and `scimill jobs next`."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from scimill.errors import InputError
from scimill.jobs.schedulers import INDEX, SCHEDULERS, change, query_states, submit_script
from scimill.jobs.scripts import detach, reserve_script, write_script
from scimill.jobs.state import ChainState, StepState, Unit, locked, read_state, write_state
from scimill.parallel.report import say

CONTINUED = 75  # exit code of a command that stopped before the walltime


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


def end(folder: Path, name: str, script: Path, status: int, links: int) -> int:
    """Record how a job ended; if it stopped before its walltime, submit the next link.

    Parameters
    ----------
    folder : folder of the chain's state.
    name : unit of the chain.
    script : copy of the job's script.
    status : exit code of its command.
    links : maximum number of jobs.

    Returns
    -------
    the exit code of the job: 0 if another one resumes it.

    """
    text = script.read_text("utf-8")
    own = re.findall(r"(?m)^script=(\S+)$", text)[0]
    with locked(folder) as lock:
        state = read_state(folder)
        unit = _own_unit(state, name, own)
        if unit is None:
            say(f"{name} was submitted again: this job, {own}, records nothing")
            return status
        unit.code = status
        write_state(folder, state)
        link = len(unit.former) + 1
        if status != CONTINUED or link >= links or state.scheduler not in SCHEDULERS:
            return status
        say(f"link {link} of at most {links} has stopped; submitting the next one")
        _submit_next(folder, state, name, text, lock)
        _move_followers(state, _step(name))
    return 0


def _submit_next(folder: Path, state: ChainState, name: str, text: str, lock: int) -> None:
    """Submit the script of the next link, after recording that it is about to be."""
    unit = state.unit(name)
    following = reserve_script(f"{folder.name}-{_step(name)}")
    write_script(detach(text, "array", "after", **_index()).replace(unit.script, following.name), following)
    unit.former.append(unit.job)
    unit.script, unit.job, unit.is_held = following.name, "", False
    write_state(folder, state)
    unit.job = submit_script(SCHEDULERS[state.scheduler], following, keep=(lock,))
    unit.code = None
    write_state(folder, state)
    say(f"the next link is job {unit.job}")


def _move_followers(state: ChainState, name: str) -> None:
    """Let the jobs that wait for a step wait for its current jobs."""
    scheduler = SCHEDULERS[state.scheduler]
    for step in state.steps.values():
        if name not in step.after:
            continue
        waits = sorted({*_pending(state, step), *_outside(state, step)})
        for job in sorted({unit.job for unit in step.units.values() if unit.job and unit.code is None}):
            why = change(scheduler.move(job, waits)) if scheduler.move else f"{scheduler.title} cannot change that"
            if why:
                say(f"cannot make job {job} wait for {' '.join(waits)}: {why}")


def _pending(state: ChainState, step: StepState) -> Iterator[str]:
    """Yield the jobs of the chain that a step still waits for."""
    units = (unit for name in step.after for unit in state.steps[name].units.values())
    return (unit.job for unit in units if unit.code != 0 and unit.job)


def _outside(state: ChainState, step: StepState) -> list[str]:
    """Return the jobs outside the chain that a step still waits for: a job that has ended may be unknown."""
    states = query_states(SCHEDULERS[state.scheduler], dict.fromkeys(step.outside, "")).states
    return [job for job in step.outside if states.get(job) != "ended"]
