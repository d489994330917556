"""A few dozen damages of each kind of artifact; damage.py tries five hundred."""

import os
import subprocess
import sys

import pytest

from faults import damage
from mpi import TESTS

FEW = ("--cases=40", "--repairs=6", "--seed=2")


@pytest.mark.parametrize("kind", damage.KINDS)
def test_every_damage_is_found_and_generated_bytes_are_restored(kind: str) -> None:
    paths = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, damage.__file__, "--kind", kind, *FEW]
    environment = {**os.environ, "PYTHONPATH": paths}
    result = subprocess.run(command, env=environment, check=False, text=True, capture_output=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.splitlines()[1].split()[-6:-4] == ["40", "40"], result.stdout
