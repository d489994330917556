"""Jobs on two nodes of a real Slurm, which are both on this machine, with daemons of their own."""

import contextlib
import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs import slurm as slurm_
from jobs.slurm import Slurm
from jobs.states import COMPLETED, WAITING
from jobs.test_chains import SLOW, slow, states, wait_for_blocks, write_chain
from jobs.test_limits import MEET
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


FAILING = """\
# A node that does not answer for 10 s is down. The RPCs to it wait for 5 s, so that others do not wait behind them.
SlurmdTimeout=10
MessageTimeout=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=urgent Nodes=ALL PriorityTier=10 MaxTime=01:00:00 State=UP
"""
TRAIN = ("droplets", "train", "droplets.h5", "--epochs", 1, "--hidden", 8, "--batch-size", 1024, "--threads", 1,
         "--precision", "float64")  # fmt: skip
SAME = 1e-9
"""Relative difference of losses in float64 that are summed in another order."""


@pytest.fixture(scope="module")
def two(compiled_kernel: None) -> Iterator[Slurm]:
    """A Slurm of two nodes."""
    require("Slurm")
    with slurm_.running(nodes=2, more=FAILING) as cluster, cluster.searching_first(forking_command()):
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
    start_now(two, submitted)
    end(two, tmp_path, slow)


def start_now(two: Slurm, job: str) -> None:
    """Let a job that was put back into the queue start at once: it would be held for two minutes."""
    wait_until(lambda: two.state(job) == WAITING, "the job in the queue", 60, 0.2)
    assert two.run("scontrol", "update", f"JobId={job}", "StartTime=now").returncode == 0


def test_a_preempted_job_continues(two: Slurm, submitted: str, tmp_path: Path, slow: dict[str, str]) -> None:
    """A job of another partition, which comes first, takes both nodes."""
    (tmp_path / "urgent.sh").write_text("#!/bin/sh\nsleep 1\n")
    flags = ("--partition=urgent", "--nodes=2", "--exclusive", "--time=5")
    urgent = two.submit(tmp_path / "urgent.sh", *flags)
    assert two.wait(urgent, 60) == (COMPLETED, 0)
    start_now(two, submitted)
    end(two, tmp_path, slow)


def test_a_job_continues_after_one_of_its_nodes_has_died(
    two: Slurm, submitted: str, tmp_path: Path, slow: dict[str, str]
) -> None:
    """All processes of the node stop at once, as if it had lost power; no process can report it."""
    frozen = two.freeze_node("n2")
    wait_until(lambda: two.node_states()["n2"].startswith("down"), "Slurm to notice", 60, 1.0)
    two.restart_node("n2", frozen)
    start_now(two, submitted)
    end(two, tmp_path, slow)
    record = two.run("scontrol", "show", "job", submitted).stdout
    assert "Restarts=1" in record, record


def test_horovod_trains_on_two_nodes_as_on_one_process(two: Slurm, tmp_path: Path, alone: Path) -> None:
    (tmp_path / "two.yaml").write_text(MACHINE)
    (tmp_path / "droplets.h5").symlink_to(alone)
    resources = ("--nodes", 2, "--ranks-per-node", 1, "--walltime", "30min", "--machine", "./two.yaml")
    words = ("jobs", "submit", *resources, "--", "scimill", *TRAIN, "--output", "both")
    submitted = scimill(*words, env=two.env, cwd=tmp_path)
    assert submitted.returncode == 0, submitted
    single = scimill(*TRAIN, "--output", "single", cwd=tmp_path)
    assert single.returncode == 0, single
    job = submitted.stdout.strip()
    assert two.wait(job, 80) == (COMPLETED, 0), two.output(job)
    assert json.loads((tmp_path / "both/run.json").read_text())["environment"]["ranks"] == 2
    one, other = (losses(tmp_path / name) for name in ("single", "both"))
    assert one == pytest.approx(other, rel=SAME)


def losses(run: Path) -> list[float]:
    with (run / "metrics.csv").open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def test_steps_of_a_packed_chain_each_take_a_node(two: Slurm, tmp_path: Path) -> None:
    """mpirun does not divide a node, so each step gets a whole one, by name."""
    (tmp_path / "two.yaml").write_text(MACHINE)
    (tmp_path / "meet.sh").write_text(f"echo $SLURMD_NODENAME\n{MEET}")
    text = """
        resources: {walltime: 10min, nodes: 1, ranks_per_node: 1}
        steps:
          wide: {command: bash -c 'echo $SLURMD_NODENAME', resources: {nodes: 2}}
          a: {command: bash meet.sh a b, after: wide}
          b: {command: bash meet.sh b a, after: wide}
    """
    name = write_chain(tmp_path, text)
    submitted = scimill("jobs", "submit", name, "--machine", "./two.yaml", "--pack", env=two.env, cwd=tmp_path)
    job = submitted.stdout.split()[1]
    assert two.wait(job, 80) == (COMPLETED, 0), two.output(job)
    assert "a: started on n1" in two.output(job)
    assert "b: started on n2" in two.output(job)
