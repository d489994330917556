"""Count the lines that a command executes within the phases of writing a store, or kill it at the k-th of them.

Only lines of ``scimill/store`` count, so every line of the store is a possible place of death. The phases:

creation   rank 0 checks, creates the structure, seals and renames to ``.part``
opening    all ranks open it and find the pending blocks
data       a block's rows are written
ledger     a block's ledger row and its done mark are written
rename     the file is closed, synced and renamed
"""

import atexit
import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import scimill.store
from scimill.parallel.world import launched

PHASES = {
    # function of the store: phase of its lines and those of functions it calls, unless these are listed too
    "open_writer": "creation",
    "Writer.__init__": "opening",
    "Writer.write": "ledger",
    "Writer._write_data": "data",
    "Writer.finish": "rename",
}
STORE = str(Path(scimill.store.__file__).parent)


class Tracer:
    """Follow the store's lines; call `at` with the phase of each."""

    def __init__(self) -> None:
        self.lines: Counter[str] = Counter()

    def trace(self, frame: FrameType, _event: str, _arg: Any) -> Any:
        return self._line if frame.f_code.co_filename.startswith(STORE) else None

    def _line(self, frame: FrameType, event: str, _arg: Any) -> Any:
        if event == "line" and (phase := _phase(frame)):
            self.lines[phase] += 1
            self.at(phase)
        return self._line

    def at(self, phase: str) -> None:
        """Do nothing but count."""


class Killer(Tracer):
    def __init__(self, phase: str, k: int, number: int = signal.SIGKILL) -> None:
        super().__init__()
        self._phase, self._k, self._number = phase, k, number

    def at(self, phase: str) -> None:
        if phase == self._phase and self.lines[phase] == self._k:
            os.kill(os.getpid(), self._number)


def _phase(frame: FrameType | None) -> str | None:
    """Return the phase of the innermost caller that has one."""
    while frame is not None:
        if frame.f_code.co_filename.startswith(STORE) and frame.f_code.co_qualname in PHASES:
            return PHASES[frame.f_code.co_qualname]
        frame = frame.f_back
    return None


def follow(tracer: Tracer) -> None:
    """Follow this process from here on."""
    sys.settrace(tracer.trace)


def count(file: Path) -> None:
    """Follow this process, and write the number of lines per phase when it ends."""
    tracer = Tracer()
    rank, _ = launched()
    atexit.register(lambda: Path(f"{file}.{rank}").write_text(json.dumps(tracer.lines)))
    follow(tracer)
