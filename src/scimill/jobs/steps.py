"""The steps of a chain: whether each is complete, and what its jobs are doing."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scimill.errors import ConfigError, InputError, NotAnArtifact, StorageError
from scimill.jobs.chain import Chain, Step
from scimill.jobs.parts import CONTINUED
from scimill.jobs.schedulers import SCHEDULERS, Answer, find_jobs, query_states, shows_scripts
from scimill.jobs.scripts import RECORDS
from scimill.jobs.state import ChainLock, SizesAndTimes, StepState, Unit, locked, read_state, write_state

OPEN = (None, CONTINUED)
"""Exit codes of a unit that has no job because its submission, or that of its next link, has not returned an id."""
DAMAGED = (InputError.exit_code, StorageError.exit_code)
"""Exit codes of ``scimill verify`` for an output that is missing, incomplete or damaged."""

Condition = Literal["complete", "waiting", "stuck", "queued", "running", "unknown", "stopped", "failed", "to do"]
"""What a step or one of its units is doing, or how it has ended."""
IN_QUEUE: tuple[Condition, ...] = ("running", "queued", "waiting", "stuck")
ORDER: Sequence[Condition] = (*IN_QUEUE, "unknown", "failed", "stopped", "to do", "complete")
"""An array has the first of these that any of its elements has."""


@dataclass(frozen=True)
class StepOutput:
    """Output of a step.

    Parameters
    ----------
    paths : files or folders that exist once the step is complete.
    is_verifiable : whether ``scimill verify`` can check that the first is complete.

    """

    paths: Sequence[Path]
    is_verifiable: bool


FindOutput = Callable[[Step, int], StepOutput]
"""Finds the output of one element of a step's array, by position; 0 for a step without an array."""


class Steps:
    """The steps of a chain and their state.

    Parameters
    ----------
    chain : the chain.
    find_output : finds the output of a step.
    folder : folder that its commands run in.

    Attributes
    ----------
    folder : folder of the state.
    state : the state as read last.
    answer : what the scheduler said last.

    """

    def __init__(self, chain: Chain, find_output: FindOutput, folder: Path) -> None:
        self.chain, self._find_output = chain, find_output
        self.folder = folder / RECORDS / chain.name
        self._root = folder
        self._complete: dict[str, bool] = {}
        self.answer = Answer({}, {})
        self.read()

    # ---- the state ----

    def read(self) -> None:
        """Read the state; a step that it lacks has not run.

        Raises
        ------
        ConfigError : it cannot be read.
        """
        self.state = read_state(self.folder)
        self._complete.clear()
        recorded = dict(self.state.units())
        self.state.steps = {
            step.name: StepState(
                {unit: recorded.pop(unit, Unit()) for unit in step.units}, list(step.after), list(step.resources.after)
            )
            for step in self.chain.steps.values()
        }
        self.state.former |= {name: unit for name, unit in recorded.items() if unit.script and unit.code in OPEN}

    @contextlib.contextmanager
    def locked(self) -> Iterator[ChainLock]:
        """Keep other commands from changing the chain, and read its state; yield the lock.

        Raises
        ------
        StorageError : the folder cannot be written, or another command changes the chain for too long.
        """
        with locked(self.folder) as lock:
            self.read()
            yield lock

    def write(self) -> None:
        """Write the state; the chain must be locked."""
        write_state(self.folder, self.state)

    def keep_verified(self) -> None:
        """Write which outputs were verified, unless another command is changing the chain."""
        with contextlib.suppress(StorageError):
            if not self.folder.is_dir():
                return
            with locked(self.folder, patience=0):
                latest = read_state(self.folder)
                for name, unit in self.state.units():
                    with contextlib.suppress(KeyError):
                        current = latest.unit(name)
                        if (current.script, current.code) == (unit.script, unit.code):
                            current.output = unit.output
                write_state(self.folder, latest)

    def units(self, step: Step) -> list[Unit]:
        """Return the units of a step in their order."""
        return list(self.state.steps[step.name].units.values())

    def jobs(self, step: Step) -> list[str]:
        """Return the ids of a step's current jobs."""
        return [unit.job for unit in self.units(step) if unit.job]

    def reset(self, step: Step, names: Sequence[str], script: str) -> list[Unit]:
        """Begin some units of a step anew, with a script; return them."""
        fresh = {name: Unit(script=script, digest=step.digest) for name in names}
        self.state.steps[step.name].units.update(fresh)
        self._complete.pop(step.name, None)
        return list(fresh.values())

    def record_success(self, step: Step) -> None:
        """Record which units of a step are complete, for the jobs that wait for it."""
        for number, unit in enumerate(self.units(step)):
            if self.is_unit_complete(step, number):
                unit.code, unit.digest = 0, step.digest

    # ---- complete or not ----

    def is_complete(self, step: Step) -> bool:
        """Whether a step need not run: its output exists and is sound, and the steps before it are complete.

        Raises
        ------
        ConfigError : it ran with another command, whose output is in the way.
        """
        if step.name not in self._complete:
            self._complete[step.name] = all(self.is_unit_complete(step, number) for number in range(len(step.units)))
        return self._complete[step.name]

    def is_unit_complete(self, step: Step, number: int) -> bool:
        """Whether a unit of a step, by its position, need not run; see `is_complete`."""
        before = all(self.is_complete(self.chain.steps[name]) for name in step.after)
        return before and self._is_done(step, number)

    def _is_done(self, step: Step, number: int) -> bool:
        output, unit = self._find_output(step, number), self.units(step)[number]
        paths = [self._root / path for path in output.paths]
        if not all(path.exists() for path in paths):
            return False
        has_ended = unit.code is not None
        is_other = has_ended and unit.digest != step.digest
        if not (output.is_verifiable and paths):
            return not is_other and self._is_unchanged(paths, unit)
        if is_other:
            raise ConfigError(
                f"step {step.name} ran with another command", where=str(paths[0]),
                remedy="restore that command, or remove this output",
            )  # fmt: skip
        # The chain has no record of an output that it did not make: rerun the command with --resume, which ends at once
        # if the configuration is the same, and refuses the output otherwise.
        return has_ended and self._is_sound(paths, unit)

    def _is_sound(self, paths: Sequence[Path], unit: Unit) -> bool:
        """Verify an output, unless it has not changed since it was last verified."""
        found = self._sizes_and_times(paths[:1])
        if unit.output == found:
            return True
        command = [sys.executable, "-m", "scimill", "verify", str(paths[0])]
        verdict = subprocess.run(command, capture_output=True, text=True, check=False)
        if NotAnArtifact.WHAT in verdict.stderr:
            return self._is_unchanged(paths, unit)
        if verdict.returncode == 0:
            unit.output = found
        if verdict.returncode in (0, *DAMAGED):
            return verdict.returncode == 0
        return unit.code == 0  # verify cannot run here, e.g. without HDF5

    def _is_unchanged(self, paths: Sequence[Path], unit: Unit) -> bool:
        """Whether the command succeeded and left files, which cannot be verified, that have not changed.

        Files that other steps have added since do not count: steps may share a folder.
        """
        if unit.code != 0:
            return False
        found = self._sizes_and_times(paths)
        unit.output = unit.output or found
        return all(found.get(name) == size_and_time for name, size_and_time in unit.output.items())

    def _sizes_and_times(self, paths: Sequence[Path]) -> SizesAndTimes:
        """Size and modification time of files, and of all files in folders, by path."""
        files = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file()]
        stats = {os.path.relpath(file, self._root): file.stat() for file in files}
        return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}

    # ---- jobs ----

    def query_jobs(self) -> Answer:
        """Ask the scheduler for the states of the chain's jobs, and for those that it has not told the ids of.

        Raises
        ------
        ConfigError : it does not report whether a job was queued.
        """
        if self.state.scheduler not in SCHEDULERS:
            return Answer({}, {})
        scheduler = SCHEDULERS[self.state.scheduler]
        self._find_lost()
        units = [*self.state.former.values(), *(unit for _, unit in self.state.units())]
        scripts = {unit.job: unit.script if self.state.shows_scripts else "" for unit in units if unit.job}
        answer = query_states(scheduler, scripts)
        self.answer = answer
        gone = [name for name, unit in self.state.former.items() if answer.states.get(unit.job, "ended") == "ended"]
        for name in gone:
            if self.state.former[name].job not in answer.unclear:
                del self.state.former[name]
        return answer

    def learn_what_is_shown(self, jobs: Collection[str]) -> None:
        """Find out from jobs that were just submitted whether the scheduler shows their scripts: a wrapper may not."""
        scripts = {unit.job: unit.script for _, unit in self.state.units() if unit.job in jobs}
        self.state.shows_scripts &= shows_scripts(SCHEDULERS[self.state.scheduler], scripts)

    def _find_lost(self) -> None:
        """Find the jobs whose scripts were submitted by a command that was killed before it could write their ids.

        A script that the scheduler does not list was never queued, or its job has ended without a trace.
        """
        scheduler = SCHEDULERS[self.state.scheduler]
        former = [unit for unit in self.state.former.values() if not unit.job]
        lost = {unit.script for _, unit in self.state.units() if unit.script and not unit.job and unit.code in OPEN}
        found = find_jobs(scheduler, lost | {unit.script for unit in former})
        for unit in former:
            unit.job = found.get(unit.script, "")
        for step in self.chain.steps.values():
            for unit, index in zip(self.units(step), step.indices, strict=True):
                if unit.script in found and not unit.job and unit.code in OPEN:
                    unit.job, unit.code = scheduler.sibling(found[unit.script], index), None

    def condition(self, step: Step, answer: Answer) -> Condition:
        """Return the condition of a step; for an array, that of the element that matters most."""
        found = {self.unit_condition(step, number, answer) for number in range(len(step.units))}
        return next(condition for condition in ORDER if condition in found)

    def unit_condition(self, step: Step, number: int, answer: Answer) -> Condition:
        """Return the condition of a unit of a step, by its position."""
        unit = self.units(step)[number]
        state = answer.states.get(unit.job)
        if state is not None and state != "ended":
            return state
        if self.is_unit_complete(step, number):
            return "complete"
        if unit.job in answer.unclear:
            return "unknown"
        if unit.code:
            return "stopped" if unit.code == CONTINUED else "failed"
        return "to do"
