"""NumPy's .npz format for dlrm: a zip file of three uncompressed arrays, each aligned to its values.

All bytes are known beforehand except the CRC-32 of each array, which a zip file holds in its headers. It is combined
from the CRC-32s of the blocks and written last.
"""

import dataclasses
import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from scimill.bench.dataset.plan import DataFile, DatasetPlan, FileSegment, KnownBytes, fit_count, records_per_file
from scimill.bench.formats import dlrm
from scimill.bench.formats.dlrm_bin.write import companion_file, feature_counts_file
from scimill.bench.formats.npy import npy_header
from scimill.bench.params import PlanConfig, block_size_of
from scimill.parallel.world import World
from scimill.store.checksums import CRC32, crc32, join_all_checksums
from scimill.store.direct import Bytes

ALIGNMENT = 8  # bytes: arrays begin at multiples of it, as their rows do, so a file grows by whole rows only
MEMBERS = (("X_int.npy", dlrm.DENSE), ("X_cat.npy", dlrm.SPARSE), ("y.npy", dlrm.LABEL))
DTYPE = "<i8"

# The layout follows APPNOTE.TXT 6.3.10 (PKWARE), with zip64 fields for every member.
_LOCAL, _CENTRAL = struct.Struct("<4s5H3I2H"), struct.Struct("<4s6H3I5H2I")
_VERSION, _IN_ZIP64 = 45, 0xFFFFFFFF  # the latter: the value stands in the zip64 field
_DATE = 0x21  # 1 January 1980, the earliest date: the bytes must not depend on the clock
_PADDING = 0xD935  # extra field of padding, as Android's zipalign writes it
_LOCAL_CRC, _CENTRAL_CRC = 14, 16  # bytes from the header's start


@dataclasses.dataclass(frozen=True)
class Member:
    """An array in a zip file: the places of its local header, its .npy header and its data."""

    name: str
    span: tuple[int, int]
    rows: int
    offset: int

    @cached_property
    def array_header(self) -> bytes:
        """The .npy header of the array."""
        width = self.span[1] - self.span[0]
        return npy_header((self.rows,) if width == 1 else (self.rows, width), DTYPE)

    @cached_property
    def data(self) -> int:
        """First byte of the array's values: the first multiple of `ALIGNMENT` after the headers."""
        least = self.offset + _LOCAL.size + len(self.name) + 20 + 4 + len(self.array_header)
        return -(-least // ALIGNMENT) * ALIGNMENT

    @cached_property
    def start(self) -> int:
        """First byte of the member's content, which its CRC covers."""
        return self.data - len(self.array_header)

    @cached_property
    def stop(self) -> int:
        """End of the content."""
        return self.data + self.rows * 8 * (self.span[1] - self.span[0])

    def local_header(self) -> bytes:
        """Return everything before the values; the CRC is 0."""
        size = self.stop - self.start
        padding = self.start - self.offset - _LOCAL.size - len(self.name) - 20 - 4
        extra = struct.pack("<2H2Q2H", 1, 16, size, size, _PADDING, padding) + bytes(padding)
        fields = (_VERSION, 0, 0, 0, _DATE, 0, _IN_ZIP64, _IN_ZIP64, len(self.name), len(extra))
        return _LOCAL.pack(b"PK\3\4", *fields) + self.name.encode() + extra + self.array_header

    def central_header(self) -> bytes:
        """Return the member's entry in the directory at the end of the file; the CRC is 0."""
        size = self.stop - self.start
        extra = struct.pack("<2H3Q", 1, 24, size, size, self.offset)
        sizes = (0, _IN_ZIP64, _IN_ZIP64, len(self.name), len(extra))
        fields = (_VERSION, _VERSION, 0, 0, 0, _DATE, *sizes, 0, 0, 0, 0o600 << 16, _IN_ZIP64)
        return _CENTRAL.pack(b"PK\1\2", *fields) + self.name.encode() + extra


def members(rows: int) -> list[Member]:
    """Return the members of a file of `rows` rows, in order."""
    found: list[Member] = []
    for name, span in MEMBERS:
        found.append(Member(name, span, rows, found[-1].stop if found else 0))
    return found


def zip_directory(found: list[Member]) -> bytes:
    """Return the end of a zip file: its directory, and the records that locate it."""
    rows = b"".join(member.central_header() for member in found)
    start, count = found[-1].stop, len(found)
    end = start + len(rows)
    record = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, _VERSION, _VERSION, 0, 0, count, count, len(rows), start)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, end, 1)
    last = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(rows), _IN_ZIP64, 0)
    return rows + record + locator + last


@dataclasses.dataclass(frozen=True)
class NpzFile(DataFile):
    """A zip file of arrays."""

    members: tuple[Member, ...] = ()

    def parts(self, start: int, stop: int, work: Bytes, at: int) -> tuple[int, ...]:
        """Return the CRC-32 of each member's bytes in a block."""
        return tuple(
            crc32(work[at + low - start : at + high - start].data) if high > low else 0
            for low, high in self._overlaps(start, stop)
        )

    def _overlaps(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        for member in self.members:
            low, high = max(start, member.start), min(stop, member.stop)
            yield low, max(low, high)

    def patches(self, block_size: int, parts: NDArray[np.uint32]) -> list[tuple[int, bytes]]:
        """Return the CRC-32 of each member, for its two headers."""
        starts = range(0, self.size, block_size)
        overlaps = [list(self._overlaps(start, min(start + block_size, self.size))) for start in starts]
        found, central = [], self.members[-1].stop
        for number, member in enumerate(self.members):
            pieces = ((int(parts[b, number]), high - low) for b, (low, high) in enumerate(o[number] for o in overlaps))
            crc = struct.pack("<I", join_all_checksums(pieces, CRC32))
            found += [(member.offset + _LOCAL_CRC, crc), (central + _CENTRAL_CRC, crc)]
            central += len(member.central_header())
        return found


def make_plan(config: PlanConfig, request: int, world: World) -> DatasetPlan:
    """Plan ``day_0_reordered.npz``, …, and the files of row and value counts that the trainer opens."""
    del world
    counts, most = feature_counts_file(), config.rows_per_file

    def total(rows: int) -> int:
        """Bytes of all files of a dataset of `rows` rows."""
        whole, rest = divmod(rows, most)
        size = whole * size_of(most) + (size_of(rest) if rest else 0)
        return size + counts.size + row_counts_file(records_per_file(rows, most)).size

    rows = fit_count(total, request, config.fit, "row", 320)
    files = [
        npz_file(number, part, [dlrm.columns(config, DTYPE, span, number * most, part) for _, span in MEMBERS])
        for number, part in enumerate(records_per_file(rows, most))
    ]
    return DatasetPlan((*files, row_counts_file(records_per_file(rows, most)), counts), block_size_of(config))


def size_of(rows: int) -> int:
    """Compute the bytes of a file of `rows` rows."""
    found = members(rows)
    return found[-1].stop + len(zip_directory(found))


def row_counts_file(rows: Sequence[int]) -> DataFile:
    """Make the file that holds the number of rows of each file."""
    return companion_file("day_day_count.npz", "total_per_file", np.array(rows, dtype=np.int64))


def npz_file(number: int, rows: int, contents: Iterable[FileSegment]) -> NpzFile:
    """Make a file of `rows` rows from the content of each member."""
    found = members(rows)
    segments: list[FileSegment] = []
    for member, content in zip(found, contents, strict=True):
        segments += [KnownBytes(member.local_header()), content]
    segments.append(KnownBytes(zip_directory(found)))
    return NpzFile(f"day_{number}_reordered.npz", rows, tuple(segments), members=tuple(found))
