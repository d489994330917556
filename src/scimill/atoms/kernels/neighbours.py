"""Neighbours within a distance, in periodic and non-periodic cells."""

import itertools

import numpy as np
from numpy.typing import NDArray

Neighbours = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]


def neighbours(
    positions: NDArray[np.float64], cell: NDArray[np.float64], pbc: NDArray[np.integer], cutoff: float
) -> Neighbours:
    """Find all pairs of atoms closer than the cutoff, including images; each pair occurs both ways.

    Parameters
    ----------
    positions, cell, pbc : Å, shapes (atoms, 3), (3, 3), (3,).
    cutoff : Å.

    Returns
    -------
    Atom i and atom j of each pair, and the vector (Å) to add to the position of j; sorted by i.

    """
    repeats = images(cell, pbc, cutoff + _spread(positions, cell, pbc))
    offsets = np.array(list(itertools.product(*(range(-n, n + 1) for n in repeats)))) @ cell
    between = positions[None, :, None] + offsets - positions[:, None, None]
    near = (between**2).sum(axis=3) < cutoff**2
    middle = int(np.flatnonzero(~offsets.any(axis=1))[0])
    near[np.arange(len(positions)), np.arange(len(positions)), middle] = False
    first, second, image = np.nonzero(near)
    return first, second, offsets[image]


def images(cell: NDArray[np.float64], pbc: NDArray[np.integer], reach: float) -> list[int]:
    """Return how often to repeat a cell on either side of each vector, for pairs within a distance (Å)."""
    return [
        int(np.ceil(reach / height)) if periodic else 0
        for height, periodic in zip(_heights(cell, pbc), pbc, strict=True)
    ]


def _heights(cell: NDArray[np.float64], pbc: NDArray[np.integer]) -> NDArray[np.float64]:
    """Compute the distances between opposite faces, Å; 1 along vectors that are not periodic."""
    box = np.where(np.asarray(pbc)[:, None] != 0, cell, np.eye(3))
    heights: NDArray[np.float64] = 1 / np.linalg.norm(np.linalg.inv(box), axis=0)
    return heights


def _spread(positions: NDArray[np.float64], cell: NDArray[np.float64], pbc: NDArray[np.integer]) -> float:
    """Return how far atoms lie apart; atoms outside of the cell need more of its images."""
    return float(np.linalg.norm(np.ptp(positions, axis=0))) if np.any(pbc) else 0.0


def padded(found: Neighbours, atoms: int, width: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Arrange neighbours by atom: indices j, -1 for none, (atoms, width), and vectors, (atoms, width, 3)."""
    first, second, offsets = found
    indices, vectors = np.full((atoms, width), -1, dtype=np.int64), np.zeros((atoms, width, 3))
    place = np.arange(len(first)) - np.searchsorted(first, first)
    indices[first, place], vectors[first, place] = second, offsets
    return indices, vectors


def max_neighbours(found: Neighbours) -> int:
    """Return the largest number of neighbours of an atom."""
    return int(np.bincount(found[0]).max(initial=0))
