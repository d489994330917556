"""Segments of a file made from pieces of another dataset."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from scimill.bench.dataset.plan import FileSegment
from scimill.bench.kernels.scaling import Picks
from scimill.store.direct import Bytes

Integers = NDArray[np.int64]
NO_KEY = np.uint64(0)
Content = TypeVar("Content")


@dataclass(frozen=True)
class Change:
    """How a repeated piece is changed.

    Attributes
    ----------
    key : key of the random words for this repetition of the piece; `NO_KEY` if it is copied unchanged.
    shuffled : whether only the order of its records changes.
    noise : largest change of an intensity, as a share of the range of intensities.
    repeat : share of values that repeat others, which makes the data compressible.

    """

    key: np.uint64 = NO_KEY
    shuffled: bool = False
    noise: float = 0.0
    repeat: float = 0.0

    @property
    def is_copy(self) -> bool:
        """Whether the piece stays unchanged."""
        return bool(self.key == NO_KEY)

    def order(self, count: int) -> Integers:
        """Draw a random order of `count` records."""
        return np.random.default_rng(int(self.key)).permutation(count)


Changes = Callable[[int, Picks, int], Change]
"""changes(part, picks, index) returns how one pick changes."""


def pick_reader(
    read: Callable[[int, int, Change, Integers | None], Content], changes: Changes
) -> Callable[[int, Picks, int], Content]:
    """Turn a function that reads a piece (part, piece, change, records) into one that reads a pick."""

    def read_pick(part: int, picks: Picks, index: int) -> Content:
        cut = picks.cut if index == len(picks.piece) - 1 else None
        return read(part, int(picks.piece[index]), changes(part, picks, index), cut)

    return read_pick


class PickedBytes:
    """A segment that consists of picked pieces, one after the other.

    Parameters
    ----------
    part : number of the part that the picks belong to.
    picks : the pieces to take.
    read : read(part, picks, index) reads one pick; see `pick_reader`.
    unit : bytes per unit of `Picks.size`.

    """

    def __init__(self, part: int, picks: Picks, read: Callable[[int, Picks, int], Bytes], unit: int = 1) -> None:
        self._part, self._picks, self._read = part, picks, read
        self._ends = np.cumsum(picks.size * unit)

    @property
    def size(self) -> int:
        """Number of bytes."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def fill(self, start: int, stop: int, work: Bytes, at: int) -> None:
        """Put bytes [start, stop) at work[at:]; see `plan.FileSegment.fill`."""
        number, position = int(np.searchsorted(self._ends, start, side="right")), start
        while position < stop:
            first, end = int(self._ends[number - 1]) if number else 0, int(self._ends[number])
            upto = min(stop, end)
            if upto > position:
                content = self._read(self._part, self._picks, number)
                place = at + position - start
                work[place : place + upto - position] = content[position - first : upto - first]
            position, number = upto, number + 1


@dataclass(frozen=True)
class SegmentRange:
    """A segment that is a range of bytes of another segment."""

    segment: FileSegment
    first: int
    size: int

    def fill(self, start: int, stop: int, work: Bytes, at: int) -> None:
        """Put bytes [start, stop) at work[at:]; see `plan.FileSegment.fill`."""
        self.segment.fill(self.first + start, self.first + stop, work, at)
