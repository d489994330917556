"""Mutual information of two images of one scene, and the box that maximises it.

Viola and Wells 1997 (doi:10.1023/A:1007958904918): images of different cameras need not look alike, only predict each
other. Values are replaced by their ranks, so the scale of a camera does not matter.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.optimize import minimize

RankImage = NDArray[np.float32]
Edges = tuple[float, float, float, float]

BINS = 16  # per side of the joint histogram
CENTRES = np.linspace(0.35, 0.65, 7)  # of the starting boxes, as shares of the image
WIDTHS = np.linspace(0.45, 0.95, 6)
ASPECTS = (1.15, 1.33)  # width / height of the starting boxes, in pixels
BEST = 6  # starting boxes that are refined
TOLERANCE = 1e-4  # as a share of the image


def rank_values(values: NDArray[Any]) -> RankImage:
    """Replace values by their ranks, scaled to 0 ≤ rank < `BINS`; equal values get their mean rank."""
    flat, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2
    scaled: RankImage = (middle / values.size * BINS).astype(np.float32)[inverse].reshape(values.shape)
    del flat
    return scaled


@njit(cache=True)
def information(image: RankImage, inner: RankImage, left: float, top: float, right: float, bottom: float) -> float:
    """Compute the mutual information, in nats, of `inner` and a box of `image`.

    Parameters
    ----------
    image, inner : ranks, (rows, columns) each.
    left, top, right, bottom : the box, as shares of `image`; inside it.
    """
    rows, columns = inner.shape
    height, width = image.shape
    joint = np.zeros((BINS, BINS))
    for i in range(rows):
        y = min(max((top + (bottom - top) * (i + 0.5) / rows) * height - 0.5, 0.0), height - 1.001)
        yi = int(y)
        v = y - yi
        for j in range(columns):
            x = min(max((left + (right - left) * (j + 0.5) / columns) * width - 0.5, 0.0), width - 1.001)
            xi = int(x)
            u = x - xi
            low = image[yi, xi] * (1 - u) + image[yi, xi + 1] * u
            high = image[yi + 1, xi] * (1 - u) + image[yi + 1, xi + 1] * u
            joint[min(int(low * (1 - v) + high * v), BINS - 1), min(int(inner[i, j]), BINS - 1)] += 1
    joint /= rows * columns
    first, second = joint.sum(axis=1), joint.sum(axis=0)
    total = 0.0
    for a in range(BINS):
        for b in range(BINS):
            if joint[a, b] > 0:
                total += joint[a, b] * np.log(joint[a, b] / (first[a] * second[b]))
    return total


def mean_information(pairs: Sequence[tuple[RankImage, RankImage]], edges: Edges) -> float:
    """Average `information` over pairs of images; 0 for a box outside the image."""
    left, top, right, bottom = edges
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        return 0.0
    return float(np.mean([information(image, inner, left, top, right, bottom) for image, inner in pairs]))


def find_box(pairs: Sequence[tuple[RankImage, RankImage]]) -> tuple[Edges, float]:
    """Find the box with the largest mean mutual information; return both.

    A grid of boxes is tried on every other pixel; the Nelder-Mead simplex method refines the best ones.

    Parameters
    ----------
    pairs : ranks of outer and inner images; all outer images have the same shape.
    """
    coarse = [(image, np.ascontiguousarray(inner[::2, ::2])) for image, inner in pairs]
    height, width = pairs[0][0].shape
    first = sorted(_grid(width / height), key=lambda edges: -mean_information(coarse, edges))[:BEST]
    refined = max((_refine(coarse, edges) for edges in first), key=lambda found: found[1])
    return _refine(pairs, refined[0])


def _grid(shape: float) -> list[Edges]:
    """Return the starting boxes; shape: width / height of the image."""
    found = []
    for w in WIDTHS:
        for aspect in ASPECTS:
            h = w * shape / aspect
            for x in CENTRES:
                found += [(x - w / 2, y - h / 2, x + w / 2, y + h / 2) for y in CENTRES]
    return [edges for edges in found if min(edges) >= 0 and max(edges) <= 1]


def _refine(pairs: Sequence[tuple[RankImage, RankImage]], edges: Edges) -> tuple[Edges, float]:
    start = np.array(edges)
    simplex = np.vstack([start, *(np.clip(start + 0.03 * step, 0, 1) for step in np.array(STEPS))])
    result = minimize(
        lambda x: -mean_information(pairs, (x[0], x[1], x[2], x[3])), start, method="Nelder-Mead",
        options={"initial_simplex": simplex, "xatol": TOLERANCE, "fatol": 1e-6, "maxiter": 400},
    )  # fmt: skip
    left, top, right, bottom = (float(edge) for edge in result.x)
    return (left, top, right, bottom), -float(result.fun)


STEPS = ((1, 0, 1, 0), (0, 1, 0, 1), (-1, -1, 1, 1), (-1, 1, 1, -1))
"""Changes of a box that span the first simplex: right, down, larger, wider."""
