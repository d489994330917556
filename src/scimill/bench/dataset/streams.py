"""Records of varying length, one after the other: their places are measured beforehand, without making them.

Lengths are summed by groups of records, each rank its share; the offset of every group is kept. A block of a file
finds its first record from them.
"""

import dataclasses
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from scimill.bench.dataset.plan import Fit, takes_next, too_small_error
from scimill.parallel.world import World
from scimill.store.direct import Bytes

Offsets = NDArray[np.int64]

GROUPS_AT_ONCE = 64  # whose lengths are in memory at a time


class RecordEncoder(Protocol):
    """How records of one kind are made; a record is a function of its number."""

    @property
    def group(self) -> int:
        """Records per group, some 500 KB."""
        ...

    @property
    def typical(self) -> int:
        """Typical bytes of a record."""
        ...

    def lengths(self, first: int, count: int) -> Offsets:
        """Bytes of each of `count` records from `first` on; int64."""
        ...

    def encode(self, work: Bytes, at: int, limit: int, first: int, last: int) -> None:
        """Write whole records from `first` on, but not `last`, at work[at:], until one ends at or beyond `limit`."""
        ...


@dataclasses.dataclass(frozen=True)
class RecordStream:
    """Records and the offset of each of their groups, the end of the last one too."""

    encoder: RecordEncoder
    offsets: Offsets

    def offset_of(self, record: int) -> int:
        """Where a record begins."""
        number = record // self.encoder.group
        within = record - number * self.encoder.group
        return int(self.offsets[number]) + (int(self.encoder.lengths(record - within, within).sum()) if within else 0)

    def record_at(self, offset: int) -> tuple[int, int]:
        """Return the record that holds a byte, and where it begins."""
        number = int(np.searchsorted(self.offsets, offset, side="right")) - 1
        first = number * self.encoder.group
        ends = self.offsets[number] + np.cumsum(self.encoder.lengths(first, self.encoder.group))
        before = int(np.searchsorted(ends, offset, side="right"))
        return first + before, int(ends[before - 1]) if before else int(self.offsets[number])

    def fit(self, request: int, fit: Fit, what: str) -> int:
        """Find how many records a request holds, at least one.

        Raises
        ------
        ConfigError : fewer bytes than the first record has.
        """
        record, start = self.record_at(request)
        if record == 0 and request < (least := self.offset_of(1)):
            raise too_small_error(request, least, what)
        return record + int(takes_next(start, self.offset_of(record + 1), request, fit))


def measure(encoder: RecordEncoder, request: int, world: World) -> RecordStream:
    """Find the offsets of so many groups that they hold more than `request` bytes; collective."""
    sizes = np.empty(0, dtype=np.int64)
    while (held := int(sizes.sum())) <= request + 2 * encoder.group * encoder.typical:
        more = 3 + int(1.01 * (request - held) / (encoder.group * encoder.typical))
        sizes = np.concatenate([sizes, *world.gather_all(_share(encoder, len(sizes), more, world))])
    return RecordStream(encoder, np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))


def _share(encoder: RecordEncoder, first: int, count: int, world: World) -> Offsets:
    """Sizes of this rank's share of `count` groups from `first` on: a row of neighbours."""
    low, high = (first + count * rank // world.size for rank in (world.rank, world.rank + 1))
    parts = [np.empty(0, dtype=np.int64)]
    for group in range(low, high, GROUPS_AT_ONCE):
        groups = min(GROUPS_AT_ONCE, high - group)
        parts.append(encoder.lengths(group * encoder.group, groups * encoder.group).reshape(groups, -1).sum(axis=1))
    return np.concatenate(parts)


@dataclasses.dataclass(frozen=True)
class StreamSegment:
    """Records [first, last) of a stream as a segment of a file."""

    stream: RecordStream
    first: int
    last: int
    begin: int
    """offset of the first record in the stream"""
    size: int

    @classmethod
    def of(cls, stream: RecordStream, first: int, last: int) -> "StreamSegment":
        """Make the segment of records [first, last)."""
        begin = stream.offset_of(first)
        return cls(stream, first, last, begin, stream.offset_of(last) - begin)

    def fill(self, start: int, stop: int, work: Bytes, at: int) -> None:
        """Put its bytes [start, stop) at work[at:], by making the whole records that cover them."""
        record, offset = self.stream.record_at(self.begin + start)
        self.stream.encoder.encode(work, at - (self.begin + start - offset), at + stop - start, record, self.last)


def divide_records(count: int, size_of: Callable[[int], int]) -> list[tuple[int, int]]:
    """Deal records out to files: [first, last) of each, where `size_of` gives how many a file takes."""
    found: list[tuple[int, int]] = []
    first = 0
    while first < count:
        last = min(count, first + size_of(len(found)))
        found.append((first, last))
        first = last
    return found
