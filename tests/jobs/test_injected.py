"""Chains whose submissions and links are killed, and whose scheduler fails; injected.py plays more of them."""

import pytest

from jobs.injected import FAULTS, WRONG, play_chain


@pytest.mark.parametrize("number", range(6))
def test_faults_neither_double_nor_lose_a_step(number: int) -> None:
    counts = play_chain(number, seed=7).counts
    assert sum(counts[name] for name in FAULTS) > 0
    assert {name: counts[name] for name in WRONG} == dict.fromkeys(WRONG, 0)
