"""Train with scimill's command line, and kill the process at a chosen instant.

Usage, in the folder of the tests:
    python -m faults.training_killer RANK INSTANT ARGUMENTS...     RANK is the one to kill
    python -m faults.training_killer serve                         many runs of one process each, see `Server`

An instant is ``never``, or one of

step K                 before the K-th step
event K                before the K-th call that opens, renames or removes a file of the run directory
write NAME K           before NAME is opened for the K-th time to be written
rename NAME NAME K     before the first is renamed to the second for the K-th time
half NAME BYTES K      when BYTES of NAME are written, the K-th time that it is written
count FILE             never; the number of events is written to FILE
"""

import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from mpi import TIMEOUT, Hang, Result, kill
from scimill import __main__
from scimill.parallel.world import launched, world

TESTS = Path(__file__).resolve().parents[1]
KILLER = (sys.executable, "-m", "faults.training_killer")
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
    if kind == "step":
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


# ---- many runs of one process -----------------------------------------------------------------------------------


class Forked:
    """One run of the command line in a process forked by `Server`; used like `mpi.Job`."""

    def __init__(self, server: "Server", command: str, pid: int) -> None:
        self._server, self._command, self._pid, self._started = server, command, pid, time.monotonic()

    def kill(self, number: int) -> None:
        kill(self._pid, number)

    def wait(self, timeout: float = TIMEOUT) -> Result:
        try:
            code = int(self._server.line(timeout))
        except Hang:
            self.kill(signal.SIGKILL)
            self._server.line(TIMEOUT)
            raise Hang(f"HANG: {self._command}") from None
        outputs = [path.read_text("utf-8", "replace") for path in self._server.outputs]
        return Result(self._command, code, outputs[0], outputs[1], time.monotonic() - self._started)


class Server:
    """A process that has imported everything and forks for each run, one after the other; a context manager.

    Importing PyTorch takes longer than the runs of these tests.
    """

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory()
        self.outputs = [Path(self._folder.name, name) for name in ("stdout", "stderr")]
        self._process = subprocess.Popen([*KILLER, "serve"], cwd=TESTS, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()

    def start(self, *args: object, instant: str = "never") -> Forked:
        request = [str(word) for word in (*self.outputs, instant, *args)]
        assert self._process.stdin
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        return Forked(self, f"scimill {' '.join(request[3:])} [dies: {instant}]", int(self.line(TIMEOUT)))

    def run(self, *args: object, instant: str = "never", timeout: float = TIMEOUT) -> Result:
        return self.start(*args, instant=instant).wait(timeout)

    def line(self, timeout: float) -> str:
        """Return the next line that the process prints."""
        assert self._process.stdout
        descriptor, text, deadline = self._process.stdout.fileno(), b"", time.monotonic() + timeout
        while not text.endswith(b"\n"):
            if not select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise Hang(f"HANG: no output for {timeout:g} s")
            byte = os.read(descriptor, 1)
            assert byte, "the server has ended"
            text += byte
        return text.decode()


def serve() -> None:
    world()  # before HDF5 is imported, which would start MPI
    import torch._dynamo
    import torch.utils.tensorboard  # noqa: F401

    for *outputs, instant, arguments in _requests():
        pid = os.fork()
        if pid == 0:
            _become_scimill(outputs, instant, arguments)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _requests() -> Iterator[tuple[Any, ...]]:
    for line in sys.stdin:
        stdout, stderr, instant, *arguments = json.loads(line)
        yield stdout, stderr, instant, arguments


def _become_scimill(outputs: list[str], instant: str, arguments: list[str]) -> None:
    """Become the command; never return."""
    for number, name in enumerate(outputs, start=1):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = ["scimill", *arguments]
    arm(instant)
    try:
        __main__.main()
    except SystemExit as request:
        sys.stdout.flush()
        os._exit(int(request.code or 0))


def main() -> None:
    if sys.argv[1] == "serve":
        serve()
        return
    _, rank, instant, *arguments = sys.argv
    sys.argv = ["scimill", *arguments]
    if launched()[0] == int(rank):
        arm(instant)
    __main__.main()


if __name__ == "__main__":
    main()
