"""A stand-in for tests: its commands on PATH, its server running, a home to log in to."""

import contextlib
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from jobs.cluster import Cluster, Entry, end_processes, search_path, sweep
from jobs.standin import cobalt, pbs
from jobs.standin.state import Job, Site, configure, read, site
from mpi import BIN

TESTS = Path(__file__).resolve().parents[2]
COMMANDS = ("qsub", "qstat", "qdel", "qalter", "qrls", "qselect")
PREFIX = "scimill-standin-"


class StandIn(Cluster):
    """PBS or Cobalt of one session of tests."""

    def __init__(self, scheduler: str, folder: Path) -> None:
        self.name = scheduler
        self.folder = folder
        self.home = folder / "home"
        self.env = {"PATH": search_path(folder / "bin")}

    # ---- start and stop -----------------------------------------------------------------------------------------

    def start(self) -> None:
        for name in ("bin", "home", "nodefiles", "spool", "tmp"):
            (self.folder / name).mkdir()
        self.reset()
        run = f"PYTHONPATH={shlex.quote(str(TESTS))} exec {shlex.quote(sys.executable)} -S -P -m jobs.standin"
        for name in COMMANDS:
            path = self.folder / "bin" / name
            path.write_text(f'#!/bin/sh\n{run} {shlex.quote(str(self.folder))} {name} "$@"\n')
            path.chmod(0o755)
        with (self.folder / "server.log").open("wb") as log:
            self.server = subprocess.Popen(
                [sys.executable, "-S", "-P", "-m", "jobs.standin", str(self.folder), "server"],
                env={**os.environ, "PYTHONPATH": str(TESTS)}, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def reset(self) -> None:
        """Restore the default site."""
        open_mpi = {
            name: value for name, value in os.environ.items() if name.startswith("OMPI_") and "oversub" not in name
        }
        tree = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}  # jobs run the tested sources
        login = {"HOME": str(self.home), "PATH": f"{BIN}:{self.folder / 'bin'}:/usr/local/bin:/usr/bin:/bin"}
        login["TMPDIR"] = str(self.folder / "tmp")  # so that no other mpirun uses the same folders
        delay = 10.0 if self.name == "pbs" else 300.0
        self.configure(Site(self.name, login={**open_mpi, **tree, **login}, kill_delay=delay))

    @property
    def login(self) -> dict[str, str]:
        """The login environment, as set by a user's modules and profile; ``configure`` changes it."""
        return site(self.folder).login

    @contextlib.contextmanager
    def searching_first(self, folder: Path) -> Iterator[None]:
        before = self.login
        self.configure(login={**before, "PATH": os.pathsep.join([str(folder), before["PATH"]])})
        with super().searching_first(folder):
            yield
        self.configure(login=before)

    def configure(self, new: Site | None = None, **changes: Any) -> None:
        """Change the site's settings, including the login environment."""
        new = replace(new or site(self.folder), **changes)
        configure(self.folder, new)
        exports = [f"export {name}={shlex.quote(value)}\n" for name, value in new.login.items()]
        (self.home / ".bash_profile").write_text("".join(exports))

    def stop(self) -> None:
        self.server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.server.wait(10)
        end_processes(self.folder)
        self.server.wait(10)

    # ---- what tests ask ------------------------------------------------------------------------------------------

    def jobs(self) -> dict[str, Entry]:
        assert self.server.poll() is None, (self.folder / "server.log").read_text()
        return {entry.id: entry for entry in map(self._entry, read(self.folder).jobs)}

    def tasks(self, job: str) -> list[Entry]:
        whole = job.replace("[]", "").partition(".")[0]
        return [entry for entry in self.jobs().values() if whole in (entry.id.partition(".")[0], _array(entry.id))]

    def submit(self, script: Path, *options: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
        result = self.run("qsub", *options, str(script), cwd=cwd or script.parent, env=env)
        assert result.returncode == 0, result
        return result.stdout.strip()

    def cancel(self, job: str) -> None:
        self.run("qdel", job)

    def output(self, job: str) -> str:
        """Return output and error, spooled or delivered."""
        texts = []
        for record in read(self.folder).jobs:
            if self._entry(record).id in {task.id for task in self.tasks(job)}:
                texts += [path.read_text() for path in self._outputs(record) if path.exists()]
        return "".join(texts)

    def _outputs(self, job: Job) -> list[Path]:
        scheduler = {"pbs": pbs, "cobalt": cobalt}[self.name]
        output, error, _ = scheduler.places(job, read(self.folder))
        return list(dict.fromkeys([output, error]))

    def _entry(self, job: Job) -> Entry:
        identity = {"pbs": pbs, "cobalt": cobalt}[self.name].id_of(job)
        return Entry(identity, job.name, job.state, job.code, Path(job.output))


def _array(job: str) -> str:
    return job.partition("[")[0] if "[" in job else ""


@contextlib.contextmanager
def running(scheduler: str) -> Iterator[StandIn]:
    """Start a stand-in, and always stop it; first stop processes left by a killed session."""
    sweep(PREFIX)
    cluster = StandIn(scheduler, Path(tempfile.mkdtemp(prefix=PREFIX)))
    (cluster.folder / "session").write_text(str(os.getpid()))
    cluster.start()
    try:
        yield cluster
    finally:
        cluster.stop()
