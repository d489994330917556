"""Pairs of snapshots: none is missing, none is off by one."""

import numpy as np
import pytest

from scimill.turbulence.kernels.pairs import IrregularTimes, SnapshotPair, interval_of, pair_up

TIMES = np.repeat(np.arange(7) * 0.1, 2)  # two members, snapshot by snapshot
MEMBERS = np.tile([0, 1], 7)


def test_each_pair_begins_where_the_one_before_ends() -> None:
    pairs = pair_up(TIMES, MEMBERS, 2)
    assert pairs[:3] == [
        SnapshotPair(0, 0, 4, 0.2),
        SnapshotPair(0, 4, 8, 0.4),
        SnapshotPair(0, 8, 12, 0.6000000000000001),
    ]
    assert [(p.member, p.before, p.after) for p in pairs[3:]] == [(1, 1, 5), (1, 5, 9), (1, 9, 13)]


@pytest.mark.parametrize(("steps", "count"), [(1, 6), (2, 3), (3, 2), (4, 1), (6, 1), (7, 0)])
def test_every_step_that_fits_makes_a_pair(steps: int, count: int) -> None:
    pairs = pair_up(TIMES, MEMBERS, steps)
    assert len(pairs) == 2 * count
    assert all(np.isclose(TIMES[p.after] - TIMES[p.before], 0.1 * steps) for p in pairs)
    assert all(TIMES[p.after] == p.time and MEMBERS[p.before] == MEMBERS[p.after] == p.member for p in pairs)


def test_the_order_of_the_rows_does_not_matter() -> None:
    order = np.random.default_rng(1).permutation(len(TIMES))
    pairs = pair_up(TIMES[order], MEMBERS[order], 3)
    assert [(p.member, p.time) for p in pairs] == [(p.member, p.time) for p in pair_up(TIMES, MEMBERS, 3)]


def test_rounding_of_output_times_is_no_irregularity() -> None:
    assert interval_of(np.cumsum(np.full(1000, 0.026)), np.zeros(1000, dtype=int)) == pytest.approx(0.026)


@pytest.mark.parametrize(
    ("times", "message"),
    [([0, 0.1, 0.2, 0.4], "from 0.1 to 0.2"), ([0, 0, 0.1, 0.2], "from 0 to 0.1"), ([5], "no member has two")],
)
def test_irregular_times_are_reported(times: list[float], message: str) -> None:
    with pytest.raises(IrregularTimes, match=message):
        interval_of(np.array(times), np.zeros(len(times), dtype=int))
