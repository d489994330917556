"""Clusters to submit to, and droplets that were made without them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs import slurm as slurm_
from jobs.slurm import Slurm
from jobs.standin import cluster as standin
from jobs.standin.cluster import StandIn
from mpi import succeed
from needs import require

DROPLETS = ("--count", "20000", "--block-size", "1024", "--seed", "3")


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`DROPLETS`, generated without a job."""
    path = tmp_path_factory.mktemp("alone") / "droplets.h5"
    succeed("droplets", "generate", path, *DROPLETS)
    return path


@pytest.fixture(scope="session")
def slurm_of_the_session(compiled_kernel: None) -> Iterator[Slurm]:
    require("Slurm")
    with slurm_.running() as slurm:
        yield slurm


@pytest.fixture
def slurm(slurm_of_the_session: Slurm) -> Iterator[Slurm]:
    """A real Slurm of one node; a test's jobs are removed after it."""
    before = set(slurm_of_the_session.jobs())
    yield slurm_of_the_session
    slurm_of_the_session.clear(before)


@pytest.fixture(scope="session")
def pbs_of_the_session(compiled_kernel: None) -> Iterator[StandIn]:
    with standin.running("pbs") as cluster:
        yield cluster


@pytest.fixture
def pbs(pbs_of_the_session: StandIn) -> Iterator[StandIn]:
    """A stand-in for PBS without jobs and with the default site."""
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
    """A stand-in for Cobalt without jobs and with the default site."""
    yield cobalt_of_the_session
    cobalt_of_the_session.configure(kill_delay=0.2)
    cobalt_of_the_session.clear()
    cobalt_of_the_session.reset()
