"""Joining cyclic redundancy checks: that of a whole from those of its blocks."""

from collections.abc import Iterable
from functools import cache

CRC32C = 0x82F63B78  # Castagnoli's polynomial, bits reversed: RFC 3720, iSCSI
CRC32 = 0xEDB88320  # the polynomial of zip and gzip, bits reversed: RFC 1952

Matrix = tuple[int, ...]
"""32 columns over GF(2): what each bit of a register becomes."""


def joined(parts: Iterable[tuple[int, int]], polynomial: int) -> int:
    """CRC of a row of byte strings from (CRC, length) of each.

    A CRC is linear over GF(2), and the bytes behind a string act on its CRC as so many zeros would.
    """
    whole = 0
    for crc, length in parts:
        whole = _apply(_zeros(polynomial, length), whole) ^ crc
    return whole


@cache
def _zeros(polynomial: int, length: int) -> Matrix:
    """What `length` zero bytes do to a register, by squaring."""
    if length == 0:
        return tuple(1 << bit for bit in range(32))
    if length == 1:
        operator: Matrix = (polynomial, *(1 << bit for bit in range(31)))  # one zero bit
        for _ in range(3):
            operator = _product(operator, operator)
        return operator
    half = _zeros(polynomial, length // 2)
    square = _product(half, half)
    return _product(_zeros(polynomial, 1), square) if length % 2 else square


def _product(first: Matrix, second: Matrix) -> Matrix:
    return tuple(_apply(first, column) for column in second)


def _apply(matrix: Matrix, register: int) -> int:
    value = 0
    while register:
        lowest = register & -register
        value ^= matrix[lowest.bit_length() - 1]
        register ^= lowest
    return value
