"""Runs of `scimill droplets generate` on two hosts, their files on the server's disk, and whether these are right."""

from dataclasses import dataclass
from pathlib import Path

import h5py

import mpi
from hosts.cluster import MOUNTED, SCIMILL, Hosts
from hosts.guest import Guest
from mpi import Result, wait_until

BLOCKS = 100
ROWS = 1000
"""Rows of a block; its bytes in a dataset are not whole pages, so neighbours share pages."""
GENERATE = ("droplets", "generate")
SIZE = ("--count", BLOCKS * ROWS, "--block-size", ROWS, "--tolerance", 1e-4)
REFERENCE = "reference.h5"
REFUSED = 4
"""Exit code of a run that another run, or its storage, stops."""


def make_reference(path: Path) -> dict[str, str]:
    """Generate the same droplets with one process on this machine."""
    mpi.succeed(*GENERATE, path, *SIZE)
    return mpi.dataset_hashes(path)


@dataclass(frozen=True)
class Run:
    """An output below a kind of mount (`cluster.MOUNTED`), and the commands that write it.

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
        return MOUNTED[self.kind]

    def command(self, *options: object, size: tuple[object, ...] = SIZE) -> tuple[object, ...]:
        return ("scimill", *GENERATE, self.name, *size, *options)

    def start(self, *options: object) -> mpi.Job:
        """Start a rank on each host."""
        return self.hosts.start_mpirun(1, *self.command(*options), folder=self.folder)

    def start_on(self, host: Guest, *options: object, size: tuple[object, ...] = SIZE) -> mpi.Job:
        """Start one process on one host."""
        return host.start(*self.command(*options, size=size), folder=self.folder)

    def resume(self, host: Guest) -> Result:
        """Resume on one host, as soon as the run before it is known to have ended."""
        results: list[Result] = []

        def ended() -> bool:
            with self.start_on(host, "--resume") as job:
                results.append(job.wait())
            return "another run is writing" not in results[-1].stderr

        wait_until(ended, f"the claim on {self.name}", interval=1)
        return results[-1]

    # ---- how far it is ------------------------------------------------------------------------------------------

    def is_published(self) -> bool:
        return self.hosts.srv.has(self.name)

    def has_begun(self) -> bool:
        return self.hosts.srv.has(f"{self.name}.part")

    def wait_for_blocks(self, host: Guest, count: int) -> None:
        """Wait until a host sees so many done blocks, or the finished file."""
        wait_until(lambda: self.has_begun() or self.is_published(), f"{self.name}.part to appear", interval=0.2)
        if self.is_published():
            return
        offset, size, state = self._place_of_states()
        ledger = f"tail -c +{offset + 1} {self.name}.part | head -c {BLOCKS * size} | od -An -v -w{size} -tu1"
        done = f"$({ledger} | awk '${state + 1} == {mpi.DONE}' | wc -l)"
        loop = f'until [ -e {self.name} ] || [ "{done}" -ge {count} ]; do sleep 0.05; done'
        host.succeed("bash", "-c", loop, folder=self.folder)

    def _place_of_states(self) -> tuple[int, int, int]:
        """Return where the ledger begins in the file, the bytes of a row, and which of them is the state."""
        copy = self.hosts.srv.fetch(f"{self.name}.part", self.scratch / "part.h5")
        with h5py.File(copy, "r", locking=False) as file:
            ledger = file["blocks"]
            return int(ledger.id.get_offset()), ledger.dtype.itemsize, ledger.dtype.fields["state"][1]

    def kill_rank(self, host: Guest) -> None:
        """Kill the ranks of a host with SIGKILL."""
        host.kill(SCIMILL)

    # ---- whether it is right ------------------------------------------------------------------------------------

    def find_fault(self, reference: dict[str, str]) -> str:
        """Describe what is wrong with the finished file, as the server has it; empty if nothing is."""
        if not self.is_published():
            return f"{self.name} does not exist"
        if self.has_begun():
            return f"{self.name}.part exists beside the finished file"
        copy = self.hosts.srv.fetch(self.name, self.scratch / self.name)
        verified = mpi.scimill("verify", copy)
        if verified.returncode:
            return str(verified)
        found = mpi.dataset_hashes(copy)
        wrong = [name for name in reference | found if reference.get(name) != found.get(name)]
        return f"different bytes: {', '.join(wrong)}" if wrong else ""
