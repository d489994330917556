"""The state of a chain, in one file that `submit`, `run` and the jobs themselves change, one at a time.

The token of a submission is the name of its script, which is made anew each time and which every scheduler shows. It is
written here before the script is submitted. So no instant leaves a job that nobody can find again.
"""

import contextlib
import errno
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from scimill.claim import Claim, ClaimHeld
from scimill.errors import ConfigError, StorageError
from scimill.files import replacing, storage_errors
from scimill.parallel.report import say

FORMAT = 2
FILE, LOCK, RUN_LOCK = "state.json", "lock", "run.lock"
FORMER = "scheduler"
"""File that the records of earlier versions contain."""
ATTEMPTS = 3  # to read the state
PATIENCE = 300.0  # s to wait for another command that changes the chain; a busy scheduler lets it take minutes
REPORT_AFTER = 5.0  # s of waiting after which to report for whom
HELD_AT_MOST = 5.0  # s, after which a command that submits many jobs lets others in between two of them
GAP = 0.3  # s in which they can come in: they try ten times a second

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
    claim = Claim(folder / RUN_LOCK, keeps_file=True)
    with storage_errors(folder, "locking the chain"):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            claim.acquire()
        except ClaimHeld as error:
            raise StorageError(f"another command runs this chain: {_holder(error)}", where=str(folder)) from None
    try:
        yield
    finally:
        claim.release()


class ChainLock:
    """The lock that keeps all other commands from changing a chain.

    Parameters
    ----------
    folder : folder of the chain's state.

    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._claim = self._new_claim()
        self._since = 0.0

    def _new_claim(self) -> Claim:
        return Claim(self._folder / LOCK, keeps_file=True)

    @property
    def descriptor(self) -> int:
        """Descriptor of the lock file, which keeps the lock as long as it is open if this process is killed."""
        return self._claim.descriptor

    def acquire(self, patience: float = PATIENCE) -> None:
        """Take the lock; wait so many seconds for it, and report who holds it if that takes long.

        Raises
        ------
        StorageError : another command holds it for too long, or the folder cannot be written.
        """
        with storage_errors(self._folder, "locking the state of the chain"):
            self._folder.mkdir(parents=True, exist_ok=True)
            try:
                self._acquire(patience)
            except ClaimHeld as error:
                remedy = "repeat the command once that has ended"
                what = f"another command changes this chain: {_holder(error)}"
                raise StorageError(what, where=str(self._folder), remedy=remedy) from None
        self._since = time.monotonic()

    def _acquire(self, patience: float) -> None:
        try:
            self._claim.acquire(min(patience, REPORT_AFTER))
        except ClaimHeld as error:
            if patience <= REPORT_AFTER:
                raise
            say(f"waiting for another command that changes this chain: {_holder(error)}")
            self._claim.acquire(patience - REPORT_AFTER)

    def release(self) -> None:
        """Release the lock."""
        self._claim.release()

    def let_others_in(self) -> bool:
        """If the lock has been held for long, give it to others that wait; return whether the state may have changed.

        Raises
        ------
        StorageError : see `acquire`.
        """
        if time.monotonic() < self._since + HELD_AT_MOST:
            return False
        self.release()
        time.sleep(GAP)
        self._claim = self._new_claim()
        self.acquire()
        return True


def _holder(error: ClaimHeld) -> str:
    """Return who holds a claim, from what its refusal says."""
    what, _, owner = error.what.partition(": ")
    return owner or what


@contextlib.contextmanager
def locked(folder: Path, patience: float = PATIENCE) -> Iterator[ChainLock]:
    """Keep all other commands from changing the chain; yield the lock.

    Raises
    ------
    StorageError : another command holds it for too long, or the folder cannot be written.
    """
    lock = ChainLock(folder)
    lock.acquire(patience)
    try:
        yield lock
    finally:
        lock.release()
