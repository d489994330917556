"""The server: starts due jobs, ends those that exceed their walltime, and records how they ended."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, ModuleType

from jobs.standin import cobalt, pbs
from jobs.standin.state import Job, State, changed, locked
from jobs.states import CANCELLED, COMPLETED, FAILED, RUNNING, TIMEOUT, WAITING

PERIOD = 0.05  # s
SCHEDULERS: dict[str, ModuleType] = {"pbs": pbs, "cobalt": cobalt}


class Server:
    """A scheduler and the processes of its jobs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: dict[tuple[int, int | None], subprocess.Popen[bytes]] = {}
        self.stopped = False
        self.alive, self.seen = True, 0

    def stop(self, _number: int, _frame: FrameType | None) -> None:
        self.stopped = True

    def serve(self) -> None:
        """Serve until a signal, or until the parent process is gone; then end all jobs."""
        signal.signal(signal.SIGTERM, self.stop)
        parent = os.getppid()
        while not self.stopped and os.getppid() == parent:
            if not self._is_idle():
                self.seen = changed(self.folder)  # check again if this check changed something
                with locked(self.folder) as state:
                    self.step(state)
                    self.alive = any(job.alive for job in state.jobs)
            time.sleep(PERIOD)
        for process in self.processes.values():
            _signal(process.pid, signal.SIGKILL)

    def _is_idle(self) -> bool:
        """Whether all jobs had ended at the last check, and none has changed since."""
        return not self.alive and changed(self.folder) == self.seen

    def step(self, state: State) -> None:
        scheduler = SCHEDULERS[state.site.scheduler]
        for job in state.jobs:
            if job.state == RUNNING:
                self._watch(job, state, scheduler)
            elif job.alive and job.ending == "delete":
                job.state, job.ended = CANCELLED, time.time()
        for job in state.jobs:
            if job.state == WAITING:
                scheduler.look_at_dependencies(job, state)
        for job in state.jobs:
            if job.state == WAITING and not job.held and not job.needs and _fits(job, state):
                self._start(job, state, scheduler)

    def _start(self, job: Job, state: State, scheduler: ModuleType) -> None:
        nodefile = self.folder / "nodefiles" / f"{job.number}.{job.index}"
        nodefile.write_text("".join(host + "\n" for host in job.hosts))
        job.state, job.started = RUNNING, time.time()
        environment = scheduler.environment(job, state, nodefile)
        output, error, cwd = scheduler.places(job, state)
        with output.open("ab") as out, error.open("ab") as err:
            try:
                process = subprocess.Popen(
                    job.command, env=environment, cwd=cwd, start_new_session=True,
                    stdin=subprocess.DEVNULL, stdout=out, stderr=err, umask=job.umask,
                )  # fmt: skip
            except OSError as refusal:
                err.write(f"{refusal}\n".encode())
                self._finish(job, 127, state, scheduler)
                return
        job.pid = process.pid
        self.processes[job.number, job.index] = process

    def _watch(self, job: Job, state: State, scheduler: ModuleType) -> None:
        """End a job that exceeds its walltime, or record how it ended by itself."""
        process, now = self.processes[job.number, job.index], time.time()
        returncode = process.poll()
        if returncode is not None:
            self._finish(job, returncode, state, scheduler)
            return
        if not job.ending and now > (job.started or now) + job.walltime * state.site.scale:
            job.ending = "walltime"
        if job.ending and job.kill_at is None:
            job.kill_at = now + state.site.kill_delay
            _signal(process.pid, signal.SIGTERM)
        elif job.kill_at is not None and now > job.kill_at:
            _signal(process.pid, signal.SIGKILL)

    def _finish(self, job: Job, returncode: int, state: State, scheduler: ModuleType) -> None:
        if job.pid is not None:
            _signal(job.pid, signal.SIGKILL)  # processes that the script left in the background
        ended = {"walltime": TIMEOUT, "delete": CANCELLED, "": FAILED if returncode else COMPLETED}
        job.state, job.ended = ended[job.ending], time.time()
        job.code = scheduler.exit_code(job, returncode)
        scheduler.finish(job, state)


def _fits(job: Job, state: State) -> bool:
    running = sum(other.state == RUNNING for other in state.find(job.number))
    return job.nodes <= state.free_nodes() and running < (job.most or running + 1)


def _signal(session: int, number: int) -> None:
    """Send a signal to all processes of a job."""
    for pid in _members(session):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _members(session: int) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                if int((entry / "stat").read_text().rpartition(")")[2].split()[3]) == session:
                    yield int(entry.name)
