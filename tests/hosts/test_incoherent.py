"""Ranks whose caches overwrite each other's bytes: no such file gets its final name."""

from pathlib import Path

import pytest

from hosts.incoherent import mounted
from hosts.runs import GENERATE, REFUSED, SIZE
from mpi import SCIMILL, dataset_hashes, scimill, start

pytestmark = pytest.mark.needs("mounting", "FUSE")


@pytest.fixture
def incoherent(tmp_path):
    with mounted(tmp_path / "mounts") as parts:
        yield parts


def generate(incoherent, ranks):
    program = (str(incoherent.wrapper), *SCIMILL)
    with start(*GENERATE, incoherent.shared / "droplets.h5", *SIZE, ranks=ranks, program=program) as job:
        return job.wait()


def test_one_rank_loses_nothing(incoherent, reference):
    result = generate(incoherent, ranks=1)
    assert result.returncode == 0, result
    path = incoherent.storage / "droplets.h5"
    assert scimill("verify", path).returncode == 0
    assert dataset_hashes(path) == reference


def test_a_file_whose_blocks_were_lost_is_not_published(incoherent, reference):
    result = generate(incoherent, ranks=2)
    assert result.returncode == REFUSED, result
    assert result.errors and not result.tracebacks, result
    names = sorted(path.name for path in Path(incoherent.storage).iterdir())
    assert "droplets.h5" not in names
    assert "droplets.h5.part" in names
    assert "the storage does not hold what was written in blocks" in result.stderr
    resumed = scimill(*GENERATE, incoherent.storage / "droplets.h5", *SIZE, "--resume")
    assert resumed.returncode == 0, resumed
    assert dataset_hashes(incoherent.storage / "droplets.h5") == reference
