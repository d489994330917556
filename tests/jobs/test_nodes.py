"""Jobs on two nodes of a real Slurm, which are both on this machine, with daemons of their own."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs import slurm as slurm_
from jobs.slurm import Slurm
from jobs.test_chains import SLOW, slow, states, wait_for_blocks, write_chain
from mpi import dataset_hashes, forking_command, scimill, wait_until
from needs import require

__all__ = ["slow"]  # a fixture

MACHINE = """\
description: two nodes on one machine, between which Open MPI uses TCP
scheduler: slurm
launcher: mpirun
launcher_options: [--oversubscribe, --map-by, "ppr:1:node"]
cores_per_node: 64
environment:
  {OMPI_MCA_btl: "self,tcp", OMPI_MCA_btl_tcp_if_include: lo, OMPI_MCA_pml: ob1, OMPI_MCA_oob_tcp_if_include: lo}
"""
CHAIN = f"""
resources: {{walltime: 30min, nodes: 2, ranks_per_node: 1}}
steps:
  generate: {{command: scimill droplets generate droplets.h5 {" ".join(SLOW)}}}
  verify: {{command: scimill verify droplets.h5, after: generate}}
"""


@pytest.fixture(scope="module")
def two(compiled_kernel: None) -> Iterator[Slurm]:
    """A Slurm of two nodes."""
    require("Slurm")
    with slurm_.running(nodes=2) as cluster, cluster.searching_first(forking_command()):
        yield cluster


@pytest.fixture
def submitted(two: Slurm, tmp_path: Path) -> str:
    """The id of a job that generates on both nodes and has done some blocks."""
    (tmp_path / "two.yaml").write_text(MACHINE)
    name = write_chain(tmp_path, CHAIN)
    result = scimill("jobs", "submit", name, "--machine", "./two.yaml", env=two.env, cwd=tmp_path)
    assert result.returncode == 0, result
    job = result.stdout.split()[1]
    wait_for_blocks(tmp_path / "droplets.h5.part", 8)
    return job


def end(two: Slurm, folder: Path, slow: dict[str, str]) -> None:
    """Wait until both jobs have ended well, and compare the bytes."""
    wait_until(lambda: set(all_states(two, folder)) == {"complete"}, "the chain", 240, 1.0)
    assert dataset_hashes(folder / "droplets.h5") == slow


def all_states(two: Slurm, folder: Path) -> list[str]:
    with contextlib.suppress(AssertionError):  # the controller may be busy with a node
        return list(states(folder).values())
    return []


@pytest.fixture(autouse=True)
def here(two: Slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in two.env.items():
        monkeypatch.setenv(name, value)


def test_one_rank_on_each_of_two_nodes_writes_one_file(
    two: Slurm, submitted: str, tmp_path: Path, slow: dict[str, str]
) -> None:
    end(two, tmp_path, slow)
    record = next((tmp_path / "scimill-jobs").glob("generate-*/environment")).read_text()
    assert "SLURM_JOB_NODELIST=n[1-2]\n" in record


def test_a_requeued_job_continues(two: Slurm, submitted: str, tmp_path: Path, slow: dict[str, str]) -> None:
    """An operator or a preemption puts it back into the queue, with the same id and script."""
    assert two.run("scontrol", "requeue", submitted).returncode == 0
    two.run("scontrol", "update", f"JobId={submitted}", "StartTime=now")  # it would be held for two minutes
    end(two, tmp_path, slow)
