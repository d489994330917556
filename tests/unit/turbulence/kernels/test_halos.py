"""Halos of slabs: any slab gets the halos that it has as a part of the whole periodic field."""

import threading
from typing import Any

import numpy as np
import pytest

from scimill.turbulence.kernels.halos import Halos
from scimill.turbulence.kernels.slabs import SingleRankTeam

POINTS = 12


class Threads:
    """Ranks that are threads of this process, with the collective calls that halos need."""

    def __init__(self, rank: int, size: int, board: dict[Any, Any], barrier: threading.Barrier) -> None:
        self.rank, self.size, self._board, self._barrier = rank, size, board, barrier

    def gather_all(self, value: Any) -> list[Any]:
        self._board[self.rank] = value
        self._barrier.wait()
        values = [self._board[rank] for rank in range(self.size)]
        self._barrier.wait()
        return values

    def all_to_all(self, send: Any, send_counts: Any, receive: Any, receive_counts: Any) -> None:
        cuts = np.cumsum(send_counts)
        assert cuts[-1] == len(send)
        sent = self.gather_all(np.split(send, cuts[:-1]))
        parts = [parts[self.rank] for parts in sent]
        assert [len(part) for part in parts] == list(receive_counts)
        receive[:] = np.concatenate(parts)

    def pass_around(self, send: Any, receive: Any, step: int) -> None:
        raise NotImplementedError


def field() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(3, POINTS, POINTS + 2)).astype(np.float32)


@pytest.mark.parametrize("radius", [1, 4, 7])
@pytest.mark.parametrize("ends", [(12,), (8, 12), (4, 8, 12), (2, 4, 12), (4, 8, 12, 12), (0, 12), (1, 2, 3, 4, 8, 12)])
def test_a_slab_is_surrounded_as_a_part_of_the_whole_is(ends: tuple[int, ...], radius: int) -> None:
    whole, size = field(), len(ends)
    around = np.pad(whole, ((0, 0), (radius, radius), (radius, radius)), mode="wrap")
    found: dict[int, np.ndarray] = {}
    board, barrier = {}, threading.Barrier(size, timeout=300)

    def work(rank: int) -> None:
        rows = ((0, *ends)[rank], ends[rank])
        team = Threads(rank, size, board, barrier)
        found[rank] = Halos(rows, POINTS, radius, team).surround(whole[:, rows[0] : rows[1]])

    ranks = [threading.Thread(target=work, args=(rank,)) for rank in range(size)]
    for thread in ranks:
        thread.start()
    for thread in ranks:
        thread.join()
    for rank in range(size):
        start, stop = (0, *ends)[rank], ends[rank]
        if stop > start:
            np.testing.assert_array_equal(found[rank], around[:, start : stop + 2 * radius])


def test_one_rank_needs_no_other() -> None:
    whole = field()
    found = Halos((0, POINTS), POINTS, 3, SingleRankTeam()).surround(whole)
    np.testing.assert_array_equal(found, np.pad(whole, ((0, 0), (3, 3), (3, 3)), mode="wrap"))
