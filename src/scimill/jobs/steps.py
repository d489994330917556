"""What is known of a campaign's steps, in a folder next to the results; job scripts write there too.

scheduler     the scheduler that the campaign was submitted to
UNIT.job      id of the job that does it, or goes on with it
UNIT.status   exit code of the last such job, and digest of the command
UNIT.sound    what its output looked like when it was verified
"""

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from scimill.errors import ConfigError, InputError, StorageError
from scimill.jobs.campaign import Campaign, Step
from scimill.jobs.render import RECORDS
from scimill.jobs.schedulers import SCHEDULERS, State, states

CONTINUED = 75  # exit code of a command that stopped before the walltime
DAMAGED = (InputError.exit_code, StorageError.exit_code)
"""Exit codes with which ``scimill verify`` says that an output is not there, not complete or not what was written."""

Standing = Literal["complete", "waiting", "queued", "running", "submitted", "stopped", "failed", "to do"]


class Status(NamedTuple):
    """How the last job of a unit ended."""

    code: int
    digest: str


@dataclass(frozen=True)
class Product:
    """What a step writes.

    Parameters
    ----------
    paths : files or folders that are there when it is complete.
    is_verifiable : whether ``scimill verify`` can tell of the first that it is complete.

    """

    paths: Sequence[Path]
    is_verifiable: bool


Products = Callable[[Step, int], Product]
"""What a step's element of a given number writes; 0 for a step that is no array."""


class Steps:
    """Where a campaign stands.

    Parameters
    ----------
    campaign : the campaign.
    products : tells what its steps write.
    folder : where its commands run.

    """

    def __init__(self, campaign: Campaign, products: Products, folder: Path) -> None:
        self.campaign, self._products = campaign, products
        self.folder = folder / RECORDS / campaign.name
        self._root = folder
        self._complete: dict[str, bool] = {}

    # ---- records ----

    def make_folder(self) -> None:
        """Make the folder of the records.

        Raises
        ------
        StorageError : that is refused.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot be made: {error.strerror}", where=str(self.folder)) from None

    def status(self, unit: str) -> Status | None:
        """How a unit's last job ended; None where none has."""
        try:
            code, _, digest = (self.folder / f"{unit}.status").read_text("utf-8").strip().partition(" ")
            return Status(int(code), digest)
        except (OSError, ValueError):
            return None

    def job(self, unit: str) -> str:
        """Id of the job that does a unit; empty where there is none."""
        try:
            return (self.folder / f"{unit}.job").read_text("utf-8").strip()
        except OSError:
            return ""

    @property
    def scheduler(self) -> str:
        """Scheduler that the campaign was submitted to; empty where it was not."""
        try:
            return (self.folder / "scheduler").read_text("utf-8").strip()
        except OSError:
            return ""

    def begin(self, step: Step) -> None:
        """Forget how a step's former jobs ended, since it is to be done again."""
        for unit in step.units:
            for kind in ("status", "job"):
                (self.folder / f"{unit}.{kind}").unlink(missing_ok=True)

    def submitted(self, unit: str, job: str, scheduler: str) -> None:
        """Write down which job does a unit."""
        (self.folder / "scheduler").write_text(f"{scheduler}\n", "utf-8")
        (self.folder / f"{unit}.job").write_text(f"{job}\n", "utf-8")

    def forget(self, step: Step) -> None:
        """Look again whether a step is complete, since it has been done."""
        self._complete.pop(step.name, None)

    def confirm(self, step: Step) -> None:
        """Write down that a step is complete, for the jobs that wait for it."""
        for unit in step.units:
            (self.folder / f"{unit}.status").write_text(f"0 {step.digest}\n", "utf-8")

    # ---- what is done ----

    def is_complete(self, step: Step) -> bool:
        """Whether a step need not be done: those before it are complete, and what it writes is there, and sound.

        Raises
        ------
        ConfigError : it was done with another command, and what that wrote is in the way.
        """
        if step.name not in self._complete:
            before = all(self.is_complete(self.campaign.steps[name]) for name in step.after)
            units = (self._is_done(step, number, unit) for number, unit in enumerate(step.units))
            self._complete[step.name] = before and all(units)
        return self._complete[step.name]

    def _is_done(self, step: Step, number: int, unit: str) -> bool:
        product, status = self._products(step, number), self.status(unit)
        paths = [self._root / path for path in product.paths]
        if not all(path.exists() for path in paths):
            return False
        is_other = status is not None and status.digest != step.digest
        if not (product.is_verifiable and paths):
            return status is not None and status.code == 0 and not is_other
        if is_other:
            raise ConfigError(
                f"step {step.name} was done with another command", where=str(paths[0]),
                remedy=f"bring the command back, or remove this and {self.folder / (unit + '.status')}",
            )  # fmt: skip
        return self._is_sound(paths[0], unit, status)

    def _is_sound(self, path: Path, unit: str, status: Status | None) -> bool:
        """Verify an output, unless it has been and has not changed since."""
        seen, look = self.folder / f"{unit}.sound", _look(path)
        with contextlib.suppress(OSError, ValueError):
            if json.loads(seen.read_text("utf-8")) == look:
                return True
        command = [sys.executable, "-m", "scimill", "verify", str(path)]
        code = subprocess.run(command, capture_output=True, check=False).returncode
        if code == 0 and self.folder.is_dir():
            seen.write_text(json.dumps(look), "utf-8")
        if code in (0, *DAMAGED):
            return code == 0
        return status is not None and status.code == 0  # nothing can be verified here: there is no HDF5, say

    # ---- where it stands ----

    def live(self) -> dict[str, State] | None:
        """What the scheduler says of the campaign's jobs; None where nobody answers."""
        if self.scheduler not in SCHEDULERS:
            return {}
        units = [unit for step in self.campaign.steps.values() for unit in step.units]
        return states(SCHEDULERS[self.scheduler], sorted({job for unit in units if (job := self.job(unit))}))

    def standing(self, step: Step, live: dict[str, State] | None) -> Standing:
        """Where a step stands; of an array, what the most advanced of its jobs does."""
        jobs = [job for unit in step.units if (job := self.job(unit))]
        for state in ("running", "queued", "waiting"):
            if any((live or {}).get(job) == state for job in jobs):
                return state
        if self.is_complete(step):
            return "complete"
        codes = [status.code for unit in step.units if (status := self.status(unit)) and status.code]
        if codes:
            return "stopped" if set(codes) == {CONTINUED} else "failed"
        return "submitted" if live is None and jobs else "to do"


def _look(path: Path) -> list[list[int]]:
    """Size and time of a file, or of those of a folder."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [[stat.st_size, stat.st_mtime_ns] for stat in (file.stat() for file in files)]
