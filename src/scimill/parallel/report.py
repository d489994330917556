"""Progress of long work on rank 0: a bar on a terminal, lines at intervals in a job log."""

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn, TextIO

if TYPE_CHECKING:
    from tqdm import tqdm

LINE_INTERVAL = 30.0  # s between lines in a job log
MOST_NAMED = 10  # numbers to list in a message


def say(text: str) -> None:
    """Print a message to standard error; results go to standard output."""
    print(f"scimill: {text}", file=sys.stderr, flush=True)


def describe_numbers(noun: str, numbers: Sequence[int]) -> str:
    """List numbers, at most `MOST_NAMED`: "block 7", "blocks 3, 5 and 9 more"."""
    named = ", ".join(f"{number:,}" for number in numbers[:MOST_NAMED])
    rest = f" and {len(numbers) - MOST_NAMED:,} more" if len(numbers) > MOST_NAMED else ""
    return f"{noun}{'' if len(numbers) == 1 else 's'} {named}{rest}"


def describe_count(number: int, noun: str, plural: str = "") -> str:
    """Write a count with its noun: "1 block", "2,000 blocks"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def human(size: float) -> str:
    """Format a number of bytes with a readable unit."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(size) < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} PiB"


def _open_bar(total: int, initial: int, unit: str, what: str, stream: TextIO) -> "tqdm[NoReturn]":
    from tqdm import tqdm  # here, so that commands without progress start faster

    return tqdm(total=total, initial=initial, desc=what, unit=f" {unit}", unit_scale=True, file=stream)


class Progress:
    """Report of the share done, the rate and the time left of `total` units of work.

    Parameters
    ----------
    total : units of work in all.
    initial : units that an earlier run has done; the rate does not count them.
    unit, what : names of the units and of the work.
    enabled : False on all ranks but one, so that calls need no condition.

    """

    def __init__(self, total: int, *, initial: int = 0, unit: str, what: str, enabled: bool) -> None:
        self._total, self._initial, self._unit, self._what = total, initial, unit, what
        self._started = self._said = time.monotonic()
        self._stream: TextIO | None = sys.stderr if enabled else None
        self._bar: tqdm[NoReturn] | None = None
        if self._stream and self._stream.isatty():
            self._bar = _open_bar(total, initial, unit, what, self._stream)

    def due(self) -> bool:
        """Return whether to report again. It is cheap to call, while counting what is done may not be."""
        interval = 0.5 if self._bar else LINE_INTERVAL
        return self._stream is not None and time.monotonic() - self._said >= interval

    def update(self, done: int) -> None:
        """Report that `done` units are done in all."""
        if self._stream is None:
            return
        self._said = time.monotonic()
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
        else:
            say(self.line(done))

    def line(self, done: int) -> str:
        """Format a line for a job log: share, units, time so far, time left, rate."""
        from tqdm import tqdm

        return tqdm.format_meter(
            done, self._total, time.monotonic() - self._started, ncols=0, initial=self._initial,
            prefix=self._what, unit=f" {self._unit}", unit_scale=True,
        )  # fmt: skip

    def close(self) -> None:
        """Close the progress bar."""
        if self._bar is not None:
            self._bar.close()
