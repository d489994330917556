"""A few dozen damages of each kind of artifact; damage.py tries five hundred."""

from pathlib import Path

import pytest

from faults import damage

CASES, REPAIRS, SEED = 40, 6, 2


@pytest.mark.parametrize("kind", damage.KINDS)
def test_every_damage_is_found_and_generated_bytes_are_restored(kind: str, tmp_path: Path) -> None:
    repairs = REPAIRS if kind in damage.GENERATED else 0
    result = damage.try_cases(kind, list(range(CASES)), repairs, SEED, tmp_path)
    assert result.missed == []
    assert result.wrong == []
    assert result.found == CASES
    assert result.restored + result.refused == repairs
