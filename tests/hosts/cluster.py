"""Clusters on this machine: two hosts `h1` and `h2`, and a file server `srv`, in a network of their own."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import forked
import mpi
from hosts.guest import FORKING, MOUNTS, Guest
from hosts.network import Network, namespaces
from jobs.cluster import end_processes, sweep
from mpi import wait_until

PREFIX = "scimill-hosts-"
DISK_SIZE = 4 << 30  # bytes; sparse
SCIMILL = "scimill"
"""Name of the processes that are runs or ranks of one."""
FORK = """\
#!/bin/sh
exec {python} -S {forked} {socket} "$@"
"""
"""The command scimill of the guests."""
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

    def restart(self) -> None:
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

    def names(self) -> list[str]:
        """Return the names of the files on the server's disk."""
        return self.succeed("ls", "/export", "--ignore=lost+found").split()

    def clear(self) -> None:
        """Remove all files."""
        self.succeed("find", "/export", "-mindepth", 1, "-not", "-name", "lost+found", "-delete")


class Hosts:
    """The hosts of one session, which are guests.

    Attributes
    ----------
    h1, h2 : the hosts; `mpirun` runs on h1.
    srv : their file server.
    mounts : kinds of mounts of its disk, each below `root`, and the commands that make them.
    """

    root = Path("/")

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.network = Network(folder.name)
        self.h1 = Guest("h1", 1, 2000, folder, self.network)
        self.h2 = Guest("h2", 2, 2000, folder, self.network)
        self.srv = Server("srv", 10, 700, folder, self.network, folder / "disk")
        self.mounts = MOUNTS
        self._mounted: set[str] = set()

    @property
    def clients(self) -> tuple[Guest, Guest]:
        return self.h1, self.h2

    def start_mpirun(self, *command: object, folder: Path, env: Mapping[str, str] | None = None) -> mpi.Job:
        """Start a command on both hosts: rank 0 on h1, rank 1 on h2."""
        passed = [word for name in ("PATH", *(env or {})) for word in ("-x", name)]
        return self.h1.start("mpirun", "--host", "h1:1,h2:1", "-n", 2, *passed, *command, folder=folder, env=env)

    def mount(self, kind: str) -> Path:
        """Mount the server's disk on both hosts, if it is not; return where."""
        folder = self.root / kind
        if kind not in self._mounted:
            self._on_clients(f"mkdir -p {folder} && {self.mounts[kind]}")
            self._mounted.add(kind)
        return folder

    def end_runs(self) -> None:
        """Restore the network, and end all runs, as a scheduler does when a job has ended."""
        for host in self.clients:
            self.network.restore(host.name)
        for host in self.clients:
            wait_until(lambda host=host: not host.kill("mpirun", "orted", SCIMILL), f"the runs on {host.name} to end")
        if self._mounted:
            # A server that has just restarted may refuse what a killed run had left.
            self._on_clients(f"sync -f {' '.join(str(self.root / kind) for kind in self._mounted)} || true")

    def clear(self) -> None:
        """End all runs, and remove all files, so the next test starts afresh."""
        self.end_runs()
        self.srv.clear()

    def _on_clients(self, script: str) -> None:
        """Run a script of bash on both hosts; it must succeed."""
        with self.h1.start("bash", "-c", script) as first, self.h2.start("bash", "-c", script) as second:
            for job in (first, second):
                result = job.wait()
                assert result.returncode == 0, result

    # ---- start and stop -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Boot all guests."""
        self._make_files()
        guests = (self.srv, *self.clients)
        self.network.create(guest.name for guest in guests)
        for guest in guests:
            guest.boot()
        for guest in guests:
            guest.wait_until_ready()
        for host in self.clients:
            host.start_forking()
        for host in self.clients:
            host.wait_for_forking()

    def _make_files(self) -> None:
        shutil.copy(Path(__file__).with_name("guest.sh"), self.folder)
        key = self.folder / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        (self.folder / "ssh_config").write_text(SSH_CONFIG.format(folder=self.folder))
        scimill = self.folder / "bin/scimill"
        scimill.parent.mkdir()
        scimill.write_text(FORK.format(python=sys.executable, forked=forked.__file__, socket=FORKING))
        scimill.chmod(0o755)
        with (self.folder / "disk").open("wb") as disk:
            disk.truncate(DISK_SIZE)
        subprocess.run(["mkfs.ext4", "-F", "-q", disk.name], check=True)

    def stop(self) -> None:
        """End all guests, and remove their network and files."""
        for guest in (*self.clients, self.srv):
            guest.power_off()
        end_processes(self.folder)
        self.network.remove()


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
