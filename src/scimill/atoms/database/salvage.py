"""Recover every whole record of a damaged journal, including those after the damage."""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from scimill.atoms.database.journal import HEADER_KIND, MAGIC, PREFIX, JournalWriter, checksum


@dataclass
class Salvage:
    """The whole records of a journal.

    Parameters
    ----------
    records : header and body of each readable record.
    damaged : bytes outside of readable records, with a readable record after them; they were damaged after writing.
    torn : bytes after the last whole record, from an interrupted append or from damage.
    is_torn_append : whether the torn bytes are the beginning of an unfinished record.

    """

    records: list[tuple[bytes, bytes]] = field(default_factory=list)
    damaged: int = 0
    torn: int = 0
    is_torn_append: bool = True

    @property
    def is_damaged(self) -> bool:
        """Whether more is lost than an interrupted append."""
        return self.damaged > 0 or not self.is_torn_append


def salvage(path: Path) -> Salvage:
    """Read every whole record of a journal."""
    found, headers, latest, position = Salvage(), dict[int, bytes](), b"", 0
    if not path.stat().st_size:
        return found
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for start, stop, kind, body in _whole_records(data):
            found.damaged += start - position
            position = stop
            if kind == HEADER_KIND:
                latest = body  # the record that follows was written with it, and has its kind
                continue
            if kind not in headers and latest:
                headers[kind], latest = latest, b""
            if kind in headers:
                found.records.append((headers[kind], body))
            else:
                found.damaged += stop - start
        found.torn = len(data) - position
        found.is_torn_append = _is_torn_append(data, position)
    return found


def _whole_records(data: mmap.mmap) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield begin, end, kind and body of every whole record."""
    position = data.find(MAGIC)
    while position >= 0:
        stop, kind, body = _record(data, position)
        if stop:
            yield position, stop, kind, body
            position = stop
        else:
            position += 1
        position = data.find(MAGIC, position)


def _record(data: mmap.mmap, position: int) -> tuple[int, int, bytes]:
    """Read the record at a position: its end, kind and body; the end is 0 if it is not whole."""
    if position + PREFIX.size > len(data):
        return 0, 0, b""
    _, stored, kind, length = PREFIX.unpack_from(data, position)
    stop = position + PREFIX.size + length
    if stop > len(data):
        return 0, 0, b""
    body = data[position + PREFIX.size : stop]
    return (stop, kind, body) if checksum(kind, body) == stored else (0, 0, b"")


def _is_torn_append(data: mmap.mmap, position: int) -> bool:
    """Whether the remaining bytes begin a record and end before it is complete."""
    rest = len(data) - position
    if rest < PREFIX.size:
        return bytes(data[position : position + 4]) == MAGIC[: min(rest, 4)]
    magic, _, _, length = PREFIX.unpack_from(data, position)
    return bool(magic == MAGIC and PREFIX.size + length > rest)


def write(path: Path, found: Salvage) -> None:
    """Write the records into a new journal."""
    journal = JournalWriter(path)
    try:
        for header, body in found.records:
            journal.append(header, body)
    finally:
        journal.close()
