"""Checksums of pieces, combined without their bytes."""

import zlib

import numpy as np
import pytest
from crc32c import crc32c

from scimill.store import checksums
from scimill.store.checksums import CRC32, join_all_checksums, join_checksums


@pytest.mark.parametrize("length", [0, 1, 7, 64, 1000, 100_003])
def test_checksums_are_those_of_other_libraries(length: int) -> None:
    first, second = (np.random.default_rng(length + i).bytes(length) for i in range(2))
    assert checksums.crc32c(first) == crc32c(first)
    assert checksums.crc32c(memoryview(second), checksums.crc32c(first)) == crc32c(first + second)
    assert checksums.crc32(memoryview(second), checksums.crc32(first)) == zlib.crc32(first + second)


@pytest.mark.parametrize("lengths", [(0, 0), (0, 5), (5, 0), (1, 1), (8192, 3), (3, 100_003), (65_536, 65_536)])
def test_the_checksum_of_two_pieces_follows_from_theirs(lengths: tuple[int, int]) -> None:
    first, second = (np.random.default_rng(length).bytes(length) for length in lengths)
    assert join_checksums(crc32c(first), crc32c(second), len(second)) == crc32c(first + second)


def test_many_pieces_are_joined_in_turn() -> None:
    pieces = [np.random.default_rng(seed).bytes(7 * seed + 1) for seed in range(20)]
    checksum = 0
    for piece in pieces:
        checksum = join_checksums(checksum, crc32c(piece), len(piece))
    assert checksum == crc32c(b"".join(pieces))
    assert join_all_checksums((crc32c(piece), len(piece)) for piece in pieces) == checksum


def test_checksums_of_zip_files_are_joined_too() -> None:
    pieces = [np.random.default_rng(seed).bytes(length) for seed, length in enumerate((0, 5, 70_001, 1, 8192))]
    assert join_all_checksums(((zlib.crc32(piece), len(piece)) for piece in pieces), CRC32) == zlib.crc32(
        b"".join(pieces)
    )
