"""The jobs of a scheduler, in one file that its commands and its server lock and change."""

import contextlib
import dataclasses
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.states import ENDED, RUNNING, WAITING


@dataclass
class Site:
    """Settings of a site, in ``site.json``; a test may change them."""

    scheduler: str
    login: dict[str, str] = field(default_factory=dict)
    """Login environment, as set by a user's modules and profile."""
    queues: dict[str, int] = field(default_factory=lambda: {"workq": 86400, "debug": 3600})
    """Longest walltimes of the queues, s; the first is the default."""
    required: list[str] = field(default_factory=list)
    """PBS: options and resources that every job must name."""
    most_jobs: int | None = None
    """PBS: max_queued of each user, which counts running jobs too."""
    nodes: int = 8
    kill_delay: float = 10.0
    """Time from SIGTERM to SIGKILL, s; Cobalt's real one is 5 minutes."""
    scale: float = 1.0
    """Duration of one second of walltime, s."""
    history: bool = True
    """PBS: whether the server remembers jobs that have ended."""


@dataclass
class Job:
    """A job, or a task of an array."""

    number: int
    name: str
    user: str
    queue: str
    cwd: str
    command: list[str]
    walltime: int
    hosts: list[str]
    nodes: int
    index: int | None = None
    array: str | None = None
    most: int | None = None
    env: dict[str, str] = field(default_factory=dict)
    output: str = ""
    error: str = ""
    account: str = ""
    needs: list[str] = field(default_factory=list)
    """Its dependency: PBS "afterok:1", Cobalt "1"."""
    depend: str = ""
    held: bool = False
    umask: int = 0o022
    state: str = WAITING
    code: int | None = None
    comment: str = ""
    submitted_as: str = ""
    """PBS: the command line of qsub."""
    submitted: float = field(default_factory=time.time)
    started: float | None = None
    ended: float | None = None
    pid: int | None = None
    ending: str = ""
    """Why it is being ended: "walltime" or "delete"."""
    kill_at: float | None = None

    @property
    def alive(self) -> bool:
        return self.state not in ENDED

    @property
    def well(self) -> bool:
        return self.code == 0 and not self.ending


@dataclass
class State:
    folder: Path
    site: Site
    jobs: list[Job]
    next: int

    def find(self, number: int, index: int | None = None) -> list[Job]:
        return [job for job in self.jobs if job.number == number and index in (None, job.index)]

    def free_nodes(self) -> int:
        return self.site.nodes - sum(job.nodes for job in self.jobs if job.state == RUNNING)


def site(folder: Path) -> Site:
    return Site(**json.loads((folder / "site.json").read_text()))


def configure(folder: Path, site: Site) -> None:
    _replace(folder / "site.json", json.dumps(dataclasses.asdict(site)))


def _replace(path: Path, text: str) -> None:
    """Write a file atomically, because others read it."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.rename(path)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[State]:
    """Read the state, and write it back if the body changed it without raising."""
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        state = read(folder)
        before = _text(state)
        yield state
        if _text(state) != before:
            _replace(folder / "state.json", _text(state))


def read(folder: Path) -> State:
    """Read the state; use ``locked`` to change it."""
    path = folder / "state.json"
    values: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"next": 1, "jobs": []}
    return State(folder, site(folder), [Job(**job) for job in values["jobs"]], values["next"])


def changed(folder: Path) -> int:
    """Return when the state was last changed."""
    path = folder / "state.json"
    return path.stat().st_mtime_ns if path.exists() else 0


def _text(state: State) -> str:
    return json.dumps({"next": state.next, "jobs": [vars(job) for job in state.jobs]})


def user() -> str:
    return os.environ.get("USER") or os.environ.get("LOGNAME") or "root"
