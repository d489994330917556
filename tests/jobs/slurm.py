"""A real Slurm of some nodes, with its own munge, state, ports and configuration; the machine is not changed.

Each node has more CPUs than the machine, and GPUs that are null devices. It needs neither systemd nor cgroups nor root.
"""

import contextlib
import getpass
import os
import re
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import mpi
from jobs.cluster import Cluster, Entry, end_processes, numbers, search_path, sweep
from jobs.states import CANCELLED, COMPLETED, FAILED, RUNNING, TIMEOUT, WAITING
from mpi import wait_until

PREFIX = "scimill-slurm-"
CPUS, GPUS = 64, 4
# How a job ended, or that it waits; in all other states (COMPLETING, SIGNALING, …) it has its processors.
STATES = {
    "PENDING": WAITING, "CONFIGURING": WAITING, "REQUEUED": WAITING, "SUSPENDED": WAITING,
    "COMPLETED": COMPLETED, "FAILED": FAILED, "NODE_FAIL": FAILED, "BOOT_FAIL": FAILED,
    "OUT_OF_MEMORY": FAILED, "CANCELLED": CANCELLED, "TIMEOUT": TIMEOUT, "DEADLINE": TIMEOUT, "PREEMPTED": CANCELLED,
}  # fmt: skip
CONFIGURATION = """\
ClusterName=scimill
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,bf_interval=1,kill_invalid_depend,batch_sched_delay=0
MpiDefault={mpi}
ReturnToService=2
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd%n.pid
StateSaveLocation={folder}/controller
SlurmdSpoolDir={folder}/node%n
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd%n.log
SlurmdParameters=config_overrides
TmpFS={folder}/tmp
# What a partition does not allow is refused, not kept waiting for ever.
EnforcePartLimits=ALL
KillWait=5
# Ended jobs are shown all day: a test may ask late.
MinJobAge=86400
JobRequeue=1
GresTypes=gpu
{nodes}
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes=ALL MaxTime=01:00:00 State=UP
PartitionName=short Nodes=ALL MaxTime=00:05:00 MaxNodes=1 State=UP
{more}
"""


class Slurm(Cluster):
    """The cluster of one session of tests."""

    name = "slurm"

    def __init__(self, folder: Path, nodes: int = 1, more: str = "") -> None:
        self.folder, self.nodes, self._more = folder, nodes, more
        self.daemons: list[subprocess.Popen[bytes]] = []
        self.env = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": f"{search_path()}:/usr/sbin"}

    def jobs(self) -> dict[str, Entry]:
        return {entry.id: entry for entry in self._entries()}

    def tasks(self, job: str) -> list[Entry]:
        return self._entries(job)

    def submit(self, script: Path, *options: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
        result = self.run("sbatch", "--parsable", *options, str(script), cwd=cwd or script.parent, env=env)
        assert result.returncode == 0, result
        return result.stdout.strip()

    def cancel(self, job: str) -> None:
        self.run("scancel", job)

    def _entries(self, *job: str) -> list[Entry]:
        result = self.run("scontrol", "--oneliner", "show", "job", *job)
        assert result.returncode == 0, result
        entries = [_entry(line) for line in result.stdout.splitlines() if line.startswith("JobId=")]
        return sorted(entries, key=lambda entry: numbers(entry.id))

    # ---- start and stop -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the daemons, and wait until the node is idle; a port that someone took meanwhile is another's."""
        for name in ("controller", "tmp"):
            (self.folder / name).mkdir()
        (self.folder / "munge.key").write_bytes(os.urandom(1024))
        (self.folder / "munge.key").chmod(0o400)
        self._configure()
        self._daemon("munged", "--foreground", "--force", *self._munge_options())
        wait_until((self.folder / "munge.socket").exists, "munged", 20)
        self._daemon("slurmctld", "-D", "-i")
        for name in self._node_names():
            self._start_node(name)
        wait_until(self._is_idle, f"Slurm; its logs are in {self.folder}", 30)

    def _start_node(self, name: str) -> None:
        (self.folder / f"node{name}").mkdir(exist_ok=True)
        self._daemon("slurmd", "-D", *(("-N", name) if self.nodes > 1 else ()))

    def freeze_node(self, name: str) -> list[int]:
        """Stop all processes of a node, which then answers as little as one without power; return their ids."""
        daemon = next(one for one in self.daemons if one.args[-1] == name)  # type: ignore[index]
        parents = {pid: parent for pid, parent, _ in mpi.processes()}
        tasks = [pid for pid in parents if f"SLURMD_NODENAME={name}".encode() in mpi.environment(pid)]
        steps = {parents[pid] for pid in tasks if _is_step(parents[pid])}
        ids = [daemon.pid, *steps, *(pid for step in steps for pid in _descendants(step))]
        for pid in ids:
            mpi.kill(pid, signal.SIGSTOP)
        return ids

    def restart_node(self, name: str, frozen: Sequence[int]) -> None:
        """Kill the processes of a node that was frozen, and start it anew."""
        for pid in frozen:
            mpi.kill(pid, signal.SIGKILL)
        self._start_node(name)

    def node_states(self) -> dict[str, str]:
        """Return the state of each node, such as idle, or down* for one that does not respond."""
        result = self.run("sinfo", "--noheader", "--Node", "--partition=debug", "--format=%N %T")
        return dict(line.split() for line in result.stdout.splitlines())

    def _node_names(self) -> list[str]:
        if self.nodes == 1:
            return [socket.gethostname().partition(".")[0]]
        return [f"n{number}" for number in range(1, self.nodes + 1)]

    def _munge_options(self) -> Iterator[str]:
        names = {"socket": "munge.socket", "key-file": "munge.key", "pid-file": "munge.pid"}
        names |= {"log-file": "munge.log", "seed-file": "munge.seed"}
        return (f"--{option}={self.folder / name}" for option, name in names.items())

    def _configure(self) -> None:
        host = socket.gethostname().partition(".")[0]
        with contextlib.ExitStack() as ports:
            controller_port, *node_ports = (ports.enter_context(_free_port()) for _ in range(1 + self.nodes))
            nodes = [
                f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={CPUS} RealMemory=262144"
                f" Gres=gpu:{GPUS} State=UNKNOWN"
                for name, port in zip(self._node_names(), node_ports, strict=True)
            ]
            text = CONFIGURATION.format(
                host=host, user=getpass.getuser(), folder=self.folder, controller_port=controller_port,
                node_port=node_ports[0], nodes="\n".join(nodes), mpi="pmix" if self.nodes == 1 else "none",
                more=self._more,
            )  # fmt: skip
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
        for gpu in range(GPUS):
            (self.folder / f"gpu{gpu}").symlink_to(os.devnull)  # Slurm requires a device
        (self.folder / "gres.conf").write_text(f"Name=gpu File={self.folder}/gpu[0-{GPUS - 1}]\n")

    def _daemon(self, *command: str) -> None:
        with (self.folder / f"{command[0]}.out").open("wb") as log:
            daemon = subprocess.Popen(
                command, env={**os.environ, **self.env}, cwd=self.folder, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self.daemons.append(daemon)

    def _is_idle(self) -> bool:
        result = self.run("sinfo", "--noheader", "--format=%T")
        return set(result.stdout.split()) == {"idle"}

    def stop(self) -> None:
        """End all jobs, the daemons and any remaining processes, and remove all files."""
        with contextlib.suppress(mpi.Hang, AssertionError):
            self.clear()
        end_processes(self.folder)
        for daemon in self.daemons:
            daemon.wait(5)


def _is_step(pid: int) -> bool:
    """Whether a process is Slurm's for the part of a step on one node; the node's daemon is not its parent."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"slurmstepd")


def _descendants(pid: int) -> list[int]:
    children = [child for child, parent, _ in mpi.processes() if parent == pid]
    return [*children, *(one for child in children for one in _descendants(child))]


@contextlib.contextmanager
def running(nodes: int = 1, more: str = "") -> Iterator[Slurm]:
    """Start a Slurm, with more lines of configuration, and always stop it; first stop what a killed session left."""
    sweep(PREFIX)
    slurm = Slurm(Path(tempfile.mkdtemp(prefix=PREFIX)), nodes, more)  # a socket's path must be short
    (slurm.folder / "session").write_text(str(os.getpid()))
    slurm.folder.chmod(0o755)
    try:
        slurm.start()
        yield slurm
    finally:
        slurm.stop()


@contextlib.contextmanager
def _free_port() -> Iterator[int]:
    """Reserve a free port; release it at the end."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        yield listener.getsockname()[1]


def _entry(record: str) -> Entry:
    """Read a line of `scontrol --oneliner show job`."""
    values = dict(re.findall(r"(\w+)=(\S*)", record))
    array, task = values.get("ArrayJobId"), values.get("ArrayTaskId")
    code, _, number = values["ExitCode"].partition(":")
    output = re.search(r"StdOut=(.*?)(?: Power=|$)", record)
    return Entry(
        id=f"{array}_{task}" if array else values["JobId"],
        name=values["JobName"],
        state=STATES.get(values["JobState"], RUNNING),
        code=-int(number) if int(number) else int(code),
        output=Path(output[1]) if output else None,
    )
