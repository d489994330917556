"""Follow traces: uninterrupted pieces of a trace, and what a network or integrator makes of them step by step."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scimill.droplets.learning.formulas import MODEL_INPUTS
from scimill.errors import InputError
from scimill.store.reader import Reader
from scimill.store.verify import block_damage

Array = NDArray[np.float64]
Step = Callable[[Array], Array]
"""Computes radius (m) and temperature (K), (n, 2), from inputs (n, 7), columns as in MODEL_INPUTS."""

MOST_STEPS = 20_000_000  # steps in memory, 2 GB


class TracePieces(NamedTuple):
    """Uninterrupted pieces of traces, one after the other."""

    inputs: Array
    """(n, 7), columns as in MODEL_INPUTS: state, air and length of each step"""
    after: Array
    """(n, 2), radius (m) and temperature (K) after each step"""
    start: NDArray[np.int64]
    """first step of each piece"""
    length: NDArray[np.int64]
    """number of its steps"""
    particle: NDArray[np.int64]
    time: Array
    """time of the simulation at the start of each piece, s"""
    available: int
    """number of pieces in the store"""

    def elapsed(self) -> Array:
        """Return the time since the start of its piece at the end of each step, s."""
        total: Array = np.cumsum(self.inputs[:, -1])
        before: Array = np.repeat(total[self.start] - self.inputs[self.start, -1], self.length)
        return total - before

    def first_states(self) -> Array:
        """Return radius and temperature at the start of the piece of each step, (n, 2)."""
        return np.repeat(self.inputs[self.start, :2], self.length, axis=0)


def read_pieces(reader: Reader, most: int) -> TracePieces:
    """Read at most `most` pieces of a store of traces, evenly distributed over it.

    Raises
    ------
    InputError : a block is damaged.
    """
    begins = [np.flatnonzero(reader.rows(block, "begins")) for block in range(reader.layout.blocks)]
    starts = np.concatenate([rows + reader.layout.span(block).start for block, rows in enumerate(begins)])
    lengths = np.diff(np.append(starts, reader.layout.rows))
    chosen = _choose(lengths, most)
    offsets = np.concatenate([np.arange(lengths[piece]) for piece in chosen])
    first = np.cumsum(np.append(0, lengths[chosen]))[:-1]
    columns = _read_rows(reader, np.repeat(starts[chosen], lengths[chosen]) + offsets)
    inputs = np.stack([columns[name] for name in MODEL_INPUTS], 1).astype(np.float64)
    after = np.stack([columns["radius"], columns["temperature"]], 1).astype(np.float64)
    particle, time = columns["particle"][first].astype(np.int64), columns["start_time"][first].astype(np.float64)
    return TracePieces(inputs, after, first, lengths[chosen], particle, time, len(starts))


def _choose(lengths: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Choose pieces, evenly spaced, with at most `MOST_STEPS` steps in all, but at least one piece."""
    count = min(most, len(lengths))
    while True:
        chosen = np.unique(np.linspace(0, len(lengths) - 1, count).astype(np.int64))
        if count == 1 or lengths[chosen].sum() <= MOST_STEPS:
            return chosen
        count //= 2


def _read_rows(reader: Reader, rows: NDArray[np.int64]) -> dict[str, NDArray[np.generic]]:
    """Read rows, in ascending order, of the fields that `TracePieces` needs."""
    names = (*MODEL_INPUTS, "radius", "temperature", "particle", "start_time")
    parts: dict[str, list[NDArray[np.generic]]] = {name: [] for name in names}
    for block in np.unique(rows // reader.layout.block_rows).tolist():
        if damage := block_damage(reader, block):
            raise InputError(f"the store is damaged: block {block}: {damage}", where=str(reader.path))
        span = reader.layout.span(block)
        mine = rows[np.searchsorted(rows, span.start) : np.searchsorted(rows, span.stop)] - span.start
        for name, part in parts.items():
            part.append(reader.rows(block, name)[mine])
    return {name: np.concatenate(part) for name, part in parts.items()}


def follow(step: Step, pieces: TracePieces) -> Array:
    """Return radius and temperature after each step, (n, 2), each piece computed from its first state alone.

    The air, the solute and the lengths of the steps are those of the trace.
    """
    order = np.argsort(-pieces.length, kind="stable")
    start, length = pieces.start[order], pieces.length[order]
    state, found = pieces.inputs[start, :2], np.empty_like(pieces.after)
    for number in range(int(length[0])):
        active = int(np.searchsorted(-length, -number))  # pieces longer than this many steps come first
        rows = start[:active] + number
        state = step(np.concatenate([state[:active], pieces.inputs[rows, 2:]], axis=1))
        found[rows] = state
    return found


def deviations(found: Array, pieces: TracePieces) -> Array:
    """Return the deviations from the trace, (n, 2): in log10 of the radius, and in K; inf where `found` is unusable."""
    with np.errstate(all="ignore"):
        result = np.stack([np.log10(found[:, 0] / pieces.after[:, 0]), found[:, 1] - pieces.after[:, 1]], 1)
    result[~np.isfinite(result).all(axis=1)] = np.inf
    return result


def change_points(
    deviation: Array, pieces: TracePieces, tolerance: tuple[float, float], threshold: tuple[float, float]
) -> NDArray[np.bool_]:
    """Find where deviations begin to add up, by the CUSUM method (Page 1954, Biometrika 41).

    Sums of the deviations beyond a tolerance, upwards and downwards, begin at 0 with each piece and never fall below 0.
    A change point is where one of them exceeds the threshold for the first time, or again.

    Parameters
    ----------
    deviation, pieces : (n, 2), in log10 of the radius and in K, and their pieces.
    tolerance, threshold : of both, in the same units.

    Returns
    -------
    (n, 2), True at change points.
    """
    order = np.argsort(-pieces.length, kind="stable")
    start, length = pieces.start[order], pieces.length[order]
    found = np.zeros(deviation.shape, dtype=bool)
    sums = np.zeros((2, len(start), 2))  # upwards and downwards
    for number in range(int(length[0])):
        active = int(np.searchsorted(-length, -number))
        rows, before = start[:active] + number, sums[:, :active]
        signed = np.stack([deviation[rows], -deviation[rows]])
        sums = np.maximum(before + signed - np.asarray(tolerance), 0)
        found[rows] = ((sums > threshold) & (before <= threshold)).any(axis=0)
    return found
