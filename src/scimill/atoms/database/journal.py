"""Journals: append-only files of records, which stay readable when the writer is killed.

A record is either whole or absent: it begins with its length and checksum, and reading ends at the first incomplete
one. Records of one kind share a header, which the journal stores once, so a record is little more than its data.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scimill.store.checksums import crc32c

PREFIX = struct.Struct("<4sIIQ")  # magic, CRC-32C of kind and body, kind, bytes of the body
_CHECKED = struct.Struct("<IQ")
MAGIC = b"SMJ1"
HEADER_KIND = 0xFFFFFFFF  # the body is a header; it defines the kind numbered by the headers before it
READ_BYTES = 1 << 23


def checksum(kind: int, body: bytes) -> int:
    """Compute the CRC-32C of a record's kind, length and body."""
    return int(crc32c(body, crc32c(_CHECKED.pack(kind, len(body)))))


class JournalWriter:
    """A new journal, open for appending.

    Appended records survive a crash of the process, and with ``sync`` also a crash of the machine.

    Parameters
    ----------
    path : the file, which must not exist.
    sync : whether to wait for the disk after every record.

    """

    def __init__(self, path: Path, *, sync: bool = False) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        self._kinds: dict[bytes, int] = {}
        self._sync = sync
        self.size = 0

    def append(self, header: bytes, body: bytes) -> None:
        """Write one record."""
        kind = self._kinds.get(header)
        before = b""
        if kind is None:
            kind = len(self._kinds)
            before = PREFIX.pack(MAGIC, checksum(HEADER_KIND, header), HEADER_KIND, len(header)) + header
        self._write(before + PREFIX.pack(MAGIC, checksum(kind, body), kind, len(body)) + body)
        self._kinds[header] = kind
        if self._sync:
            os.fsync(self._descriptor)

    def _write(self, data: bytes) -> None:
        """Write all or nothing: after an error, remove what was written, so that no half record remains."""
        written = 0
        try:
            while written < len(data):
                written += os.write(self._descriptor, memoryview(data)[written:])
        except OSError:
            os.ftruncate(self._descriptor, self.size)
            os.lseek(self._descriptor, self.size, os.SEEK_SET)
            raise
        self.size += len(data)

    def close(self) -> None:
        """Sync everything to the disk and close."""
        os.fsync(self._descriptor)
        os.close(self._descriptor)


@dataclass(frozen=True)
class Index:
    """Kinds and positions of the records of a journal.

    Parameters
    ----------
    headers : the headers, by kind.
    kinds : kind of each record, shape (records,).
    offsets : offset of each record's body, bytes, shape (records,).
    lengths : length of each record's body, bytes, shape (records,).

    """

    headers: tuple[bytes, ...]
    kinds: NDArray[np.int64]
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int64]


class Journal:
    """A journal open for reading, even while it is being written or after it was removed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY)
        self.index = self._scan()

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _scan(self) -> Index:
        headers: list[bytes] = []
        found: list[tuple[int, int, int]] = []
        for kind, offset, body in self._records():
            if kind == HEADER_KIND:
                headers.append(body)
            elif kind < len(headers):
                found.append((kind, offset, len(body)))
            else:
                break
        columns = np.array(found, dtype=np.int64).reshape(-1, 3).T
        return Index(tuple(headers), *np.ascontiguousarray(columns))

    def _records(self) -> Iterator[tuple[int, int, bytes]]:
        """Yield the kind, the offset of the body, and the body of every whole record."""
        buffer, start, position = b"", 0, 0
        while True:
            if len(buffer) - position < PREFIX.size:
                buffer, start, position = self._read_more(buffer, start, position, PREFIX.size)
            if len(buffer) - position < PREFIX.size:
                return
            magic, stored, kind, length = PREFIX.unpack_from(buffer, position)
            whole = PREFIX.size + length
            if magic != MAGIC or start + position + whole > os.fstat(self._descriptor).st_size:
                return
            if len(buffer) - position < whole:
                buffer, start, position = self._read_more(buffer, start, position, whole)
            body = buffer[position + PREFIX.size : position + whole]
            if len(body) < length or checksum(kind, body) != stored:
                return
            yield kind, start + position + PREFIX.size, body
            position += whole

    def _read_more(self, buffer: bytes, start: int, position: int, needed: int) -> tuple[bytes, int, int]:
        """Drop what was used and read more; return the buffer, its offset in the file, the position in it."""
        rest = buffer[position:]
        more = os.pread(self._descriptor, max(READ_BYTES, needed), start + len(buffer))
        return rest + more, start + position, 0

    def bodies(self, records: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Read the bodies of records of one length, in ascending order: uint8, shape (records, length)."""
        first, last = int(self.index.offsets[records[0]]), int(self.index.offsets[records[-1]])
        length = int(self.index.lengths[records[0]])
        data = np.frombuffer(os.pread(self._descriptor, last + length - first, first), dtype=np.uint8)
        if len(records) == 1:
            return data.reshape(1, length)
        windows = np.lib.stride_tricks.sliding_window_view(data, length)
        return windows[self.index.offsets[records] - first]
