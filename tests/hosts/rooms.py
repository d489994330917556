"""Two hosts without kernels of their own: rooms, with host names, mounts and caches of their own, on this machine.

Each room mounts the folder `storage` in two ways: through sshfs, and through a write-back cache over that. They start
in seconds, and need FUSE. Between sshfs and sftp-server is a pipe, which a test can stop as a network does.
"""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import forked
import mpi
from hosts import writeback
from hosts.cluster import FORK, SCIMILL, Hosts
from hosts.guest import FORKING, PACKAGES, SERVE, Guest
from jobs.cluster import end_processes, sweep
from mpi import BIN, TESTS, wait_until

PREFIX = "scimill-rooms-"
MOUNTS = {
    "sshfs": "{packages}/usr/bin/sshfs -o reconnect,ssh_command={folder}/sftp srv:{folder}/storage /run/sshfs",
    "write-back": "{python} -S {writeback} /run/sshfs /run/write-back",
}
"""Kinds of mounts of the folder, and the commands that make them; the second needs the first."""
SFTP = f"""\
#!/bin/sh
echo $$ >/run/sftp
exec {PACKAGES}/usr/lib/openssh/sftp-server
"""
RANK = """\
#!/bin/sh
# Run scimill, as rank 1 in the other room.
[ "${{OMPI_COMM_WORLD_RANK:-0}}" = 0 ] || exec {enter} 'cd "$0" && exec "$@"' "$PWD" {fork} "$@"
exec {fork} "$@"
"""


class Room(Guest):
    """A process that forks runs of scimill, with a host name and mounts of its own."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        # FOLDER marks the processes for `end_processes`.
        start = f"hostname {name} && mount -t tmpfs tmpfs /run && exec {SERVE}"
        self.process = subprocess.Popen(
            ["unshare", "--mount", "--uts", "sh", "-c", start], cwd=TESTS, env={**os.environ, "FOLDER": str(folder)},
            stdin=subprocess.PIPE,
        )  # fmt: skip

    def wait_until_ready(self) -> None:
        socket = Path(f"/proc/{self.process.pid}/root{FORKING}")
        wait_until(lambda: socket.exists() or self.process.poll() is not None, f"room {self.name}")

    def power_off(self) -> None:
        """End the process and its runs."""
        self.process.communicate()

    def _shell(self) -> tuple[str, ...]:
        return "nsenter", f"--target={self.process.pid}", "--mount", "--uts", "bash", "-c"

    def _env(self) -> dict[str, str]:
        return {"PATH": os.pathsep.join([str(self.folder / "bin"), str(BIN), os.environ["PATH"]])}

    def _filter(self) -> tuple[str, ...]:
        return "-x", "-P", str(self.process.pid)


class Pipes:
    """The pipes to sftp-server, one for each room, in place of a network."""

    def __init__(self, hosts: "Rooms") -> None:
        self._hosts = hosts

    def cut(self, host: str) -> None:
        self._send(host, signal.SIGSTOP)

    def restore(self, host: str) -> None:
        self._send(host, signal.SIGCONT)

    def _send(self, host: str, number: int) -> None:
        room = next(room for room in self._hosts.clients if room.name == host)
        room.run("bash", "-c", f"kill -{int(number)} $(cat /run/sftp)")


class Storage:
    """The folder that the rooms share, and its server."""

    def __init__(self, folder: Path, hosts: "Rooms") -> None:
        self.folder, self._hosts = folder, hosts

    def restart(self) -> None:
        """Restart sftp-server: sshfs starts another one when it notices."""
        for room in self._hosts.clients:
            room.run("bash", "-c", "kill -KILL $(cat /run/sftp)")

    def fetch(self, name: str, target: Path) -> Path:
        """Copy a file."""
        return shutil.copy(self.folder / name, target)

    def names(self) -> list[str]:
        """Return the names of the files."""
        return os.listdir(self.folder)  # noqa: PTH208

    def clear(self) -> None:
        """Remove all files."""
        for path in self.folder.iterdir():
            path.unlink()


class Rooms(Hosts):
    """Two rooms, in place of the guests of `Hosts`."""

    root = Path("/run")

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.h1, self.h2 = Room("h1", folder), Room("h2", folder)
        self.srv, self.network = Storage(folder / "storage", self), Pipes(self)
        places = {"packages": PACKAGES, "folder": folder, "python": sys.executable, "writeback": writeback.__file__}
        self.mounts = {kind: command.format(**places) for kind, command in MOUNTS.items()}
        self._mounted = set()

    def start_mpirun(self, *command: object, folder: Path, env: Mapping[str, str] | None = None) -> mpi.Job:
        """Start a command with a rank in each room."""
        return self.h1.start("mpirun", "-n", 2, *command, folder=folder, env=env)

    def start(self) -> None:
        """Wait for the rooms, and make their files."""
        self.srv.folder.mkdir()
        fork = FORK.format(python=sys.executable, forked=forked.__file__, socket=FORKING)
        self._write("sftp", SFTP)
        self._write("fork", fork)
        (self.folder / "bin").mkdir()
        enter = shlex.join(self.h2._shell())
        self._write(f"bin/{SCIMILL}", RANK.format(enter=enter, fork=self.folder / "fork"))
        for room in self.clients:
            room.wait_until_ready()

    def _write(self, name: str, script: str) -> None:
        (self.folder / name).write_text(script)
        (self.folder / name).chmod(0o755)

    def mount(self, kind: str) -> Path:
        """Mount the folder in both rooms, if it is not; return where."""
        if kind != "sshfs":
            super().mount("sshfs")
        return super().mount(kind)

    def clear(self) -> None:
        """End all runs, unmount the folder, which may have lost its server, and remove all files."""
        self.end_runs()
        for kind in ("write-back", "sshfs"):
            if kind in self._mounted:
                self._on_clients(f"umount --lazy /run/{kind}")
        self._mounted.clear()
        self.srv.clear()

    def stop(self) -> None:
        """End the rooms and their file systems, and remove their files."""
        for room in self.clients:
            room.power_off()
        end_processes(self.folder)


@contextlib.contextmanager
def running() -> Iterator[Rooms]:
    """Open two rooms, and always close them; first close what killed sessions left behind."""
    sweep(PREFIX)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    (folder / "session").write_text(str(os.getpid()))
    rooms = Rooms(folder)
    try:
        rooms.start()
        yield rooms
    finally:
        rooms.stop()
