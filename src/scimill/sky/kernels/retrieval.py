"""Measures of embeddings: recall across cameras, probes of the sky, effective rank.

Only recall shows whether two networks agree: networks trained on shuffled pairs have features of full rank too.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

RANK_OFFSET = 1e-7  # added to the normalised singular values, as in the published formula
PENALTIES = np.logspace(-4, 4, 17)  # tried in ridge regression, per sample, for features of unit variance
CHUNK = 2048  # rows of the similarity matrix at a time


class Recall(NamedTuple):
    """Share of queries whose own pair is among the k most similar of all candidates."""

    at_1: float
    at_5: float
    candidates: int

    def over_chance(self, k: int) -> float:
        """Return the ratio to the recall of a random order; k: 1 or 5."""
        return (self.at_1 if k == 1 else self.at_5) * self.candidates / min(k, self.candidates)


def unit_vectors(vectors: NDArray[Any]) -> Array:
    """Scale vectors, (n, d), to length 1; zero vectors stay zero."""
    exact = vectors.astype(np.float64)
    scaled: Array = exact / np.maximum(np.linalg.norm(exact, axis=1, keepdims=True), np.finfo(float).tiny)
    return scaled


def recall(queries: NDArray[Any], candidates: NDArray[Any]) -> Recall:
    """Compute recall by cosine similarity; row i of the queries belongs to row i of the candidates, (n, d) each.

    Candidates that tie with the right one share its place equally, so identical embeddings have the recall of chance.
    """
    q, c = unit_vectors(queries), unit_vectors(candidates)
    hits = np.zeros(2)
    for first in range(0, len(q), CHUNK):
        similar = q[first : first + CHUNK] @ c.T
        right = similar[np.arange(len(similar)), first + np.arange(len(similar))][:, None]
        better = (similar > right).sum(1)
        ties = (similar == right).sum(1)
        hits += [np.clip((k - better) / ties, 0, 1).sum() for k in (1, 5)]
    at_1, at_5 = (float(share) for share in hits / len(q))
    return Recall(at_1, at_5, len(c))


def neighbours(known: NDArray[Any], labels: NDArray[Any], wanted: NDArray[Any], k: int = 20) -> Array:
    """Predict labels, (m,), as the mean over the k most similar known features, weighted by similarity."""
    k = min(k, len(known))
    base, target = unit_vectors(known), np.asarray(labels, dtype=float)
    found = []
    for first in range(0, len(wanted), CHUNK):
        similar = unit_vectors(wanted[first : first + CHUNK]) @ base.T
        nearest = np.argpartition(-similar, k - 1, axis=1)[:, :k]
        weights = np.exp((np.take_along_axis(similar, nearest, 1) - 1) / 0.1)
        found.append((weights * target[nearest]).sum(1) / weights.sum(1))
    return np.concatenate(found)


def ridge(known: NDArray[Any], labels: NDArray[Any], wanted: NDArray[Any]) -> Array:
    """Predict labels, (m,), by ridge regression; generalised cross-validation chooses the penalty."""
    x, y = known.astype(np.float64), np.asarray(labels, dtype=float)
    mean, deviation = x.mean(0), x.std(0)
    deviation[deviation == 0] = 1.0
    u, s, vt = np.linalg.svd((x - mean) / deviation, full_matrices=False)
    projected = u.T @ (y - y.mean())
    n = len(x)

    def error(penalty: float) -> float:
        shrink = s**2 / (s**2 + n * penalty)
        residual = (y - y.mean()) - u @ (shrink * projected)
        return float((residual**2).sum() / (1 - (shrink.sum() + 1) / n) ** 2) if shrink.sum() + 1 < n else np.inf

    penalty = min(PENALTIES, key=error)
    weights = vt.T @ (s / (s**2 + n * penalty) * projected)
    predicted: Array = ((wanted - mean) / deviation) @ weights + y.mean()
    return predicted


def r_squared(predicted: NDArray[Any], true: NDArray[Any]) -> float:
    """Compute R², the explained share of the variance; negative for predictions worse than the mean."""
    spread = float(((true - true.mean()) ** 2).sum())
    return 1 - float(((predicted - true) ** 2).sum()) / spread if spread else float("nan")


def spectrum(features: NDArray[Any]) -> Array:
    """Return the singular values of features, (n, d), not centred; in descending order."""
    values: Array = np.linalg.svd(features.astype(np.float64), compute_uv=False)
    return values


def effective_rank(values: Array) -> float:
    """Compute RankMe from singular values: exp of the entropy of their shares.

    Garrido et al. 2023, arXiv:2210.02885.
    """
    shares = values / values.sum() + RANK_OFFSET
    return float(np.exp(-(shares * np.log(shares)).sum()))
