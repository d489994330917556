"""CRC-32C of data and of ledger rows."""

from collections.abc import Mapping

import numpy as np
from crc32c import crc32c
from numpy.typing import ArrayLike, NDArray

from scimill.store.layout import Layout


def bytes_checksum(rows: NDArray[np.generic], value: int) -> int:
    """Continue the checksum `value` over an array's bytes."""
    return int(crc32c(rows.reshape(-1).view(np.uint8).data, value)) if rows.size else value


_POLYNOMIAL = 0x82F63B78  # Castagnoli's, its lowest power in the highest bit


def joined(first: int, second: int, length: int) -> int:
    """Checksum of two pieces one after the other, from those of each; the second has `length` bytes.

    The checksum of a piece is its remainder as a polynomial over the field of two elements; `length` bytes behind it
    multiply it by x to the power of 8 · length.
    """
    power, square = 1 << 31, 1 << 23  # x⁰ and x⁸
    while length:
        if length & 1:
            power = _product(power, square)
        square = _product(square, square)
        length >>= 1
    return _product(power, first) ^ second


def _product(a: int, b: int) -> int:
    """Product of two polynomials, modulo Castagnoli's."""
    product = 0
    for bit in range(31, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = b >> 1 ^ (_POLYNOMIAL if b & 1 else 0)
    return product


def row_checksum(layout: Layout, block: int, row: Mapping[str, ArrayLike]) -> int:
    """Checksum of a ledger row: the block's number, then every column but this one."""
    value = int(crc32c(np.int64(block).tobytes()))
    for column in layout.columns:
        if column.name != "row_crc32c":
            value = int(crc32c(np.asarray(row[column.name], dtype=column.dtype).tobytes(), value))
    return value
