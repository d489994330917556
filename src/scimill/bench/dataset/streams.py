"""Streams of records of varying length, whose offsets are computed beforehand, without making the records.

The ranks share the work of summing the lengths by groups of records. The offset of every group is kept, and a block of
a file finds its first record from these offsets.
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

GROUPS_AT_ONCE = 64  # groups whose lengths are in memory at the same time


class RecordEncoder(Protocol):
    """Makes records of one kind; a record is a function of its number."""

    @property
    def group(self) -> int:
        """Records per group; a group is about 500 KB."""
        ...

    @property
    def typical(self) -> int:
        """Typical bytes of a record."""
        ...

    def lengths(self, first: int, count: int) -> Offsets:
        """Return the bytes of each of `count` records, starting at `first`; int64."""
        ...

    def encode(self, work: Bytes, at: int, limit: int, first: int, last: int) -> None:
        """Write whole records [first, last) at work[at:], stopping after the first that ends at or past `limit`."""
        ...


@dataclasses.dataclass(frozen=True)
class RecordStream:
    """Records, the offset of each of their groups, and the end of the last group."""

    encoder: RecordEncoder
    offsets: Offsets

    def offset_of(self, record: int) -> int:
        """Return the offset of a record."""
        number = record // self.encoder.group
        within = record - number * self.encoder.group
        return int(self.offsets[number]) + (int(self.encoder.lengths(record - within, within).sum()) if within else 0)

    def record_at(self, offset: int) -> tuple[int, int]:
        """Return the record that contains a byte, and the offset of the record."""
        number = int(np.searchsorted(self.offsets, offset, side="right")) - 1
        first = number * self.encoder.group
        ends = self.offsets[number] + np.cumsum(self.encoder.lengths(first, self.encoder.group))
        before = int(np.searchsorted(ends, offset, side="right"))
        return first + before, int(ends[before - 1]) if before else int(self.offsets[number])

    def fit(self, request: int, fit: Fit, what: str) -> int:
        """Find how many records fit a request, at least one.

        Raises
        ------
        ConfigError : the request is smaller than the first record.
        """
        record, start = self.record_at(request)
        if record == 0 and request < (least := self.offset_of(1)):
            raise too_small_error(request, least, what)
        return record + int(takes_next(start, self.offset_of(record + 1), request, fit))


def measure(encoder: RecordEncoder, request: int, world: World) -> RecordStream:
    """Compute the offsets of enough groups to hold more than `request` bytes; collective."""
    sizes = np.empty(0, dtype=np.int64)
    while (held := int(sizes.sum())) <= request + 2 * encoder.group * encoder.typical:
        more = 3 + int(1.01 * (request - held) / (encoder.group * encoder.typical))
        sizes = np.concatenate([sizes, *world.gather_all(_share(encoder, len(sizes), more, world))])
    return RecordStream(encoder, np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))


def _share(encoder: RecordEncoder, first: int, count: int, world: World) -> Offsets:
    """Sizes of this rank's share, a contiguous range, of `count` groups starting at `first`."""
    low, high = (first + count * rank // world.size for rank in (world.rank, world.rank + 1))
    parts = [np.empty(0, dtype=np.int64)]
    for group in range(low, high, GROUPS_AT_ONCE):
        groups = min(GROUPS_AT_ONCE, high - group)
        parts.append(encoder.lengths(group * encoder.group, groups * encoder.group).reshape(groups, -1).sum(axis=1))
    return np.concatenate(parts)


@dataclasses.dataclass(frozen=True)
class StreamSegment:
    """A segment of a file that consists of records [first, last) of a stream."""

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
        """Put bytes [start, stop) at work[at:], by making the whole records that cover them."""
        record, offset = self.stream.record_at(self.begin + start)
        self.stream.encoder.encode(work, at - (self.begin + start - offset), at + stop - start, record, self.last)


def divide_records(count: int, size_of: Callable[[int], int]) -> list[tuple[int, int]]:
    """Divide records among files: return [first, last) of each; size_of(number) is the capacity of a file."""
    found: list[tuple[int, int]] = []
    first = 0
    while first < count:
        last = min(count, first + size_of(len(found)))
        found.append((first, last))
        first = last
    return found
