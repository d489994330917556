"""Fingerprints: a hash of the rounded geometry, and seeded hashes of ids, which order rows randomly."""

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 1e-4  # Å; thermal displacements are about 0.05 Å, the last digit of an extxyz file is 1e-8 Å
Words = NDArray[np.uint64]

_WEIGHTS: list[Words] = []


def _mix(words: Words) -> Words:
    """Mix the bits of words with the finalizer of splitmix64 (Steele et al., OOPSLA 2014)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _weights(count: int) -> Words:
    """Return odd pseudo-random multipliers, the same in every process."""
    if not _WEIGHTS or len(_WEIGHTS[0]) < count:
        size = max(1024, 2 * count)
        _WEIGHTS[:] = [_mix(np.arange(1, size + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)) | np.uint64(1)]
    return _WEIGHTS[0][:count]


def _hash_rows(numbers: NDArray[np.integer]) -> Words:
    """Hash rows of integers, shape (rows,): multilinear (Lemire & Kaser, Comput. J. 57 (2014) 1624)."""
    words = numbers.astype(np.int64, copy=False).view(np.uint64)
    return _mix((words * _weights(words.shape[1])).sum(axis=1, dtype=np.uint64))


def geometry_hash(
    species: NDArray[np.integer], coordinates: NDArray[np.float64], cell: NDArray[np.float64], pbc: NDArray[np.uint8]
) -> Words:
    """Hash species (atoms,), rounded coordinates (rows, atoms, 3) and cell (rows, 3, 3) in Å, and pbc.

    Equal geometries with atoms in the same order have equal hashes; different ones collide only by chance. A structure
    that is translated or rotated as a whole counts as different. Returns uint64, shape (rows,).
    """
    rows, atoms = coordinates.shape[:2]
    numbers = np.empty((rows, 4 * atoms + 12), dtype=np.int64)
    numbers[:, :atoms] = species
    numbers[:, atoms : 4 * atoms] = np.rint(coordinates.reshape(rows, -1) * (1 / TOLERANCE))
    numbers[:, 4 * atoms : -3] = np.rint(cell.reshape(rows, -1) * (1 / TOLERANCE))
    numbers[:, -3:] = pbc
    return _hash_rows(numbers)


def seeded_hash(values: Words, seed: int) -> Words:
    """Hash words with a seed, shape (rows,); uniform over uint64."""
    return _mix(_mix(values + np.uint64(0x9E3779B97F4A7C15)) ^ _mix(np.array([seed + 1], dtype=np.uint64)))


def id_hash(ids: NDArray[np.bytes_], seed: int) -> Words:
    """Hash ids with a seed, shape (rows,), to order rows randomly; ids have a multiple of eight bytes."""
    words = np.ascontiguousarray(ids).view(np.int64).reshape(len(ids), ids.itemsize // 8)
    return seeded_hash(_hash_rows(words), seed)


def draw_share(values: Words, fraction: float, seed: int) -> NDArray[np.bool_]:
    """Draw a random share of rows, as a mask; equal values are drawn together."""
    return seeded_hash(values, seed) / 2.0**64 < fraction
