"""The state of a chain's steps, in a folder beside the results; job scripts write there too.

scheduler     scheduler that the chain was submitted to
UNIT.job      id of the unit's current job
UNIT.status   exit code of its last job, and digest of the command
UNIT.sound    sizes and times of its output when last verified, or when first seen if it is not an artifact
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from scimill.errors import ConfigError, InputError, NotAnArtifact, StorageError
from scimill.jobs.chain import Chain, Step
from scimill.jobs.render import RECORDS
from scimill.jobs.schedulers import SCHEDULERS, Answer, query_states

CONTINUED = 75  # exit code of a command that stopped before the walltime
DAMAGED = (InputError.exit_code, StorageError.exit_code)
"""Exit codes of ``scimill verify`` for an output that is missing, incomplete or damaged."""

SizesAndTimes = dict[str, list[int]]
StepState = Literal["complete", "waiting", "queued", "running", "unknown", "stopped", "failed", "to do"]


class ExitStatus(NamedTuple):
    """How the last job of a unit ended."""

    code: int
    digest: str


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
    """The state of a chain's steps.

    Parameters
    ----------
    chain : the chain.
    find_output : finds the output of a step.
    folder : folder that its commands run in.

    """

    def __init__(self, chain: Chain, find_output: FindOutput, folder: Path) -> None:
        self.chain, self._find_output = chain, find_output
        self.folder = folder / RECORDS / chain.name
        self._root = folder
        self._complete: dict[str, bool] = {}

    # ---- records ----

    def make_folder(self) -> None:
        """Make the folder of the records.

        Raises
        ------
        StorageError : it cannot be made.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot make the folder: {error.strerror}", where=str(self.folder)) from None

    def _read(self, name: str) -> str:
        """Read a record; empty where there is none."""
        try:
            return (self.folder / name).read_text("utf-8").strip()
        except OSError:
            return ""

    def status(self, unit: str) -> ExitStatus | None:
        """Return how a unit's last job ended; None where none has ended."""
        code, _, digest = self._read(f"{unit}.status").partition(" ")
        with contextlib.suppress(ValueError):
            return ExitStatus(int(code), digest)
        return None

    def jobs(self, step: Step) -> list[str]:
        """Return the ids of a step's current jobs."""
        return [job for unit in step.units if (job := self._read(f"{unit}.job"))]

    @property
    def scheduler(self) -> str:
        """Scheduler that the chain was submitted to; empty where it was not."""
        return self._read("scheduler")

    def clear(self, step: Step) -> None:
        """Delete the records of a step's former jobs before it runs again."""
        for unit in step.units:
            for kind in ("status", "job", "sound"):
                (self.folder / f"{unit}.{kind}").unlink(missing_ok=True)

    def record_job(self, unit: str, job: str, scheduler: str) -> None:
        """Record the job that runs a unit."""
        (self.folder / "scheduler").write_text(f"{scheduler}\n", "utf-8")
        (self.folder / f"{unit}.job").write_text(f"{job}\n", "utf-8")

    def recheck(self, step: Step) -> None:
        """Make the next call of `is_complete` check a step again, because it has run."""
        self._complete.pop(step.name, None)

    def record_success(self, step: Step) -> None:
        """Record that a step is complete, for the jobs that wait for it."""
        for unit in step.units:
            (self.folder / f"{unit}.status").write_text(f"0 {step.digest}\n", "utf-8")

    # ---- complete or not ----

    def is_complete(self, step: Step) -> bool:
        """Whether a step need not run: its output exists and is sound, and the steps before it are complete.

        Raises
        ------
        ConfigError : it ran with another command, whose output is in the way.
        """
        if step.name not in self._complete:
            before = all(self.is_complete(self.chain.steps[name]) for name in step.after)
            units = (self._is_done(step, number, unit) for number, unit in enumerate(step.units))
            self._complete[step.name] = before and all(units)
        return self._complete[step.name]

    def _is_done(self, step: Step, number: int, unit: str) -> bool:
        output, status = self._find_output(step, number), self.status(unit)
        paths = [self._root / path for path in output.paths]
        if not all(path.exists() for path in paths):
            return False
        is_other = status is not None and status.digest != step.digest
        if not (output.is_verifiable and paths):
            return not is_other and self._is_unchanged(paths, unit, status)
        if is_other:
            raise ConfigError(
                f"step {step.name} ran with another command", where=str(paths[0]),
                remedy=f"restore that command, or remove this output and {self.folder / (unit + '.status')}",
            )  # fmt: skip
        # The chain has no record of an output that it did not make: rerun the command with --resume, which ends at once
        # if the configuration is the same, and refuses the output otherwise.
        return status is not None and self._is_sound(paths, unit, status)

    def _is_sound(self, paths: Sequence[Path], unit: str, status: ExitStatus) -> bool:
        """Verify an output, unless it has not changed since it was last verified."""
        found = self._sizes_and_times(paths[:1])
        if self._recorded(unit) == found:
            return True
        command = [sys.executable, "-m", "scimill", "verify", str(paths[0])]
        verdict = subprocess.run(command, capture_output=True, text=True, check=False)
        if NotAnArtifact.WHAT in verdict.stderr:
            return self._is_unchanged(paths, unit, status)
        if verdict.returncode == 0:
            self._record(unit, found)
        if verdict.returncode in (0, *DAMAGED):
            return verdict.returncode == 0
        return status.code == 0  # verify cannot run here, e.g. without HDF5

    def _is_unchanged(self, paths: Sequence[Path], unit: str, status: ExitStatus | None) -> bool:
        """Whether the command succeeded and left files, which cannot be verified, that have not changed.

        Files that other steps have added since do not count: steps may share a folder.
        """
        if status is None or status.code != 0:
            return False
        found, recorded = self._sizes_and_times(paths), self._recorded(unit)
        if not recorded:
            self._record(unit, found)
        return all(found.get(name) == size_and_time for name, size_and_time in recorded.items())

    def _sizes_and_times(self, paths: Sequence[Path]) -> SizesAndTimes:
        """Size and modification time of files, and of all files in folders, by path."""
        files = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file()]
        stats = {os.path.relpath(file, self._root): file.stat() for file in files}
        return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}

    def _recorded(self, unit: str) -> SizesAndTimes:
        """Return the record of a unit's output; empty where there is none."""
        with contextlib.suppress(ValueError):
            recorded = json.loads(self._read(f"{unit}.sound"))
            return recorded if isinstance(recorded, dict) else {}
        return {}

    def _record(self, unit: str, found: SizesAndTimes) -> None:
        if self.folder.is_dir():
            (self.folder / f"{unit}.sound").write_text(json.dumps(found), "utf-8")

    # ---- states ----

    def query_jobs(self) -> Answer:
        """Ask the scheduler for the states of the chain's jobs."""
        if self.scheduler not in SCHEDULERS:
            return Answer({}, {})
        jobs = {job for step in self.chain.steps.values() for job in self.jobs(step)}
        return query_states(SCHEDULERS[self.scheduler], sorted(jobs))

    def state(self, step: Step, answer: Answer) -> StepState:
        """Return the state of a step; for an array, that of its most advanced job."""
        jobs = self.jobs(step)
        found = {answer.states.get(job) for job in jobs}
        for state in ("running", "queued", "waiting"):
            if state in found:
                return state
        if self.is_complete(step):
            return "complete"
        if answer.unclear.keys() & set(jobs):
            return "unknown"
        codes = [status.code for unit in step.units if (status := self.status(unit)) and status.code]
        if codes:
            return "stopped" if set(codes) == {CONTINUED} else "failed"
        return "to do"
