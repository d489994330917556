"""Clusters to submit to."""

from collections.abc import Iterator

import pytest

from jobs.slurm import Slurm, running


@pytest.fixture(scope="session")
def slurm_of_the_session() -> Iterator[Slurm]:
    with running() as slurm:
        yield slurm


@pytest.fixture
def slurm(slurm_of_the_session: Slurm) -> Iterator[Slurm]:
    """A real Slurm of one node, without a job."""
    yield slurm_of_the_session
    slurm_of_the_session.clear()
