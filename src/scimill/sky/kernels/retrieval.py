"""How well embeddings of two cameras predict each other and the sky: recall, neighbours, ridge regression, rank.

Recall of a pair among many separates a good pair of networks from two that agree on nothing: networks trained on
shuffled pairs have features of full rank too.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

RANK_OFFSET = 1e-7  # added to the shares of the singular values, as in the published formula
PENALTIES = np.logspace(-4, 4, 17)  # of ridge regression, per sample, for features of unit variance
CHUNK = 2048  # rows of a matrix of similarities at a time


class Recall(NamedTuple):
    """Share of queries whose own pair is among the k most similar of all candidates."""

    at_1: float
    at_5: float
    candidates: int

    def over_chance(self, k: int) -> float:
        """How many times that of a random order; k: 1 or 5."""
        return (self.at_1 if k == 1 else self.at_5) * self.candidates / min(k, self.candidates)


def unit_vectors(vectors: NDArray[Any]) -> Array:
    """Vectors of length 1, (n, d); zero ones stay as they are."""
    exact = vectors.astype(np.float64)
    scaled: Array = exact / np.maximum(np.linalg.norm(exact, axis=1, keepdims=True), np.finfo(float).tiny)
    return scaled


def recall(queries: NDArray[Any], candidates: NDArray[Any]) -> Recall:
    """Recall by the cosine of the angle; row i of the queries belongs to row i of the candidates, (n, d) each.

    Candidates that are exactly as similar as the right one count half of themselves before it, so that embeddings which
    are all the same have the recall of chance.
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
    """Mean label of the k most similar known features, weighted by their similarity; (m,)."""
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
    """Labels that ridge regression predicts, (m,); its penalty is that of the least generalised cross-validation."""
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
    """Share of the variance that is explained, R²; below 0 for predictions that are worse than the mean."""
    spread = float(((true - true.mean()) ** 2).sum())
    return 1 - float(((predicted - true) ** 2).sum()) / spread if spread else float("nan")


def spectrum(features: NDArray[Any]) -> Array:
    """Singular values of features as they are, (n, d), falling."""
    values: Array = np.linalg.svd(features.astype(np.float64), compute_uv=False)
    return values


def effective_rank(values: Array) -> float:
    """RankMe of singular values: exp of the entropy of their shares (Garrido et al. 2023, arXiv:2210.02885)."""
    shares = values / values.sum() + RANK_OFFSET
    return float(np.exp(-(shares * np.log(shares)).sum()))
