"""The state of a chain, in one file that `submit`, `run` and the jobs themselves change, one at a time.

The token of a submission is the name of its script, which is made anew each time and which every scheduler shows. It is
written here before the script is submitted. So no instant leaves a job that nobody can find again.
"""

import contextlib
import errno
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from scimill.claim import Claim, ClaimHeld
from scimill.errors import ConfigError, StorageError
from scimill.files import replacing, storage_errors

FORMAT = 2
FILE, LOCK, RUN_LOCK = "state.json", "lock", "run.lock"
FORMER = "scheduler"
"""File that the records of earlier versions contain."""
ATTEMPTS = 3  # to read the state
PATIENCE = 300.0  # s to wait for another command that changes the chain; a busy scheduler lets it take minutes

SizesAndTimes = dict[str, list[int]]


@dataclass
class Unit:
    """A part of a step that ends independently: the step itself or an element of its array; with its current job."""

    script: str = ""
    """script that was submitted for it, the token of its job"""
    job: str = ""
    """the job's id; empty until the scheduler has reported it"""
    is_held: bool = False
    """whether it was submitted as held, and perhaps has not been released"""
    former: list[str] = field(default_factory=list)
    """ids of the jobs that it resumes, oldest first"""
    code: int | None = None
    """exit code of the command in its last job"""
    digest: str = ""
    """digest of that command"""
    output: SizesAndTimes = field(default_factory=dict)
    """sizes and times of its output when last verified, or when first seen if it is not an artifact"""


@dataclass
class StepState:
    """The state of a step."""

    units: dict[str, Unit]
    after: list[str]
    """steps that it waits for"""
    outside: list[str]
    """ids of jobs outside the chain that it waits for"""


@dataclass
class ChainState:
    """The state of a chain's steps, by name."""

    scheduler: str = ""
    machine: str = ""
    steps: dict[str, StepState] = field(default_factory=dict)
    former: dict[str, Unit] = field(default_factory=dict)
    """units that the chain no longer has, whose jobs perhaps have not ended"""
    shows_scripts: bool = True
    """whether the scheduler shows the scripts of jobs; not if a wrapper submits copies of them"""

    def unit(self, name: str) -> Unit:
        """Return a unit by its name, which is that of its step, with a point and an index if it is of an array."""
        return self.steps[name.partition(".")[0]].units[name]

    def units(self) -> Iterator[tuple[str, Unit]]:
        """Yield all units with their names."""
        for step in self.steps.values():
            yield from step.units.items()


def read_state(folder: Path) -> ChainState:
    """Read the state of a chain; an empty one if there is none.

    Raises
    ------
    ConfigError : another version of scimill wrote it, or it is damaged.
    """
    path = folder / FILE
    try:
        values = json.loads(_read_text(path))
    except FileNotFoundError:
        if (folder / FORMER).exists():
            remedy = f"wait until its jobs have ended, then remove {folder / FORMER}"
            raise ConfigError("an earlier version submitted this chain", where=str(folder), remedy=remedy) from None
        return ChainState()
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the state of the chain: {error}", where=str(path)) from None
    try:
        return _decode(values)
    except (TypeError, KeyError, AttributeError):
        what = "another version of scimill wrote the state of this chain"
        remedy = "use that version, or remove the file once no job of the chain is left"
        raise ConfigError(what, where=str(path), remedy=remedy) from None


def _read_text(path: Path) -> str:
    """Read a file that another host may replace meanwhile: NFS then no longer knows the one that was opened."""
    for _ in range(ATTEMPTS - 1):
        try:
            return path.read_text("utf-8")
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
    return path.read_text("utf-8")


def _decode(values: dict[str, Any]) -> ChainState:
    if values.pop("format") != FORMAT:
        raise KeyError(FORMAT)
    steps = {name: _decode_step(**step) for name, step in values.pop("steps").items()}
    former = {name: Unit(**unit) for name, unit in values.pop("former").items()}
    return ChainState(steps=steps, former=former, **values)


def _decode_step(units: dict[str, dict[str, Any]], **values: list[str]) -> StepState:
    return StepState({name: Unit(**unit) for name, unit in units.items()}, **values)


def write_state(folder: Path, state: ChainState) -> None:
    """Replace the state of a chain durably.

    Raises
    ------
    StorageError : it cannot be written.
    """
    with replacing(folder / FILE, "state of the chain") as part:
        part.write_text(json.dumps({"format": FORMAT, **asdict(state)}, indent=1), "utf-8")


@contextlib.contextmanager
def running(folder: Path) -> Iterator[None]:
    """Keep the steps of a chain from being run or submitted by two commands at once.

    Raises
    ------
    StorageError : another command runs them, or the folder cannot be written.
    """
    claim = Claim(folder / RUN_LOCK)
    with storage_errors(folder, "locking the chain"):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            claim.acquire()
        except ClaimHeld as error:
            what, _, owner = error.what.partition(": ")
            raise StorageError(f"another command runs this chain: {owner or what}", where=str(folder)) from None
    try:
        yield
    finally:
        claim.release()


@contextlib.contextmanager
def locked(folder: Path, patience: float = PATIENCE) -> Iterator[int]:
    """Keep all other commands from changing the chain; yield a descriptor that keeps the lock while it is open.

    Raises
    ------
    StorageError : another command holds it for too long, or the folder cannot be written.
    """
    claim = Claim(folder / LOCK)
    with storage_errors(folder, "locking the state of the chain"):
        folder.mkdir(parents=True, exist_ok=True)
        claim.acquire(patience)
    try:
        yield claim.descriptor
    finally:
        claim.release()
