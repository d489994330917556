"""The seal: the first bytes of a store, which allow its structure to be checked without HDF5.

HDF5 lets a file begin with a user block. Ours holds as text the places of the datasets, the length of the file, and the
CRC-32C of every byte outside the datasets (HDF5's structure, attributes, padding). So damage of the structure is found
before HDF5 reads it and perhaps crashes.
"""

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from scimill.errors import InputError, StorageError
from scimill.store.checksums import crc32c

MAGIC = "scimill store, format"
FORMAT = 2
READABLE = (1, 2)
"""Versions of the format that this scimill reads, and resumes."""
SEAL_BYTES = 8192  # HDF5 requires a power of two, at least 512
_CHUNK = 1 << 22

SIGNATURE = b"\x89HDF\r\n\x1a\n"
_OPEN_MARK, _OPEN_MARK_BYTES = 20, 4  # "file consistency flags" of superblock version 0, HDF5 File Format III.A


class NotAStore(InputError):
    """The file does not begin with a seal."""


class Damaged(StorageError):
    """Stored bytes are not those that were written."""


@dataclasses.dataclass(frozen=True)
class Seal:
    """Size of the file, (offset, length) of each dataset, and the checksum of all other bytes after the seal."""

    size: int
    extents: tuple[tuple[int, int], ...]
    structure_crc32c: int

    def to_bytes(self) -> bytes:
        """Format the seal: a line for people, the content as JSON, the checksum of both."""
        text = f"{MAGIC} {FORMAT}; an HDF5 file follows; read it with h5py, h5dump or scimill\n"
        text += json.dumps(dataclasses.asdict(self)) + "\n"
        text += f"{crc32c(text.encode()):08x}\n"
        if len(text) > SEAL_BYTES:
            raise ValueError(f"{len(self.extents)} datasets do not fit into a seal")
        return text.encode().ljust(SEAL_BYTES, b"\0")


def read_seal(path: Path) -> Seal:
    """Read and check the seal of a file.

    Raises
    ------
    InputError : missing or unreadable.
    NotAStore : not a scimill store, or a format that this version does not know.
    Damaged : the seal itself is damaged.

    """
    try:
        with path.open("rb") as file:
            raw = file.read(SEAL_BYTES)
    except OSError as error:
        raise InputError.unreadable("file", error, path) from None
    return parse_seal(raw, path)


def parse_seal(raw: bytes, path: Path) -> Seal:
    """Check the seal that a file starts with; raises as `read_seal` does."""
    if not raw.startswith(MAGIC.encode()):
        raise NotAStore("not a scimill store", where=str(path), allowed="a file that scimill wrote")
    *body, checksum, padding = [*raw.split(b"\n", 3), b"", b""][:4]
    text = b"\n".join(body) + b"\n"
    if len(raw) < SEAL_BYTES or checksum != f"{crc32c(text):08x}".encode() or padding != bytes(len(padding)):
        raise Damaged("the seal at the start of the file is damaged", where=f"{path}, bytes 0 to {SEAL_BYTES}")
    version = body[0][len(MAGIC) :].split(b";")[0].strip()
    if version.decode("ascii", "replace") not in map(str, READABLE):
        allowed = f"format {' or '.join(map(str, READABLE))}"
        raise NotAStore(f"unsupported store format {version.decode()}", where=str(path), allowed=allowed)
    values = json.loads(body[1])
    extents = tuple((int(offset), int(length)) for offset, length in values["extents"])
    return Seal(values["size"], extents, values["structure_crc32c"])


def make_seal(path: Path, extents: list[tuple[int, int]]) -> Seal:
    """Compute the seal of a finished structure."""
    size = path.stat().st_size
    ordered = tuple(sorted(extents))
    with path.open("rb") as file:
        return Seal(size, ordered, structure_checksum(file, size, ordered))


def write_seal(path: Path, seal: Seal) -> None:
    """Write the seal at the start of the file and sync it."""
    with path.open("r+b") as file:
        file.write(seal.to_bytes())
        file.flush()
        os.fsync(file.fileno())


def check_structure(path: Path, seal: Seal) -> None:
    """Compare a file's length and structure with its seal.

    Raises
    ------
    Damaged : the length differs, or a byte outside the datasets does.

    """
    size = path.stat().st_size
    if size != seal.size:
        what = "truncated" if size < seal.size else "too long"
        raise Damaged(f"the file is {what}: {size:,} bytes instead of {seal.size:,}", where=str(path))
    with path.open("rb") as file:
        is_sound = structure_checksum(file, size, seal.extents) == seal.structure_crc32c
        allowed = (0, 1) if path.suffix == ".part" else (0,)
        if not is_sound or _open_mark(file) not in allowed:
            raise Damaged("the file's structure is damaged", where=f"{path}, HDF5 metadata")


def structure_checksum(file: BinaryIO, size: int, extents: tuple[tuple[int, int], ...]) -> int:
    """Compute the CRC-32C from the seal's end to `size`, without datasets and HDF5's open mark."""
    value = 0
    mark = (_superblock(file) + _OPEN_MARK, _OPEN_MARK_BYTES)
    for start, stop in _gaps(size, tuple(sorted((*extents, mark)))):
        file.seek(start)
        left = stop - start
        while left and (piece := file.read(min(_CHUNK, left))):
            value = crc32c(piece, value)
            left -= len(piece)
    return value


def _superblock(file: BinaryIO) -> int:
    """Find where HDF5's part of the file begins: at a power of two, like HDF5's own search."""
    offset = SEAL_BYTES
    while offset <= 1 << 40:
        file.seek(offset)
        if file.read(len(SIGNATURE)) == SIGNATURE:
            return offset
        offset *= 2
    return SEAL_BYTES


def _open_mark(file: BinaryIO) -> int:
    """Read HDF5's mark of a file that is open for writing, which a killed process leaves behind."""
    file.seek(_superblock(file) + _OPEN_MARK)
    return int.from_bytes(file.read(_OPEN_MARK_BYTES), "little")


def _gaps(size: int, extents: tuple[tuple[int, int], ...]) -> Iterator[tuple[int, int]]:
    position = SEAL_BYTES
    for offset, length in extents:
        if offset > position:
            yield position, offset
        position = max(position, offset + length)
    if size > position:
        yield position, size
