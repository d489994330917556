"""The interface of tests to a cluster with any scheduler: submit, list, wait. Every wait has a timeout."""

import contextlib
import os
import re
import shutil
import signal
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import mpi
from jobs.states import CANCELLED, COMPLETED, DEP_FAIL, ENDED, FAILED, RUNNING, TIMEOUT, WAITING
from mpi import BIN, Result, environment, processes, wait_until

INTERVAL = 0.1  # s; asking more often would slow the jobs down


@dataclass(frozen=True)
class Entry:
    """A job as its scheduler shows it; one for each task of an array."""

    id: str
    name: str
    state: str
    code: int | None = None
    """Exit code of the script, once it has one; minus the signal that ended it."""
    output: Path | None = None


class Cluster(ABC):
    """A running scheduler.

    Attributes
    ----------
    env : what commands need to find it, beside the environment of the tests.
    """

    name: str
    env: dict[str, str]
    background: ClassVar[set[Path]] = set()
    """Folders of jobs that run, and submit others, while other tests run."""

    @abstractmethod
    def jobs(self) -> dict[str, Entry]:
        """All jobs by id, including ended ones, in the order of submission."""

    @abstractmethod
    def submit(self, script: Path, *options: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
        """Submit a script as a user does, and return the job's id; a refusal fails the test."""

    @abstractmethod
    def cancel(self, job: str) -> None: ...

    @abstractmethod
    def tasks(self, job: str) -> list[Entry]:
        """Return a job, or the tasks of an array."""

    @contextlib.contextmanager
    def searching_first(self, folder: Path) -> Iterator[None]:
        """Put a folder first on the PATH of commands and jobs."""
        before = self.env
        self.env = {**before, "PATH": os.pathsep.join([str(folder), before["PATH"]])}
        yield
        self.env = before

    def run(self, *command: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Result:
        """Run a command on the login node."""
        with mpi.Job(command, {**self.env, **(env or {})}, cwd) as job:
            return job.wait()

    def state(self, job: str) -> str:
        return _combine(task.state for task in self.tasks(job))

    def code(self, job: str) -> int | None:
        """Exit code of a job; for an array, the first that is not 0."""
        codes = [task.code for task in self.tasks(job)]
        return next((code for code in codes if code), codes[0])

    def output(self, job: str) -> str:
        """Return a job's output and standard error; empty if it has not started."""
        paths = [task.output for task in self.tasks(job)]
        return "".join(path.read_text() for path in paths if path and path.exists())

    def wait(self, job: str, timeout: float = 60.0) -> tuple[str, int | None]:
        """Wait until a job has ended, and return its state and exit code.

        Raises
        ------
        mpi.Hang : it has not ended within so many seconds.
        """
        try:
            wait_until(lambda: self.state(job) in ENDED, f"job {job} of {self.name}", timeout, INTERVAL)
        except mpi.Hang as hang:
            raise mpi.Hang(f"{hang}, which is {self.state(job)}\n{self.output(job)}") from None
        return self.state(job), self.code(job)

    def wait_all(self, first: str, timeout: float = 120.0) -> list[Entry]:
        """Wait until a job and its next links, submitted after it in the same folder, have ended; return them."""

        def links() -> list[Entry]:
            later = [entry for job, entry in self.jobs().items() if numbers(job) >= numbers(first)]
            return [entry for entry in later if _folder(entry) == _folder(later[0])]

        what = f"job {first} of {self.name} and those after it"
        wait_until(lambda: all(entry.state in ENDED for entry in links()), what, timeout, INTERVAL)
        return links()

    def clear(self, keep: Collection[str] = ()) -> None:
        """Cancel all jobs and wait until they are gone, so the next test starts with an idle machine."""

        def left() -> list[str]:
            states = (WAITING, RUNNING, DEP_FAIL)
            others = {
                job for job, entry in self.jobs().items() if entry.output and entry.output.parent in self.background
            }
            return [job for job, entry in self.jobs().items() if entry.state in states and job not in {*keep, *others}]

        for job in left():
            self.cancel(job)
        wait_until(lambda: not left(), f"an idle {self.name}", 30, INTERVAL)


def _folder(entry: Entry) -> Path | None:
    return entry.output.parent if entry.output else None


def numbers(job: str) -> tuple[int, ...]:
    """Return the numbers of a job id: the job's, and its index in an array."""
    return tuple(int(digits) for digits in re.findall(r"\d+", job))


def _combine(states: Iterable[str]) -> str:
    """Return the state of an array from its tasks: ended when all have, successful if all are."""
    found = set(states)
    for state in (RUNNING, WAITING, FAILED, TIMEOUT, CANCELLED, DEP_FAIL):
        if state in found:
            return state
    assert found == {COMPLETED}, f"no such job, or states {found}"
    return COMPLETED


def search_path(*folders: Path) -> str:
    """Return a PATH on which the given folders, and then our own scimill, come first."""
    return os.pathsep.join([*map(str, folders), str(BIN), os.environ["PATH"]])


def sweep(prefix: str) -> None:
    """End the processes that killed sessions left behind."""
    for left in Path(tempfile.gettempdir()).glob(prefix + "*"):
        session = left / "session"
        if session.exists() and not Path("/proc", session.read_text()).exists():
            end_processes(left)


def end_processes(folder: Path) -> None:
    """End the processes of a cluster (daemons, jobs and ranks, which all name its folder), then remove the folder."""
    for number, patience in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        deadline = time.monotonic() + patience
        for pid in _processes_of(folder):
            _kill_if_of(folder, pid, number)
        while _processes_of(folder) and time.monotonic() < deadline:
            time.sleep(0.05)
    shutil.rmtree(folder, ignore_errors=True)


def _processes_of(folder: Path) -> list[int]:
    """Return the processes that belong to the folder, except for this one and those that it descends from."""
    parents = {pid: parent for pid, parent, _ in processes()}
    ours = {os.getpid()}
    while not ours >= (more := {parents[pid] for pid in ours if pid in parents}):
        ours |= more
    return [pid for pid in parents if pid not in ours and _belongs_to(folder, pid)]


def _belongs_to(folder: Path, pid: int) -> bool:
    """Whether a process names the folder in its command line or environment."""
    mark = str(folder).encode()
    return any(mark in word for word in [*environment(pid), *_command_line(pid)])


def _kill_if_of(folder: Path, pid: int, number: int) -> None:
    """Send a signal to a process of the folder, never to another that has since taken its id."""
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            if _belongs_to(folder, pid):
                signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)


def _command_line(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []
