"""A store made by one to four ranks on one or more hosts: the same bytes, and what hosts lost is found."""

import sys
from pathlib import Path

import pytest

from mpi import SERIAL_HDF5, Result, dataset_hashes, scimill
from parallel.store.filling import SNAPSHOTS, snapshot
from scimill.store.output import Output
from unit.store.stores import fill

HOSTS = ("a", "a,a", "a,b", "a,a,b", "a,b,a,b")


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    path = tmp_path_factory.mktemp("expected") / "store.h5"
    assert fill(Output(path), snapshot, layout=SNAPSHOTS)
    return dataset_hashes(path)


def run(path: Path, hosts: str, *flags: object) -> Result:
    program = (sys.executable, str(Path(__file__).with_name("filling.py")))
    return scimill(path, hosts, *flags, program=program, ranks=1 + hosts.count(","))


@pytest.mark.parametrize("hosts", HOSTS)
def test_any_ranks_make_the_same_bytes(hosts: str, expected: dict[str, str], tmp_path: Path) -> None:
    result = run(tmp_path / "store.h5", hosts)
    assert result.returncode == 0, result
    assert dataset_hashes(tmp_path / "store.h5") == expected
    assert [path.name for path in tmp_path.iterdir()] == ["store.h5"]


@pytest.mark.parametrize(("hosts", "block"), [("a,a", 0), ("a,b", 1), ("a,a,b", 2), ("a,b,a,b", 1)])
def test_what_is_lost_of_any_block_is_found(hosts: str, block: int, expected: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "store.h5"
    result = run(path, hosts, "--lose", block)
    assert (result.returncode, len(result.errors), result.tracebacks) == (4, 1, 0), result
    assert f"the storage does not hold what was written in block {block}\n" in result.stderr
    assert not path.exists()
    assert run(path, HOSTS[block], "--resume").returncode == 0
    assert dataset_hashes(path) == expected


@pytest.mark.needs("serial HDF5")
def test_many_ranks_need_a_parallel_hdf5(tmp_path: Path) -> None:
    program = (sys.executable, str(Path(__file__).with_name("filling.py")))
    result = scimill(tmp_path / "store.h5", "a,a", program=program, ranks=2, env=SERIAL_HDF5)
    assert (result.returncode, len(result.errors), result.tracebacks) == (2, 1, 0), result
    assert "there are 2 ranks, but this h5py was built without MPI" in result.stderr
    assert list(tmp_path.iterdir()) == []
