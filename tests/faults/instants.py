"""Kill this process (SIGKILL) at a chosen instant of the command that it runs.

An instant is ``never``, or one of

line PHASE K           the K-th line that the store executes within a phase, see `faults.phases`
stop PHASE K           never; it stops there (SIGSTOP)
lines FILE             never; the number of such lines of each phase is written to FILE.<rank>
step K                 before the K-th step of a training
event K                before the K-th call that opens, renames or removes a file of the run directory
write NAME K           before NAME is opened for the K-th time to be written
rename NAME NAME K     before the first is renamed to the second for the K-th time
half NAME BYTES K      when BYTES of NAME are written, the K-th time that it is written
count FILE             never; the number of events is written to FILE
"""

import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults import phases

EVENTS = {"open": 1, "os.rename": 2, "os.remove": 1}
"""Audit events of Python, with the number of their arguments that are paths."""
RUN_FILES = ("config.yaml", "run.json", "metrics.csv", "checkpoint", "model.pt", "result.json")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_when_written(size: int) -> None:
    """Let the kernel end this process as soon as one of its files exceeds a size."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)


def on_file_events(act: Callable[[str], None]) -> None:
    """Call a function before each event with its action and files, such as "write checkpoint.pt.part"."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in EVENTS and isinstance(arguments[0], str | Path):
            names = [Path(path).name for path in arguments[: EVENTS[event]]]
            if names[0].startswith(RUN_FILES):
                is_written = event == "open" and set(str(arguments[1])) & set("wa+")  # files are synced by os.open
                act(" ".join(["write" if is_written else event.removeprefix("os."), *names]))

    sys.addaudithook(hook)


def at(number: int, act: Callable[[], None]) -> Callable[[], None]:
    """Make a function that acts at its n-th call, counted from 1."""
    left = iter(range(number - 1, -1, -1))
    return lambda: act() if next(left, -1) == 0 else None


def arm(instant: str) -> None:
    """Arrange for this process to be killed at an instant."""
    kind, *words = instant.split()
    if kind in ("line", "stop"):
        phases.follow(phases.Killer(words[0], int(words[1]), signal.SIGKILL if kind == "line" else signal.SIGSTOP))
    elif kind == "lines":
        phases.count(Path(words[0]))
    elif kind == "step":
        before_each_step(at(int(words[0]), die))
    elif kind == "event":
        count = at(int(words[0]), die)
        on_file_events(lambda _: count())
    elif kind in ("write", "rename"):
        event, _, number = instant.rpartition(" ")
        count_event = at(int(number), die)
        on_file_events(lambda name: count_event() if name == event else None)
    elif kind == "half":
        file, size, number = words
        count_write = at(int(number), lambda: die_when_written(int(size)))
        on_file_events(lambda name: count_write() if name == f"write {file}" else None)
    elif kind == "count":
        on_file_events(lambda _: os.write(descriptor, b"."))
        descriptor = os.open(words[0], os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def before_each_step(act: Callable[[], None]) -> None:
    from scimill.training.engine import Trainer

    step = Trainer._step

    def dangerous(self: Trainer, *args: Any) -> bool:
        act()
        return step(self, *args)

    Trainer._step = dangerous  # type: ignore[method-assign]
