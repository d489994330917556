"""Fingerprints: a hash of the rounded geometry, and seeded random ranks of rows by their ids."""

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 1e-4  # Å; a thermal displacement is some 0.05 Å, the last digit of an extxyz file 1e-8 Å
Words = NDArray[np.uint64]

_WEIGHTS: list[Words] = []


def _mixed(words: Words) -> Words:
    """Finalizer of splitmix64: every input bit changes half of the output bits (Steele et al., OOPSLA 2014)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _weights(count: int) -> Words:
    """Odd pseudo-random multipliers, the same in every process."""
    if not _WEIGHTS or len(_WEIGHTS[0]) < count:
        size = max(1024, 2 * count)
        _WEIGHTS[:] = [_mixed(np.arange(1, size + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)) | np.uint64(1)]
    return _WEIGHTS[0][:count]


def _hashed(numbers: NDArray[np.integer]) -> Words:
    """Multilinear hash of rows of integers (Lemire & Kaser, Comput. J. 57 (2014) 1624), shape (rows,)."""
    words = numbers.astype(np.int64, copy=False).view(np.uint64)
    return _mixed((words * _weights(words.shape[1])).sum(axis=1, dtype=np.uint64))


def geometry_hash(
    species: NDArray[np.integer], coordinates: NDArray[np.float64], cell: NDArray[np.float64], pbc: NDArray[np.uint8]
) -> Words:
    """Hash of species (atoms,), coordinates (rows, atoms, 3) and cell (rows, 3, 3) in Å, rounded, and pbc.

    Equal geometries with atoms in one order have equal hashes; two that differ share one by chance only. A structure
    that is moved or turned as a whole counts as another. Returns uint64, shape (rows,).
    """
    rows, atoms = coordinates.shape[:2]
    numbers = np.empty((rows, 4 * atoms + 12), dtype=np.int64)
    numbers[:, :atoms] = species
    numbers[:, atoms : 4 * atoms] = np.rint(coordinates.reshape(rows, -1) * (1 / TOLERANCE))
    numbers[:, 4 * atoms : -3] = np.rint(cell.reshape(rows, -1) * (1 / TOLERANCE))
    numbers[:, -3:] = pbc
    return _hashed(numbers)


def seeded_hash(values: Words, seed: int) -> Words:
    """Hash of words, shape (rows,), that another seed makes another; uniform over uint64."""
    return _mixed(_mixed(values + np.uint64(0x9E3779B97F4A7C15)) ^ _mixed(np.array([seed + 1], dtype=np.uint64)))


def id_hash(ids: NDArray[np.bytes_], seed: int) -> Words:
    """Seeded hash of ids of fixed length (a multiple of eight bytes), shape (rows,): a random rank of each row."""
    words = np.ascontiguousarray(ids).view(np.int64).reshape(len(ids), ids.itemsize // 8)
    return seeded_hash(_hashed(words), seed)


def draw_share(values: Words, fraction: float, seed: int) -> NDArray[np.bool_]:
    """Whether each row is in a random share of all rows; equal values are drawn together."""
    return seeded_hash(values, seed) / 2.0**64 < fraction
