"""CRC-32C of data and of ledger rows; checksums of joined pieces from those of the pieces."""

import math
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np
from fastcrc.crc32 import iscsi, iso_hdlc
from numpy.typing import NDArray

crc32c = iscsi
"""CRC-32C of bytes; crc32c(data, initial) continues a checksum."""
crc32 = iso_hdlc
"""CRC-32 of zip and gzip, called in the same way."""


def bytes_checksum(rows: NDArray[np.generic], value: int) -> int:
    """Continue the checksum `value` over an array's bytes."""
    return int(crc32c(rows.reshape(-1).view(np.uint8).data, value)) if rows.size else value


CRC32C = 0x82F63B78  # Castagnoli's polynomial, lowest power in the highest bit: RFC 3720, iSCSI
CRC32 = 0xEDB88320  # the polynomial of zip and gzip, in the same order: RFC 1952


def join_checksums(first: int, second: int, length: int, polynomial: int = CRC32C) -> int:
    """Combine the checksums of two consecutive pieces; the second has `length` bytes.

    The checksum of a piece is a polynomial remainder over the field of two elements; `length` bytes after the piece
    multiply it by x to the power of 8 · length.
    """
    return _product(_power(length, polynomial), first, polynomial) ^ second


def join_all_checksums(pieces: Iterable[tuple[int, int]], polynomial: int = CRC32C) -> int:
    """Combine the checksums of consecutive pieces, given as (checksum, length)."""
    whole = 0
    for checksum, length in pieces:
        whole = join_checksums(whole, checksum, length, polynomial)
    return whole


@lru_cache(maxsize=1024)  # the pieces of a file have few different lengths
def _power(length: int, polynomial: int) -> int:
    """Compute x to the power of 8 · length by squaring."""
    power, square = 1 << 31, 1 << 23  # x⁰ and x⁸
    while length:
        if length & 1:
            power = _product(power, square, polynomial)
        square = _product(square, square, polynomial)
        length >>= 1
    return power


def _product(a: int, b: int, polynomial: int) -> int:
    """Multiply two polynomials modulo a third."""
    product = 0
    for bit in range(31, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = b >> 1 ^ (polynomial if b & 1 else 0)
    return product


def file_checksum(path: Path, start: int = 0, stop: float = math.inf) -> int:
    """Compute the CRC-32C of bytes [start, stop) of a file, or of as many as it has."""
    crc, step = 0, 1 << 22
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        while start < stop and (piece := file.read(int(min(step, stop - start)))):
            crc = crc32c(piece, crc)
            start += len(piece)
    return int(crc)


def row_checksums(first: int, rows: NDArray[np.void]) -> NDArray[np.uint32]:
    """Compute the checksums of consecutive ledger rows: the block's number, then every column but the last.

    Parameters
    ----------
    first : number of the first row's block.
    rows : rows of the ledger, whose last column holds the checksum.

    """
    size, covered = rows.dtype.itemsize, rows.dtype.itemsize - rows.dtype["row_crc32c"].itemsize
    numbers = np.arange(first, first + len(rows), dtype="<i8").view(np.uint8).reshape(-1, 8)
    columns = np.frombuffer(rows.tobytes(), dtype=np.uint8).reshape(-1, size)[:, :covered]
    content, length = np.concatenate([numbers, columns], axis=1).tobytes(), 8 + covered
    sums = [crc32c(content[start : start + length]) for start in range(0, len(content), length)]
    return np.array(sums, dtype=np.uint32)
