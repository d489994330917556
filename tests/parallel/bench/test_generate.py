"""Generated datasets have the same bytes on any number of ranks, and with or without compiled kernels."""

import sys
from pathlib import Path

import pytest

from bench_data import hashes
from mpi import scimill
from parallel.bench import benching

PROGRAM = (sys.executable, benching.__file__)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Hashes of the datasets that one rank makes."""
    folder = tmp_path_factory.mktemp("alone")
    result = scimill(folder, program=PROGRAM)
    assert result.returncode == 0, result
    return hashes(folder)


@pytest.mark.parametrize("ranks", [2, 3])
def test_the_same_bytes_on_many_ranks(alone: dict[str, str], tmp_path: Path, ranks: int) -> None:
    result = scimill(tmp_path, ranks=ranks, program=PROGRAM)
    assert result.returncode == 0, result
    assert hashes(tmp_path) == alone
    assert len({name.split("/")[0].removesuffix(".h5") for name in alone}) == len(benching.CASES)


def test_the_same_bytes_without_compiled_kernels() -> None:
    program = (sys.executable, "-W", "ignore", benching.__file__)  # numpy warns about integer overflow
    result = scimill("slices", env={"NUMBA_DISABLE_JIT": "1"}, program=program, timeout=240)
    assert result.returncode == 0, result
    assert result.stdout.splitlines() == benching.slices()
