"""Clusters to submit to."""

from collections.abc import Iterator

import pytest

from jobs import slurm as slurm_
from jobs.slurm import Slurm
from jobs.standin import cluster as standin
from jobs.standin.cluster import StandIn
from needs import require


@pytest.fixture(scope="session")
def slurm_of_the_session(compiled_kernel: None) -> Iterator[Slurm]:
    require("Slurm")
    with slurm_.running() as slurm:
        yield slurm


@pytest.fixture
def slurm(slurm_of_the_session: Slurm) -> Iterator[Slurm]:
    """A real Slurm of one node; what a test submits is gone after it."""
    before = set(slurm_of_the_session.jobs())
    yield slurm_of_the_session
    slurm_of_the_session.clear(before)


@pytest.fixture(scope="session")
def pbs_of_the_session(compiled_kernel: None) -> Iterator[StandIn]:
    with standin.running("pbs") as cluster:
        yield cluster


@pytest.fixture
def pbs(pbs_of_the_session: StandIn) -> Iterator[StandIn]:
    """A stand-in for PBS, without a job, its site set up as always."""
    yield pbs_of_the_session
    pbs_of_the_session.configure(kill_delay=0.2)
    pbs_of_the_session.clear()
    pbs_of_the_session.reset()


@pytest.fixture(scope="session")
def cobalt_of_the_session(compiled_kernel: None) -> Iterator[StandIn]:
    with standin.running("cobalt") as cluster:
        yield cluster


@pytest.fixture
def cobalt(cobalt_of_the_session: StandIn) -> Iterator[StandIn]:
    """A stand-in for Cobalt, without a job, its site set up as always."""
    yield cobalt_of_the_session
    cobalt_of_the_session.configure(kill_delay=0.2)
    cobalt_of_the_session.clear()
    cobalt_of_the_session.reset()
