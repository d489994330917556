"""Hosts whose caches overwrite each other's bytes: no such file gets its final name."""

import pytest

from hosts.runs import REFUSED, Run

pytestmark = pytest.mark.needs("rooms")


@pytest.fixture
def run(rooms, tmp_path):
    return Run(rooms, "write-back", tmp_path)


def test_one_rank_loses_nothing(run, reference):
    with run.start_on(run.hosts.h1) as job:
        result = job.wait()
    assert result.returncode == 0, result
    assert run.find_fault(reference) == ""


def test_a_file_whose_blocks_were_lost_is_not_published(run, reference):
    with run.start() as job:
        result = job.wait()
    assert result.returncode == REFUSED, result
    assert result.errors and not result.tracebacks, result
    assert "the storage does not hold what was written in blocks" in result.stderr
    assert run.has_begun() and not run.is_published()
    resumed = run.resume(run.hosts.h1)
    assert resumed.returncode == 0, resumed
    assert run.find_fault(reference) == ""
