"""A guest: a virtual machine of user-mode Linux with this machine's files, and commands in it."""

import os
import resource
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import mpi
from hosts.network import CONTROL, Network
from mpi import BIN, PEERS, TESTS, Result, wait_until

PACKAGES = PEERS.with_name("hosts")
LINUX = PACKAGES / "usr/bin/linux.uml"
OPEN_FILES = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
"""A guest keeps a file open for each file or folder of this machine that it remembers."""
BOOT_TIMEOUT = 120.0  # s; takes about 10
TIMEOUT = 300.0  # s; a command that takes longer hangs
FORKING = "/run/forked"
"""The socket through which a client forks runs of scimill."""
MODULES = ("scimill.cli", "scimill.droplets.commands", "scimill.droplets.generate", "scimill.store.verify")
"""What the guests' runs import; all of scimill would take a guest a minute."""
SERVE = shlex.join([sys.executable, "-m", "forked", FORKING, *MODULES])
"""The process that forks them; it runs in the folder of the tests, until its standard input ends."""
MOUNTS = {
    "nfs4": "mount -t nfs4 -o vers=4.2,timeo=50 srv:/ /nfs4",
    "nfs3": "mount -t nfs -o vers=3,nolock,timeo=50 srv:/export /nfs3",
}
"""Kinds of mounts of the server's disk, and the commands that make them. On "nfs3" locks are valid on one host only."""


class Guest:
    """One host of the cluster.

    Parameters
    ----------
    name : its host name.
    number : the last number of its addresses.
    memory : in MB.
    folder : the session's files, see `cluster.running`.
    network : the network of the session.
    disk : the image of a disk, for a server.
    """

    def __init__(self, name: str, number: int, memory: int, folder: Path, network: Network, disk: Path | None = None):
        self.name = name
        self.number = number
        self.memory = memory
        self.folder = folder
        self.network = network
        self.disk = disk
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: subprocess.Popen[bytes] | None = None
        self._forking: mpi.Job | None = None

    # ---- power --------------------------------------------------------------------------------------------------

    def boot(self) -> None:
        """Start the guest without waiting; see `wait_until_ready`."""
        with self.console.open("wb") as console:
            self._process = subprocess.Popen(
                self.network.enter("prlimit", f"--nofile={OPEN_FILES}", str(LINUX), *self._kernel_arguments()),
                env={"PATH": os.environ["PATH"], "HOME": str(self.folder), "TMPDIR": "/dev/shm"},
                start_new_session=True, stdin=subprocess.DEVNULL, stdout=console, stderr=console,
            )  # fmt: skip

    @property
    def console(self) -> Path:
        return self.folder / f"{self.name}.log"

    def _kernel_arguments(self) -> list[str]:
        # gro: without it a guest drops the large frames that others send.
        link = "vec{0}:transport=tap,ifname={1},depth=64,gro=1,mac=52:54:00:77:{0:02x}:{2:02x}"
        links = [link.format(i, tap, self.number) for i, tap in enumerate([self.name, f"{self.name}-control"])]
        return [
            f"umid={self.name}", f"uml_dir={self.folder}", f"mem={self.memory}M",
            *([f"ubda={self.disk}"] if self.disk else []),
            *links,
            "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", f"init={self.folder}/guest.sh",
            f"FOLDER={self.folder}", f"PACKAGES={PACKAGES}", f"GUEST={self.name}", f"ADDRESS={self.number}",
            "con=null", "con0=null,fd:1", "ssl=null",
        ]  # fmt: skip

    def wait_until_ready(self) -> None:
        ready = f"guest {self.name} is ready".encode()
        what = f"guest {self.name}; its console is {self.console}"
        wait_until(lambda: ready in self.console.read_bytes() or self._has_ended(), what, BOOT_TIMEOUT, 0.05)
        assert not self._has_ended(), self.console.read_text(errors="replace")
        # Later commands share this connection: a handshake of ssh takes a guest a second.
        self._connection = subprocess.Popen(
            self._ssh("-MN"), start_new_session=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until((self.folder / f"{self.name}.ssh").exists, f"ssh to {self.name}")

    def start_forking(self) -> None:
        """Start the process that forks runs of scimill (see `forked`); runs can start after `wait_for_forking`."""
        self._forking = self.start("bash", "-c", f"tail -f /dev/null | {SERVE}", folder=TESTS)

    def wait_for_forking(self) -> None:
        self.succeed("bash", "-c", f"until [ -e {FORKING} ]; do sleep 0.2; done")

    def _has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def power_off(self) -> None:
        """End the guest at once, as a host loses its power."""
        if self._process:
            mpi.kill(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
        if self._connection:
            mpi.kill(self._connection.pid, signal.SIGKILL)
            self._connection.wait()
            self._connection = None
            (self.folder / f"{self.name}.ssh").unlink(missing_ok=True)
        if self._forking:
            self._forking.end()
            self._forking = None

    # ---- commands -----------------------------------------------------------------------------------------------

    def start(self, *command: object, folder: Path | None = None, env: Mapping[str, str] | None = None) -> mpi.Job:
        """Start a command without waiting. Ending the job leaves the command running: see `kill`."""
        return mpi.Job(self.command(*command, folder=folder, env=env), {}, None)

    def command(
        self, *command: object, folder: Path | None = None, env: Mapping[str, str] | None = None
    ) -> tuple[str, ...]:
        """Return the command of this machine that runs one in the guest."""
        variables = [f"{name}={value}" for name, value in {**self._env(), **(env or {})}.items()]
        line = f"exec env {shlex.join([*variables, *map(str, command)])}"
        if folder:
            line = f"cd {shlex.quote(str(folder))} && {line}"
        return *self._shell(), line

    def _shell(self) -> tuple[str, ...]:
        """Return the command of this machine that runs a line of shell in the guest."""
        return self._ssh()

    def _ssh(self, *options: str) -> tuple[str, ...]:
        options = ("-F", str(self.folder / "ssh_config"), "-S", str(self.folder / f"{self.name}.ssh"), *options)
        return self.network.enter("ssh", *options, f"root@{CONTROL}.{self.number}")

    def run(
        self,
        *command: object,
        folder: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT,
    ) -> Result:
        """Run a command to its end.

        Raises
        ------
        mpi.Hang : it has not ended within so many seconds.
        """
        with self.start(*command, folder=folder, env=env) as job:
            return job.wait(timeout)

    def succeed(self, *command: object, folder: Path | None = None) -> str:
        """Run a command that must exit with 0; return its output."""
        result = self.run(*command, folder=folder)
        assert result.returncode == 0, result
        return result.stdout

    def _env(self) -> dict[str, str]:
        """Return the variables of scripts/env.sh, and those for ranks on several hosts."""
        ours = {name: value for name, value in os.environ.items() if name.startswith(("OMPI_", "PYTHONPATH"))}
        networks = {f"OMPI_MCA_{part}_tcp_if_include": "10.77.0.0/24" for part in ("btl", "oob")}
        # A lost host is noticed after seconds, not after five minutes.
        patience = {f"OMPI_MCA_oob_tcp_keepalive_{what}": "3" for what in ("time", "intvl", "probes")}
        path = os.pathsep.join([str(self.folder / "bin"), str(BIN), os.environ["PATH"], "/usr/sbin", "/sbin"])
        return {**ours, **networks, **patience, "OMPI_MCA_btl": "self,vader,tcp", "PATH": path}

    def kill(self, *names: str, number: int = signal.SIGKILL) -> bool:
        """Send a signal to all processes that have one of these names; return whether any did."""
        return self.run("pkill", f"-{int(number)}", *self._filter(), "|".join(names)).returncode == 0

    def has_stopped(self, name: str) -> bool:
        """Whether a process of this name is stopped by a signal."""
        return self.run("pgrep", "-r", "T", *self._filter(), name).returncode == 0

    def _filter(self) -> tuple[str, ...]:
        """Return the options of pgrep that find the guest's processes by their names."""
        return ("-x",)
