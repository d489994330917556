"""Choose structures to train on: highest scores, random, most different, or some of each kind."""

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]

SHORTEST, LONGEST, SHELLS = 1.5, 6.0, 16  # Å, Å, number of Gaussians of the descriptor


def highest(scores: NDArray[np.float64], number: int) -> Rows:
    """Return the rows with the highest scores; ties go to the earlier row."""
    return np.sort(np.argsort(-scores, kind="stable")[:number])


def lowest_hashes(hashes: NDArray[np.uint64], candidates: Rows, number: int) -> Rows:
    """Choose random rows among candidates: those with the lowest hashes."""
    return np.sort(candidates[np.argsort(hashes[candidates], kind="stable")[:number]])


def stratified(scores: NDArray[np.float64], kinds: NDArray[np.int64], number: int) -> Rows:
    """Return the best-scored rows of each kind, in proportion to its size (largest remainders)."""
    counts = np.bincount(kinds)
    exact = number * counts / max(len(kinds), 1)
    shares = np.floor(exact).astype(int)
    shares[np.argsort(shares - exact, kind="stable")[: number - shares.sum()]] += 1
    chosen = [np.flatnonzero(kinds == kind)[highest(scores[kinds == kind], share)] for kind, share in enumerate(shares)]
    return np.sort(np.concatenate(chosen))


def farthest(features: NDArray[np.float64], known: NDArray[np.float64], number: int) -> Rows:
    """Choose rows one by one, each the farthest from all known and chosen ones.

    Source: Gonzalez, TCS 38 (1985) 293.

    Parameters
    ----------
    features : shape (rows, features).
    known : features of structures already trained on, shape (any, features); without any, the first choice is the row
        farthest from the mean.

    """
    distances = np.full(len(features), np.inf)
    for point in known if len(known) else [features.mean(axis=0)]:
        distances = np.minimum(distances, np.linalg.norm(features - point, axis=1))
    chosen: list[int] = []
    for _ in range(number):
        chosen.append(int(distances.argmax()))
        distances = np.minimum(distances, np.linalg.norm(features - features[chosen[-1]], axis=1))
        distances[chosen] = -1
    return np.sort(np.array(chosen, dtype=np.int64))


def descriptor(
    coordinates: NDArray[np.float64], cell: NDArray[np.float64], pbc: NDArray[np.uint8], fractions: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Compute smoothed neighbour counts at `SHELLS` distances, averaged over atoms, and the composition.

    Parameters
    ----------
    coordinates, cell, pbc : Å, shapes (rows, atoms, 3), (rows, 3, 3), (rows, 3); only nearest images are used.
    fractions : of each element, shape (elements,).

    Returns
    -------
    Shape (rows, SHELLS + elements).

    """
    centres = np.linspace(SHORTEST, LONGEST, SHELLS)
    width = centres[1] - centres[0]
    features = np.empty((len(coordinates), SHELLS + len(fractions)))
    features[:, SHELLS:] = fractions
    for row, positions in enumerate(coordinates):
        between = positions[:, None] - positions
        if pbc[row].any():
            # a huge box along non-periodic vectors, so that they have no images
            box = np.where(pbc[row][:, None] != 0, cell[row], np.eye(3) * 1e6)
            between -= np.rint(between @ np.linalg.inv(box)) @ box
        distances = np.linalg.norm(between, axis=2)[~np.eye(len(positions), dtype=bool)]
        shells = np.exp(-(((distances[:, None] - centres) / width) ** 2)).sum(axis=0)
        features[row, :SHELLS] = shells / len(positions)
    return features
