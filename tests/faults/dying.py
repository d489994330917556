"""A copy of this process that is killed (SIGKILL) at the k-th line it executes in the code of atoms and their files."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import scimill

HOME = Path(scimill.__file__).parent
TRACED = tuple(str(HOME / part) for part in ("atoms", "files.py"))


def lines(action: Callable[[], object]) -> int:
    """Count the lines that an action executes in a copy of this process."""
    readable, writable = os.pipe()
    if not (child := os.fork()):
        counter = _Tracer(None)
        _run(action, counter)
        os.write(writable, str(counter.count).encode())
        os._exit(0)
    os.close(writable)
    with os.fdopen(readable) as answer:
        text = answer.read()
    _, status = os.waitpid(child, 0)
    assert status == 0, status
    return int(text)


def killed(action: Callable[[], object], line: int) -> bool:
    """Whether a copy of this process was killed at the line of the action; False if it ended before."""
    if not (child := os.fork()):
        _run(action, _Tracer(line))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), status
    return os.WIFSIGNALED(status)


def _run(action: Callable[[], object], tracer: "_Tracer") -> None:
    try:
        sys.settrace(tracer.trace)
        action()
        sys.settrace(None)
    except BaseException as error:  # the copy must not continue the test
        sys.settrace(None)
        print(repr(error), file=sys.stderr)
        os._exit(3)


class _Tracer:
    def __init__(self, last: int | None) -> None:
        self.count, self._last = 0, last

    def trace(self, frame: FrameType, _event: str, _arg: Any) -> Any:
        return self._line if frame.f_code.co_filename.startswith(TRACED) else None

    def _line(self, _frame: FrameType, event: str, _arg: Any) -> Any:
        if event == "line":
            self.count += 1
            if self.count == self._last:
                os.kill(os.getpid(), signal.SIGKILL)
        return self._line
