"""Runs of `scimill droplets generate` on two hosts, their files on the server's disk, and whether these are right."""

import signal
from dataclasses import dataclass
from pathlib import Path

import mpi
from forked import INSTANT
from hosts.cluster import SCIMILL, Hosts
from hosts.guest import Guest
from mpi import Result, wait_until
from scimill.parallel.world import World
from scimill.store.verify import verify

BLOCKS = 40
ROWS = 1000
"""Rows of a block; its bytes in a dataset are not whole pages, so neighbours share pages."""
GENERATE = ("droplets", "generate")
SIZE = ("--count", BLOCKS * ROWS, "--block-size", ROWS, "--tolerance", 1e-4)
SOON = "stop ledger 200"
"""The instant at which a rank stops within its fourth block, see `faults.instants`."""
REFERENCE = "reference.h5"
REFUSED = 4
"""Exit code of a run that another run, or its storage, stops."""


def make_reference(path: Path) -> dict[str, str]:
    """Generate the same droplets with one process on this machine."""
    with mpi.start(*GENERATE, path, *SIZE) as job:
        result = job.wait()
    assert result.returncode == 0, result
    return mpi.dataset_hashes(path)


@dataclass(frozen=True)
class Run:
    """An output below a kind of mount (`guest.MOUNTS`), and the commands that write it.

    Parameters
    ----------
    scratch : a folder of this machine for copies.
    """

    hosts: Hosts
    kind: str
    scratch: Path
    name: str = "droplets.h5"

    @property
    def folder(self) -> Path:
        return self.hosts.mount(self.kind)

    def command(self, *options: object, size: tuple[object, ...] = SIZE) -> tuple[object, ...]:
        return ("scimill", *GENERATE, self.name, *size, *options)

    def start(self, *options: object, instant: str = "never", rank: int = 0) -> mpi.Job:
        """Start a rank on each host; one of them dies or stops at an instant, see `faults.instants`."""
        env = {INSTANT: f"{rank} {instant}"}
        return self.hosts.start_mpirun(*self.command(*options), folder=self.folder, env=env)

    def start_on(self, host: Guest, *options: object, size: tuple[object, ...] = SIZE) -> mpi.Job:
        """Start one process on one host."""
        return host.start(*self.command(*options, size=size), folder=self.folder)

    def resume(self, host: Guest, *options: object) -> Result:
        """Resume on one host, as soon as the run before it is known to have ended."""
        results: list[Result] = []

        def ended() -> bool:
            with self.start_on(host, "--resume", *options) as job:
                results.append(job.wait())
            return "another run is writing" not in results[-1].stderr

        wait_until(ended, f"the claim on {self.name}", interval=1)
        return results[-1]

    # ---- how far it is ------------------------------------------------------------------------------------------

    def is_published(self) -> bool:
        return self.name in self.hosts.srv.names()

    def has_begun(self) -> bool:
        return f"{self.name}.part" in self.hosts.srv.names()

    def wait_for_stop(self, host: Guest, job: mpi.Job) -> bool:
        """Wait until the rank on a host has stopped, or the job has ended; return whether it has stopped."""
        what = f"a rank on {host.name} to stop"
        wait_until(lambda: host.has_stopped(SCIMILL) or job.process.poll() is not None, what, interval=0.5)
        return job.process.poll() is None

    def carry_on(self, host: Guest) -> None:
        """Let a stopped rank continue."""
        host.kill(SCIMILL, number=signal.SIGCONT)

    def kill_rank(self, host: Guest) -> None:
        """Kill the ranks of a host with SIGKILL."""
        host.kill(SCIMILL)

    # ---- whether it is right ------------------------------------------------------------------------------------

    def fetch(self, name: str) -> Path:
        """Copy a file as the server has it."""
        return self.hosts.srv.fetch(name, self.scratch / name)

    def find_fault(self, reference: dict[str, str]) -> str:
        """Describe what is wrong with the finished file, as the server has it; empty if nothing is."""
        names = {*self.hosts.srv.names()} - {f"{self.name}.lock"}  # a killed run may leave it
        if names != {self.name}:
            return f"found {names}"
        copy = self.fetch(self.name)
        if problems := verify(copy, World(None)).problems:
            return f"{problems}"
        found = mpi.dataset_hashes(copy)
        wrong = [name for name in reference | found if reference.get(name) != found.get(name)]
        return f"different bytes: {', '.join(wrong)}" if wrong else ""
