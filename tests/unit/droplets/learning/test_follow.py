"""Following traces and finding change points, compared with loops over single steps."""

import numpy as np
import pytest

from scimill.droplets.learning.follow import TracePieces, _choose, change_points, deviations, follow

LENGTHS = (3, 1, 5, 3)


def make_pieces(lengths: tuple[int, ...] = LENGTHS, seed: int = 1) -> TracePieces:
    random, length = np.random.default_rng(seed), np.array(lengths)
    inputs = random.uniform(0.5, 1.5, (length.sum(), 7))
    start = np.cumsum([0, *lengths])[:-1]
    after = random.uniform(0.5, 1.5, (length.sum(), 2))
    return TracePieces(inputs, after, start, length, np.arange(len(length)), np.zeros(len(length)), len(length))


def step(inputs: np.ndarray) -> np.ndarray:
    """Some function of state, air and time that is not linear."""
    return np.stack([inputs[:, 0] + inputs[:, 4] * np.sin(inputs[:, 1]), inputs[:, 1] * inputs[:, 6] + inputs[:, 2]], 1)


def test_each_piece_is_followed_from_its_first_state() -> None:
    pieces = make_pieces()
    expected = []
    for start, length in zip(pieces.start, pieces.length, strict=True):
        state = pieces.inputs[start, :2]
        for row in range(start, start + length):
            state = step(np.concatenate([state, pieces.inputs[row, 2:]])[None])[0]
            expected.append(state)
    np.testing.assert_array_equal(follow(step, pieces), expected)


def test_elapsed_time_begins_anew_with_each_piece() -> None:
    pieces = make_pieces()
    expected = np.concatenate([
        np.cumsum(pieces.inputs[start : start + length, 6])
        for start, length in zip(pieces.start, pieces.length, strict=True)
    ])  # fmt: skip
    np.testing.assert_allclose(pieces.elapsed(), expected, rtol=1e-12)
    np.testing.assert_array_equal(pieces.first_states()[[0, 2, 3, 8]], pieces.inputs[[0, 0, 3, 4], :2])


def test_deviations_are_infinite_where_a_state_is_unusable() -> None:
    pieces = make_pieces((4,))
    found = pieces.after * [10, 1] + [0, 2]
    found[1, 0], found[2, 1] = -1, np.nan
    np.testing.assert_allclose(deviations(found, pieces), [[1, 2], [np.inf] * 2, [np.inf] * 2, [1, 2]], atol=1e-12)


def test_change_points_equal_those_of_a_loop() -> None:
    pieces = make_pieces((40, 7, 90, 1))
    deviation = np.random.default_rng(2).normal(0.003, 0.02, (138, 2)) * [1, 8]
    deviation[100] = np.inf
    tolerance, threshold = (0.005, 0.05), (0.02, 0.1)
    expected = np.zeros(deviation.shape, dtype=bool)
    for start, length in zip(pieces.start, pieces.length, strict=True):
        for column in range(2):
            for sign in (1, -1):
                total, was_above = 0.0, False
                for row in range(start, start + length):
                    total = max(total + sign * deviation[row, column] - tolerance[column], 0)
                    expected[row, column] |= total > threshold[column] and not was_above
                    was_above = total > threshold[column]
    assert expected.sum(axis=0).min() > 3
    np.testing.assert_array_equal(change_points(deviation, pieces, tolerance, threshold), expected)


@pytest.mark.parametrize(("value", "first"), [(0.005, None), (0.006, 20), (0.015, 2), (0.03, 0), (-0.015, 2)])
def test_a_constant_deviation_has_one_change_point(value: float, first: int | None) -> None:
    """It adds value − 0.005 per step, and exceeds 0.02 after 0.02/(value − 0.005) steps."""
    pieces = make_pieces((30,))
    found = change_points(np.full((30, 2), [value, 0]), pieces, (0.005, 0.05), (0.0201, 0.1))
    assert np.flatnonzero(found[:, 0]).tolist() == ([] if first is None else [first])
    assert not found[:, 1].any()


def test_chosen_pieces_are_spread_evenly_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _choose(np.full(101, 5), 5).tolist() == [0, 25, 50, 75, 100]
    assert _choose(np.full(3, 5), 10).tolist() == [0, 1, 2]
    monkeypatch.setattr("scimill.droplets.learning.follow.MOST_STEPS", 12)
    assert len(_choose(np.full(101, 5), 8)) == 2
    assert _choose(np.array([500, 500]), 8).tolist() == [0]
