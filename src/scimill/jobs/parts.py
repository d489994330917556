"""The steps of a packed job: what each needs, which may start, and on which nodes."""

import heapq
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields

CONTINUED = 75  # exit code of a command that stopped before the walltime


@dataclass(frozen=True)
class Part:
    """A unit of a chain that a packed job runs, and what it needs on each of its nodes."""

    unit: str
    script: str
    nodes: int
    cores: int
    gpus: int
    memory: int
    """MiB; 0 if the job does not request memory"""
    seconds: int
    """its walltime, s"""
    resumes: int
    """1 if it can stop before the walltime and resume in the next job, otherwise 0"""

    def __str__(self) -> str:
        """Write it as a word of the job's script, which `read_part` reads."""
        needs = ",".join(f"{key}:{getattr(self, key)}" for key in NEEDS)
        return f"{self.unit}={self.script},{needs}"


NEEDS = tuple(field.name for field in fields(Part))[2:]


def read_part(word: str) -> Part:
    """Read a part from the job's script."""
    unit, _, rest = word.partition("=")
    script, *needs = rest.split(",")
    return Part(unit, script, **{key: int(value) for key, _, value in (need.partition(":") for need in needs)})


class Room:
    """The free cores, GPUs and memory of a job's nodes.

    Parameters
    ----------
    nodes : number of nodes.
    cores, gpus, memory : of each node; memory in MiB.
    is_shared : whether parts may share a node; otherwise each takes whole nodes.

    """

    def __init__(self, nodes: int, cores: int, gpus: int, memory: int, *, is_shared: bool) -> None:
        self._whole, self._is_shared = (cores, gpus, memory), is_shared
        self._free = [self._whole] * nodes
        self._taken: dict[str, tuple[list[int], tuple[int, ...]]] = {}

    def take(self, part: Part) -> list[int] | None:
        """Take what a part needs; return the positions of its nodes, or None if that is not free.

        A part that never fits gets all nodes to itself.
        """
        need = (part.cores, part.gpus, part.memory) if self._is_shared else self._whole
        free = [node for node, left in enumerate(self._free) if all(a >= b for a, b in zip(left, need, strict=True))]
        nodes = sorted(free, key=lambda node: self._free[node])[: part.nodes]  # fill nodes that are in use first
        if len(nodes) < part.nodes:
            if self._taken:
                return None
            nodes, need = list(range(len(self._free))), self._whole
        self._change(nodes, need, -1)
        self._taken[part.unit] = nodes, need
        return nodes

    def give_back(self, part: Part) -> None:
        """Free what a part has taken."""
        nodes, need = self._taken.pop(part.unit)
        self._change(nodes, need, 1)

    def _change(self, nodes: Collection[int], need: Sequence[int], sign: int) -> None:
        for node in nodes:
            cores, gpus, memory = (left + sign * part for left, part in zip(self._free[node], need, strict=True))
            self._free[node] = cores, gpus, memory


class Schedule:
    """The parts that wait, run and have ended.

    Parameters
    ----------
    parts : all parts, in the order in which to start them.
    needs : units that must be complete before a unit starts.
    done : units that are complete.
    room : the nodes.

    Attributes
    ----------
    waiting : parts that have not started.
    is_stopping : whether no more parts start, because one has stopped before the walltime.

    """

    def __init__(
        self, parts: Sequence[Part], needs: Mapping[str, Collection[str]], done: Collection[str], room: Room
    ) -> None:
        self.waiting, self.is_stopping = list(parts), False
        self._needs, self._done, self._room = needs, set(done), room
        self._has_started = False
        self._failure = 0

    def start(self, left: float) -> list[tuple[Part, list[int]]]:
        """Choose the parts that start now; return them with the positions of their nodes.

        Parameters
        ----------
        left : time that the job has left, s. A part that cannot resume starts only if its walltime fits, or first.

        """
        started = []
        for part in self._ready():
            fits = part.resumes or part.seconds <= left or not self._has_started
            if not self.is_stopping and fits and (nodes := self._room.take(part)) is not None:
                started.append((part, nodes))
                self.waiting.remove(part)
                self._has_started = True
        return started

    def _ready(self) -> list[Part]:
        return [part for part in self.waiting if self._done.issuperset(self._needs.get(part.unit, ()))]

    def end(self, part: Part, code: int) -> None:
        """Record that a part has ended with an exit code."""
        self._room.give_back(part)
        if code == 0:
            self._done.add(part.unit)
        elif code == CONTINUED:
            self.is_stopping = True
        else:
            self._failure = self._failure or code

    @property
    def code(self) -> int:
        """Exit code of the job once nothing runs: 75 if the next job can run more, or that of the first failure."""
        return CONTINUED if self.is_stopping or self._ready() else self._failure


def duration(parts: Sequence[Part], needs: Mapping[str, Collection[str]], room: Room) -> float:
    """Return how long all parts take if each takes its walltime, s."""
    schedule, now = Schedule(parts, needs, (), room), 0.0
    running: list[tuple[float, str]] = []
    by_unit = {part.unit: part for part in parts}
    while True:
        for part, _ in schedule.start(math.inf):
            heapq.heappush(running, (now + part.seconds, part.unit))
        if not running:
            return now
        now, unit = heapq.heappop(running)
        schedule.end(by_unit[unit], 0)
