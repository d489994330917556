"""Fields with halos as wide as the receptive radius of a network, on any number of ranks."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scimill.turbulence.kernels.slabs import Team

Indices = NDArray[np.int64]


class Halos:
    """Surrounds slabs of a periodic box with the rows of their neighbours.

    Parameters
    ----------
    rows : first row of the slab of this rank and one past the last; the slab may be empty.
    points : rows of the box.
    radius : rows and columns to add on each side; may exceed the height of a slab.
    team : the ranks.

    """

    def __init__(self, rows: tuple[int, int], points: int, radius: int, team: Team) -> None:
        self._team, self._radius = team, radius
        spans = team.gather_all(rows)
        owner = np.concatenate([np.full(stop - start, rank) for rank, (start, stop) in enumerate(spans)])
        needed = [_neighbour_rows(start, stop, points, radius) for start, stop in spans]
        sent = [wanted[owner[wanted] == team.rank] - rows[0] for wanted in needed]
        self._sent, self._send_counts = np.concatenate(sent), np.array([len(part) for part in sent])
        sources = owner[needed[team.rank]]
        self._order = np.argsort(sources, kind="stable")
        self._receive_counts = np.bincount(sources, minlength=team.size)

    def surround(self, fields: NDArray[Any]) -> NDArray[Any]:
        """Return fields of own rows, (fields, rows, points), with halos on all sides. Collective."""
        r, row = self._radius, fields.shape[0] * fields.shape[2]
        send = np.ascontiguousarray(fields.transpose(1, 0, 2)[self._sent])
        received = np.empty((len(self._order), fields.shape[0], fields.shape[2]), fields.dtype)
        self._team.all_to_all(
            send.reshape(-1), self._send_counts * row, received.reshape(-1), self._receive_counts * row
        )
        around = np.empty_like(received)
        around[self._order] = received
        above, below = around[:r].transpose(1, 0, 2), around[r:].transpose(1, 0, 2)
        with_rows = np.concatenate([above, fields, below], axis=1)
        return np.pad(with_rows, ((0, 0), (0, 0), (r, r)), mode="wrap")


def _neighbour_rows(start: int, stop: int, points: int, radius: int) -> Indices:
    """Return the rows above and below a slab; none for an empty slab."""
    if start == stop:
        return np.empty(0, np.int64)
    return np.concatenate([np.arange(start - radius, start), np.arange(stop, stop + radius)]) % points
