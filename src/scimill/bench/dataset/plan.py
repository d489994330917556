"""The plan of a dataset: its files, their records and the place of every byte, before anything is written.

A file is a sequence of segments. A segment can make any range of its bytes independently, so any rank can make the
blocks of a file, in any order, and repeat them. All code that handles datasets (`size`, `generate`, `verify`, `scale`)
works on a `DatasetPlan` and does not depend on the format.
"""

import dataclasses
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from scimill.errors import ConfigError
from scimill.parallel.report import human
from scimill.store.direct import Bytes, aligned

Fit = Literal["at-least", "at-most", "nearest"]

MARGIN = 8192  # bytes around a block in a work buffer: only whole records are made, and they extend past its ends


def work_buffer(block_size: int) -> Bytes:
    """Allocate memory for a block with a `MARGIN` on both sides; memory and block start at a page boundary."""
    return aligned(block_size + 2 * MARGIN)


class FileSegment(Protocol):
    """A range of a file, all of whose bytes are made in the same way."""

    @property
    def size(self) -> int:
        """Number of bytes."""
        ...

    def fill(self, start: int, stop: int, work: Bytes, at: int) -> None:
        """Put bytes [start, stop) at work[at:]; up to `MARGIN` bytes around them may be overwritten.

        Bytes before `at` may be overwritten only if start > 0: otherwise they belong to the segment before.
        """
        ...


@dataclasses.dataclass(frozen=True)
class KnownBytes:
    """A segment of known bytes: a header or a table of counts."""

    content: bytes

    @property
    def size(self) -> int:
        """Number of bytes."""
        return len(self.content)

    def fill(self, start: int, stop: int, work: Bytes, at: int) -> None:
        """Put bytes [start, stop) at work[at:]."""
        work[at : at + stop - start] = np.frombuffer(self.content[start:stop], dtype=np.uint8)


@dataclasses.dataclass(frozen=True)
class FixedLengthRecords:
    """A segment of records that all have the same length.

    Parameters
    ----------
    size : bytes of the segment; the last record may be cut.
    record_bytes : bytes of a record.
    encode : encode(out, first, count) writes `count` records, starting at the segment's record `first`, into the
        bytes `out`, whose address is a multiple of 8.

    """

    size: int
    record_bytes: int
    encode: Callable[[Bytes, int, int], None]

    def fill(self, start: int, stop: int, work: Bytes, at: int) -> None:
        """Put bytes [start, stop) at work[at:], by making the whole records that cover them."""
        first, last = start // self.record_bytes, -(-stop // self.record_bytes)
        place, length = at - (start - first * self.record_bytes), (last - first) * self.record_bytes
        out = work[place : place + length]
        if out.ctypes.data % 8 == 0:
            self.encode(out, first, last - first)
        else:  # e.g. pages of parquet; a copy costs far less than making the records byte by byte
            aligned_out = np.empty(length, dtype=np.uint8)
            self.encode(aligned_out, first, last - first)
            out[:] = aligned_out


@dataclasses.dataclass(frozen=True)
class SizeOnly:
    """A segment of known size whose bytes are never needed, e.g. when sizes are planned or files are verified."""

    size: int

    def fill(self, start: int, stop: int, work: Bytes, at: int) -> None:
        """Raise an error, because the plan has no bytes."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class DataFile:
    """One file of a dataset.

    Parameters
    ----------
    name : its name in the dataset's directory.
    records : number of records.
    segments : its content.
    is_held_out : whether the trainer evaluates on its records instead of training on them.

    """

    name: str
    records: int
    segments: tuple[FileSegment, ...]
    is_held_out: bool = False

    @cached_property
    def offsets(self) -> list[int]:
        """First byte of each segment, and the end."""
        return list(accumulate((segment.size for segment in self.segments), initial=0))

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self.offsets[-1]

    def fill(self, start: int, stop: int, work: Bytes, at: int) -> None:
        """Put bytes [start, stop) at work[at:]; see `FileSegment.fill`."""
        number = bisect_right(self.offsets, start) - 1
        position = start
        while position < stop:
            segment, first, end = self.segments[number], self.offsets[number], self.offsets[number + 1]
            upto = min(stop, end)
            if upto > position:
                segment.fill(position - first, upto - first, work, at + position - start)
            position, number = upto, number + 1

    def parts(self, start: int, stop: int, work: Bytes, at: int) -> tuple[int, ...]:
        """Return what the ledger keeps of a block for `patches`: at most three 32-bit numbers."""
        del start, stop, work, at
        return ()

    def patches(self, block_size: int, parts: NDArray[np.uint32]) -> list[tuple[int, bytes]]:
        """Return bytes (offset, content) that depend on all others, from the parts of all blocks."""
        del block_size, parts
        return []


@dataclasses.dataclass(frozen=True)
class Span:
    """A block: bytes [start, stop) of file `number` of the plan."""

    number: int
    start: int
    stop: int


@dataclasses.dataclass(frozen=True)
class DatasetPlan:
    """All files of a dataset, cut into blocks of `block_size` bytes; the last block of a file may be shorter."""

    files: tuple[DataFile, ...]
    block_size: int

    @cached_property
    def first_blocks(self) -> NDArray[np.int64]:
        """Number of the first block of each file, followed by the number of all blocks."""
        blocks = [-(-file.size // self.block_size) for file in self.files]
        return np.concatenate([[0], np.cumsum(blocks, dtype=np.int64)]).astype(np.int64)

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return int(self.first_blocks[-1])

    @cached_property
    def size(self) -> int:
        """Total bytes of all files."""
        return sum(file.size for file in self.files)

    @cached_property
    def records(self) -> int:
        """Total number of records."""
        return sum(file.records for file in self.files)

    @property
    def training(self) -> int:
        """Number of training records."""
        return sum(file.records for file in self.files if not file.is_held_out)

    def span(self, block: int) -> Span:
        """Return the file and bytes of a block."""
        number = int(np.searchsorted(self.first_blocks, block, side="right")) - 1
        start = (block - int(self.first_blocks[number])) * self.block_size
        return Span(number, start, min(start + self.block_size, self.files[number].size))


def fit_count(
    total: Callable[[int], int], request: int, fit: Fit, what: str, step: int, guess: int | None = None
) -> int:
    """Find how many records fit a request, at least one.

    Parameters
    ----------
    total : total(count) is the size in bytes of a dataset of `count` records; it grows with `count`.
    request, fit : wanted bytes, and on which side of them to end.
    what : name of a record, for the message.
    step : typical bytes of a record.
    guess : count at which the search starts; by default an estimate from the typical bytes of a record.

    Raises
    ------
    ConfigError : the request is smaller than a dataset of one record.

    """
    least = total(1)
    if request < least:
        raise too_small_error(request, least, what)
    low = max(1, (request - least) // step) if guess is None else guess
    reach = 1
    while total(low) > request:
        low, reach = max(1, low - reach), 2 * reach
    high, reach = low + 1, 1
    while total(high) <= request:
        low, high, reach = high, high + reach, 2 * reach
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if total(middle) <= request else (low, middle)
    return low + int(takes_next(total(low), total(low + 1), request, fit))


def takes_next(below: int, above: int, request: int, fit: Fit) -> bool:
    """Whether to add the record that increases the size from below <= request to above > request."""
    if fit == "nearest":
        return above - request < request - below
    return fit == "at-least" and below < request


def too_small_error(request: int, least: int, what: str) -> ConfigError:
    """Return the error for a request smaller than one record."""
    return ConfigError(
        f"{human(request)} is less than the smallest dataset with these parameters: one {what}",
        where="size", allowed=f"at least {least} bytes",
    )  # fmt: skip


def records_per_file(count: int, most: int) -> Sequence[int]:
    """Number of records of each file; every file but the last has `most`."""
    return [most] * (count // most) + ([count % most] if count % most else [])
