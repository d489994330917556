"""Similarity of two I/O traces: a number in [0, 1] and its parts. docs/bench.md defines our metric.

Shares are compared by the Jensen-Shannon divergence in bits (Lin 1991, doi:10.1109/18.61115), which is in [0, 1].
Quantities are compared by the Wasserstein distance of their logarithms, which, unlike a divergence of histograms,
tells a small shift from a large one. A part is 0 if its distance reaches the part's scale.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

QUANTILES = 2048  # points at which two distributions are compared
SIZE_SCALE = 5.0  # octaves: sizes that differ 32-fold have nothing in common
TIME_SCALE = 10.5  # octaves: times that differ 1450-fold, as memory's and a disk's do, have nothing in common
UNKNOWN = -1
LOCALITIES = ("beginning", "sequential", "forward", "backward")
TRANSFERS = ("read", "write", "block_read", "block_write")


@dataclass(frozen=True)
class Trace:
    """Operations in the order of their start; `UNKNOWN` for values that the trace does not record.

    Attributes
    ----------
    names : kinds of operation, such as "read".
    kind : index into `names`, shape (n,).
    start, end : ns, shape (n,).
    offset, size : bytes, shape (n,).
    file : number of the file, shape (n,).

    """

    names: tuple[str, ...]
    kind: Integers
    start: Integers
    end: Integers
    offset: Integers
    size: Integers
    file: Integers

    def __len__(self) -> int:
        return len(self.kind)

    def counts(self) -> dict[str, int]:
        """Return the number of operations of each kind that occurs."""
        counts = np.bincount(self.kind, minlength=len(self.names))
        return {name: int(count) for name, count in zip(self.names, counts, strict=True) if count}

    def transfers(self) -> NDArray[np.bool_]:
        """Return which operations transfer a known number of bytes; shape (n,)."""
        moves = np.array([name in TRANSFERS for name in self.names])
        return moves[self.kind] & (self.size >= 0)

    def sizes(self) -> dict[str, Integers]:
        """Return the bytes of each transfer, by kind of operation."""
        moves = self.transfers()
        chosen = {name: self.size[moves & (self.kind == code)] for code, name in enumerate(self.names)}
        return {name: sizes for name, sizes in chosen.items() if sizes.size}

    def gaps(self) -> Integers:
        """Return the nanoseconds from the start of each operation to the start of the next."""
        return np.diff(self.start)

    def durations(self) -> dict[str, Integers]:
        """Return the nanoseconds that each operation took, by kind of operation."""
        took = self.end - self.start
        return {name: took[self.kind == code] for code, name in enumerate(self.names) if (self.kind == code).any()}


@dataclass(frozen=True)
class SimilarityPart:
    """One part of a similarity: its details and its value in [0, 1], None if one side does not record it."""

    value: float | None
    details: Mapping[str, float] = field(default_factory=dict)


def divergence(a: Mapping[str, float], b: Mapping[str, float]) -> float:
    """Return the Jensen-Shannon divergence of counts by name, in bits: 0 if equal, 1 if disjoint."""
    names = sorted(a.keys() | b.keys())
    p, q = (np.array([counts.get(name, 0) for name in names], dtype=float) for counts in (a, b))
    p, q = p / p.sum(), q / q.sum()
    middle = (p + q) / 2
    halves = [share[share > 0] @ np.log2(share[share > 0] / middle[share > 0]) for share in (p, q)]
    return float(np.clip(sum(halves) / 2, 0.0, 1.0))


def quantiles(values: NDArray[np.generic]) -> Floats:
    """Return the values at `QUANTILES` evenly spaced quantiles of a sample."""
    places = (np.arange(QUANTILES) + 0.5) / QUANTILES * len(values)
    ordered: Floats = np.sort(values)[places.astype(np.int64)].astype(float)
    return ordered


def octave_distance(a: NDArray[np.generic], b: NDArray[np.generic]) -> float:
    """Return the Wasserstein distance of the base-2 logarithms of two samples; values below 1 count as 1."""
    p, q = (np.log2(np.maximum(quantiles(values), 1.0)) for values in (a, b))
    return float(np.abs(p - q).mean())


def closeness(a: NDArray[np.generic], b: NDArray[np.generic], scale: float) -> float:
    """Return 1 for equal distributions and 0 for a distance of `scale` octaves or more."""
    return 1.0 - min(1.0, octave_distance(a, b) / scale)


def largest_difference(a: NDArray[np.generic], b: NDArray[np.generic]) -> float:
    """Return the Kolmogorov-Smirnov distance of two samples; NaN counts as the lowest value."""
    p, q = (np.sort(np.where(np.isnan(values), -np.inf, values)) for values in (a, b))
    everything = np.concatenate([p, q])
    shares = [np.searchsorted(values, everything, side="right") / len(values) for values in (p, q)]
    return float(np.abs(shares[0] - shares[1]).max())


def compare_by_kind(a: Mapping[str, Integers], b: Mapping[str, Integers], scale: float) -> SimilarityPart:
    """Compare quantities by kind, weighted by mean shares; a kind that only one side has counts 0."""
    if not any(map(len, a.values())) or not any(map(len, b.values())):
        return SimilarityPart(None)
    totals = [sum(len(values) for values in side.values()) for side in (a, b)]
    details = {
        name: closeness(a[name], b[name], scale) if name in a and name in b else 0.0
        for name in sorted(a.keys() | b.keys())
    }
    weights = [
        (len(a.get(name, ())) / totals[0] + len(b.get(name, ())) / totals[1]) / 2 for name in details
    ]  # they sum to 1 up to rounding
    value = sum(w * v for w, v in zip(weights, details.values(), strict=True)) / sum(weights)
    return SimilarityPart(min(1.0, value), details)


def localities(trace: Trace) -> dict[str, int]:
    """Count where transfers begin, relative to the previous transfer in the same file."""
    known = trace.transfers() & (trace.offset >= 0) & (trace.file >= 0)
    if not known.any():
        return {}
    order = np.flatnonzero(known)[np.argsort(trace.file[known], kind="stable")]
    file, offset = trace.file[order], trace.offset[order]
    expected = np.zeros_like(offset)
    expected[1:] = (offset + trace.size[order])[:-1]
    at_beginning = offset == 0
    at_beginning[0] = True
    at_beginning[1:] |= file[1:] != file[:-1]
    codes = np.where(offset == expected, 1, np.where(offset > expected, 2, 3))
    codes[at_beginning] = 0
    return dict(zip(LOCALITIES, np.bincount(codes, minlength=4).tolist(), strict=True))


def extents(trace: Trace) -> Integers:
    """Return the bytes between the first and last byte accessed in each file, however often accessed."""
    known = trace.transfers() & (trace.offset >= 0) & (trace.file >= 0)
    if not known.any():
        return np.empty(0, dtype=np.int64)
    order = np.flatnonzero(known)[np.argsort(trace.file[known], kind="stable")]
    starts = np.flatnonzero(np.diff(trace.file[order], prepend=UNKNOWN))
    ends = np.maximum.reduceat((trace.offset + trace.size)[order], starts)
    extent: Integers = ends - np.minimum.reduceat(trace.offset[order], starts)
    return extent


def compare_traces(a: Trace, b: Trace, time: bool) -> dict[str, SimilarityPart]:
    """Compare two non-empty traces part by part.

    Parameters
    ----------
    a, b : the traces.
    time : whether to compare gaps and durations.

    """
    places = [localities(trace) for trace in (a, b)]
    parts = {
        "mix": SimilarityPart(1.0 - divergence(a.counts(), b.counts())),
        "size": compare_by_kind(a.sizes(), b.sizes(), SIZE_SCALE),
        "locality": SimilarityPart(1.0 - divergence(*places) if all(places) else None),
        "files": compare_by_kind({"extent": extents(a)}, {"extent": extents(b)}, SIZE_SCALE),
    }
    if time:
        parts["gaps"] = compare_by_kind({"gap": a.gaps()}, {"gap": b.gaps()}, TIME_SCALE)
        parts["durations"] = compare_by_kind(a.durations(), b.durations(), TIME_SCALE)
    return parts


def overall_similarity(parts: Sequence[SimilarityPart]) -> float:
    """Return the geometric mean of the parts that both sides record; a single part of 0 makes it 0."""
    known = [part.value for part in parts if part.value is not None]
    return 0.0 if min(known) <= 0 else math.exp(sum(math.log(value) for value in known) / len(known))
