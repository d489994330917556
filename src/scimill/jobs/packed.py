"""What a packed job does: run the steps of a chain, side by side where they are independent and fit its nodes."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from scimill.jobs.parts import Part, Room, Schedule
from scimill.jobs.schedulers import HOSTS, INDEX
from scimill.jobs.scripts import RECORDS
from scimill.jobs.state import ChainState, read_state
from scimill.parallel.report import say

INTERVAL = 0.1  # s between looks at what runs
SIGNALLED = 128  # a shell adds the number of the signal that ended a command


class Packed:
    """The steps of a packed job, and what runs of them.

    Parameters
    ----------
    folder : folder of the chain's state.
    parts : what to run.
    room : cores, GPUs and memory of each node, by the names that `Room` gives them.
    nodes : number of nodes.
    is_shared : whether the launcher places several parts on one node.
    job : the job's id.
    end : when the job's walltime ends, s since the epoch.

    """

    def __init__(
        self, folder: Path, parts: Sequence[Part], room: Mapping[str, int], nodes: int, *,
        is_shared: bool, job: str, end: float,
    ) -> None:  # fmt: skip
        state = read_state(folder)
        hosts = find_hosts(state.scheduler)
        # Whole nodes can be divided only if they are known; cores are divided by the launcher, which knows them.
        self._hosts = hosts if len(hosts) == nodes or not is_shared else []
        count = nodes if is_shared else max(1, len(hosts))
        done = {name for name, unit in state.units() if unit.code == 0}
        self._schedule = Schedule(parts, needs_of(state), done, Room(count, **room, is_shared=is_shared))
        self._state, self._job, self._end = state, job, end
        self._running: dict[subprocess.Popen[bytes], Part] = {}

    def run(self) -> int:
        """Run all parts; return the exit code of the job: 75 if the next one can run more.

        A failed part does not stop those that do not wait for it.
        """
        # The scheduler signals all processes of the job; this one stays until the others have ended.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
            signal.signal(number, lambda *_: self._stop())
        while True:
            for part, nodes in self._schedule.start(self._end - time.time()):
                self._start(part, nodes)
            if not self._running:
                break
            time.sleep(INTERVAL)
            self._collect()
        for part in self._schedule.waiting:
            say(f"{part.unit}: not started")
        return self._schedule.code

    def _stop(self) -> None:
        self._schedule.is_stopping = True

    def _start(self, part: Part, nodes: Sequence[int]) -> None:
        """Start a part, with a log of its own."""
        log = Path(f"{part.unit}-{self._job}.log")
        hosts = [self._hosts[node] for node in nodes] if self._hosts else []
        where = f" on {' '.join(hosts)}" if hosts else ""
        say(f"{part.unit}: started{where}, its output is in {log}")
        with log.open("ab") as output:
            process = subprocess.Popen(
                ["bash", f"{RECORDS}/{part.script}"], env=self._environment(part, hosts),
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        self._running[process] = part

    def _environment(self, part: Part, hosts: Sequence[str]) -> dict[str, str]:
        """Return a part's environment, which names its share of the job to its launcher."""
        environment = {name: value for name, value in os.environ.items() if name != INDEX}
        if part.memory:
            environment["SCIMILL_MEMORY"] = f"{part.memory}M"
        if hosts:
            environment["SCIMILL_HOSTS"] = ",".join(hosts)
            given = os.environ.get(HOSTS.get(self._state.scheduler, ""), "")
            lines = Path(given).read_text().splitlines() if given else hosts
            file = Path(RECORDS, part.script).with_suffix(".hosts").resolve()
            file.write_text("".join(f"{line}\n" for line in lines if line.split()[0] in hosts))
            environment[HOSTS.get(self._state.scheduler, "SCIMILL_HOSTFILE")] = str(file)
        return environment

    def _collect(self) -> None:
        """Record the parts that have ended."""
        for process, part in list(self._running.items()):
            if (code := process.poll()) is not None:
                code = code if code >= 0 else SIGNALLED - code
                say(f"{part.unit}: " + (f"ended with exit code {code}" if code else "complete"))
                del self._running[process]
                self._schedule.end(part, code)


def needs_of(state: ChainState) -> dict[str, list[str]]:
    """Return the units that each unit of a chain waits for."""
    before = {name: [unit for other in step.after for unit in state.steps[other].units] for name, step in
              state.steps.items()}  # fmt: skip
    return {unit: before[name] for name, step in state.steps.items() for unit in step.units}


def find_hosts(scheduler: str) -> list[str]:
    """Return the names of this job's nodes; none where they are unknown."""
    if scheduler == "slurm":
        command = ["scontrol", "show", "hostnames", os.environ.get("SLURM_JOB_NODELIST", "")]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    path = os.environ.get(HOSTS.get(scheduler, ""), "")
    lines = Path(path).read_text().splitlines() if path else []
    return list(dict.fromkeys(line.split()[0] for line in lines if line.strip()))
