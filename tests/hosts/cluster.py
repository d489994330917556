"""A cluster on this machine: two hosts `h1` and `h2`, and a file server `srv`, in a network of their own."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import mpi
from hosts.guest import MOUNTS, Guest
from hosts.network import Network, namespaces
from jobs.cluster import end_processes, sweep
from mpi import wait_until

PREFIX = "scimill-hosts-"
DISK_SIZE = 4 << 30  # bytes; sparse
MOUNTED = {kind: Path("/", kind) for kind in MOUNTS}
"""Where both hosts mount the server's disk, by kind of mount."""
SCIMILL = "bin/scimill"
"""Part of the command line of each rank, but not of mpirun's."""
SSH_CONFIG = """\
Host *
  IdentityFile {folder}/key
  StrictHostKeyChecking no
  UserKnownHostsFile /dev/null
  LogLevel ERROR
  BatchMode yes
"""


class Server(Guest):
    """The file server; the folder that it exports is /export."""

    def restart_nfs(self) -> None:
        """Restart NFS as a system does: stop its threads, withdraw the exports, and start again."""
        self.succeed("rpc.nfsd", 0)
        self.succeed("exportfs", "-au")
        self.succeed("exportfs", "-r")
        self.succeed("rpc.nfsd", 4)

    def fetch(self, name: str, target: Path) -> Path:
        """Copy a file from the server's disk to this machine."""
        with target.open("wb") as file:
            command = self.command("cat", f"/export/{name}")
            done = subprocess.run(command, stdout=file, timeout=mpi.TIMEOUT, check=False)
        assert done.returncode == 0, f"{name} cannot be copied"
        return target

    def has(self, name: str) -> bool:
        """Whether the server's disk holds a file."""
        return self.run("test", "-e", f"/export/{name}").returncode == 0


class Hosts:
    """The hosts of one session.

    Attributes
    ----------
    h1, h2 : the hosts; `mpirun` runs on h1.
    srv : their file server.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.network = Network(folder.name)
        self.h1 = Guest("h1", 1, 2000, folder, self.network)
        self.h2 = Guest("h2", 2, 2000, folder, self.network)
        self.srv = Server("srv", 10, 700, folder, self.network, folder / "disk")

    @property
    def clients(self) -> tuple[Guest, Guest]:
        return self.h1, self.h2

    def start_mpirun(
        self, ranks_per_host: int, *command: object, folder: Path, env: Mapping[str, str] | None = None
    ) -> mpi.Job:
        """Start a command on both hosts: ranks from 0 on h1, the others on h2."""
        slots = f"h1:{ranks_per_host},h2:{ranks_per_host}"
        options = ("--host", slots, "-n", 2 * ranks_per_host, "-x", "PATH", *(("-x", name) for name in env or {}))
        return self.h1.start("mpirun", *_flat(options), *command, folder=folder, env=env)

    def mpirun(self, ranks_per_host: int, *command: object, folder: Path, timeout: float = mpi.TIMEOUT) -> mpi.Result:
        """Run a command on both hosts to its end."""
        with self.start_mpirun(ranks_per_host, *command, folder=folder) as job:
            return job.wait(timeout)

    # ---- start and stop -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Boot all guests, and mount the server's disk on both hosts."""
        self._make_files()
        guests = (self.srv, *self.clients)
        self.network.create(guest.name for guest in guests)
        for guest in guests:
            guest.boot()
        for guest in guests:
            guest.wait_until_ready()
        for host in self.clients:
            self.mount(host)

    def _make_files(self) -> None:
        shutil.copy(Path(__file__).with_name("guest.sh"), self.folder)
        key = self.folder / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        (self.folder / "ssh_config").write_text(SSH_CONFIG.format(folder=self.folder))
        with (self.folder / "disk").open("wb") as disk:
            disk.truncate(DISK_SIZE)
        subprocess.run(["mkfs.ext4", "-F", "-q", disk.name], check=True)

    @staticmethod
    def mount(host: Guest) -> None:
        """Mount the server's disk on a host that has just booted, in all ways."""
        for kind, folder in MOUNTED.items():
            host.mount(kind, folder)

    def clear(self) -> None:
        """Restore the network, end all runs, and remove all files, so the next test starts afresh."""
        for host in self.clients:
            self.network.restore(host.name)
        for host in self.clients:
            wait_until(partial(self._has_no_run, host), f"the runs on {host.name} to end", interval=0.2)
        self.srv.succeed("find", "/export", "-mindepth", 1, "-not", "-name", "lost+found", "-delete")

    @staticmethod
    def _has_no_run(host: Guest) -> bool:
        return not host.kill("mpirun", "orted", SCIMILL)

    def stop(self) -> None:
        """End all guests, and remove their network and files."""
        for guest in (*self.clients, self.srv):
            guest.power_off()
        end_processes(self.folder)
        self.network.remove()


def _flat(options: tuple[object, ...]) -> Iterator[object]:
    for option in options:
        yield from option if isinstance(option, tuple) else (option,)


@contextlib.contextmanager
def running() -> Iterator[Hosts]:
    """Start a cluster, and always stop it; first stop what killed sessions left behind."""
    sweep(PREFIX)
    for namespace in namespaces(PREFIX):
        network = Network(namespace)
        if not Path(tempfile.gettempdir(), namespace).exists() and not network.is_used():
            network.remove()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    (folder / "session").write_text(str(os.getpid()))
    hosts = Hosts(folder)
    try:
        hosts.start()
        yield hosts
    finally:
        hosts.stop()
