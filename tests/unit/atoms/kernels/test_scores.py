"""Scores and choices, compared with their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scimill.atoms.kernels import choice, scores

STREAM = np.random.default_rng(1)


def test_a_constant_per_element_is_no_error():
    counts = STREAM.integers(1, 9, (50, 2)).astype(float)
    true, noise = STREAM.normal(0, 10, 50), STREAM.normal(0, 0.01, 50)
    shifted = scores.energy_error(true + counts @ [1.6, -300.0] + noise, true, counts)
    assert np.abs(shifted).max() < 0.05
    few = scores.energy_error(true[:3] + 1.6 * counts[:3].sum(axis=1), true[:3], counts[:3])
    assert few == pytest.approx([1.6] * 3)


def test_missing_energies_stay_missing():
    true = STREAM.normal(0, 1, 20)
    true[4] = np.nan
    errors = scores.energy_error(np.zeros(20), true, np.full((20, 1), 4.0))
    assert np.flatnonzero(np.isnan(errors)).tolist() == [4]


def test_the_force_error_is_that_of_the_worst_atom():
    true = np.zeros((2, 3, 3))
    predicted = true.copy()
    predicted[1, 2] = [3, 0, 4]
    assert scores.force_error(predicted, true).tolist() == [0, 5]


def test_the_deviation_of_a_committee():
    forces = np.zeros((2, 1, 3, 3))
    forces[0, 0, 1], forces[1, 0, 1] = [3, 0, 4], [-3, 0, -4]
    assert scores.force_deviation(forces).tolist() == [5]
    assert scores.force_deviation(forces[:1]).tolist() == [0]


@pytest.mark.parametrize(("rule", "value", "expected"), [("absolute", 7, 7), ("percentile", 50, 3), ("mad", 2, 5)])
def test_limits(rule, value, expected):
    assert scores.limit(np.array([1, 2, 3, 4, 100, np.nan]), rule, value) == expected


@given(st.lists(st.integers(0, 5), max_size=30), st.integers(0, 30))
def test_the_highest_are_chosen_and_ties_go_to_the_first(values, number):
    array = np.array(values, dtype=float)
    chosen = choice.highest(array, number)
    expected = sorted(range(len(values)), key=lambda row: (-values[row], row))[:number]
    assert chosen.tolist() == sorted(expected)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.floats(0, 1))
def test_strata_get_their_shares(kinds, fraction):
    kinds = np.array(kinds)
    number = round(fraction * len(kinds))
    chosen = choice.stratified(np.arange(len(kinds), dtype=float), kinds, number)
    assert len(chosen) == number
    for kind in range(4):
        share = number * (kinds == kind).sum() / len(kinds)
        assert abs((kinds[chosen] == kind).sum() - share) < 1


def test_farthest_points_spread():
    line = np.arange(101.0)[:, None]
    chosen = choice.farthest(line, np.array([[0.0]]), 3)
    assert {50, 100} < set(chosen.tolist())
    assert chosen[0] in (25, 75) or chosen[1] in (25, 75)
    assert len(choice.farthest(line, np.zeros((0, 1)), 5)) == 5


def test_random_rows_are_among_the_candidates():
    hashes = STREAM.integers(0, 2**63, 50).astype(np.uint64)
    candidates = np.arange(0, 50, 3)
    chosen = choice.lowest_hashes(hashes, candidates, 5)
    assert set(chosen) <= set(candidates)
    assert hashes[chosen].max() < np.sort(hashes[candidates])[5]


def test_the_descriptor_is_blind_to_motion_and_images():
    positions = STREAM.uniform(0, 8, (1, 6, 3))
    cell, pbc, kind = np.eye(3)[None] * 8, np.ones((1, 3), np.uint8), np.ones(1)
    here = choice.descriptor(positions, cell, pbc, kind)
    moved = (positions[:, ::-1] + [1.0, 2.0, 3.0]) % 8
    assert np.allclose(here, choice.descriptor(moved, cell, pbc, kind))
    assert not np.allclose(here, choice.descriptor(positions * 1.1, cell, pbc, kind))
    assert not np.allclose(here, choice.descriptor(positions, cell, 0 * pbc, kind))
