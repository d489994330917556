"""Chains on queues that accept one job of a user at a time, and their cancellation."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.cluster import Cluster
from jobs.states import CANCELLED, DEP_FAIL
from jobs.test_chains import (
    MACHINES,
    SLOW,
    cluster,
    end_of,
    folder,
    job_ids,
    outputs,
    quick_start,
    slow,
    states,
    stop_rank,
    submit,
    wait_for_blocks,
    write_chain,
)
from mpi import dataset_hashes, scimill, start, wait_until

__all__ = ["cluster", "folder", "quick_start", "slow"]  # fixtures

SBATCH = """#!/bin/sh
# Refuse a second job as Slurm does at MaxSubmitJobs=1 of an association, which needs a database.
[ -z "$(squeue --noheader --me)" ] && exec {sbatch} "$@"
echo "sbatch: error: AssocMaxSubmitJobLimit" >&2
echo "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, ...)" >&2
exit 1
"""


@pytest.fixture
def narrow(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A scheduler that accepts one job of a user, running or not."""
    found: Cluster = request.getfixturevalue(request.param)
    if request.param == "pbs":
        found.configure(most_jobs=1)  # type: ignore[attr-defined]
        with found.searching_first(tmp_path):
            yield found
        return
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "sbatch").write_text(SBATCH.format(sbatch=shutil.which("sbatch")))
    (bin_ / "sbatch").chmod(0o755)
    with found.searching_first(bin_):
        yield found


@pytest.mark.parametrize("narrow", ["slurm", "pbs"], indirect=True)
def test_a_chain_completes_where_one_job_is_allowed(narrow: Cluster, folder: Path, slow: dict[str, str]) -> None:
    """The link that a job submits at its end is refused, because the job still runs: it is submitted later."""
    text = f"""
        resources: {{walltime: 30min, ranks_per_node: 2}}
        steps:
          generate: {{command: scimill droplets generate droplets.h5 {" ".join(SLOW)}}}
          each:
            command: "bash -c 'touch each-$SCIMILL_ARRAY_INDEX'"
            after: generate
            resources: {{array: 0-1, ranks_per_node: 1}}
          last: {{command: touch last, after: [generate, each]}}
    """
    name = write_chain(folder, text)
    refused = scimill("jobs", "submit", name, "--machine", MACHINES[narrow.name], env=narrow.env, cwd=folder)
    assert refused.returncode == 2, refused
    before = job_ids(narrow)
    words = ("jobs", "submit", name, "--machine", MACHINES[narrow.name], "--one-at-a-time")
    with start(*words, env=narrow.env, cwd=folder) as job:
        wait_for_blocks(folder / "droplets.h5.part", 8)
        stop_rank(folder)
        ended = job.wait(280)
    assert ended.returncode == 0, ended
    assert len(job_ids(narrow) - before) == 4, outputs(narrow, before)
    assert dataset_hashes(folder / "droplets.h5") == slow
    assert sorted(path.name for path in folder.glob("each-?")) == ["each-0", "each-1"]
    assert (folder / "last").exists()


@pytest.mark.parametrize("narrow", ["slurm"], indirect=True)
def test_a_failed_step_ends_the_wait(narrow: Cluster, folder: Path) -> None:
    name = write_chain(folder, "resources: {walltime: 1h}\nsteps: {a: {command: bash -c 'exit 7'}}")
    words = ("jobs", "submit", name, "--machine", "slurm-generic", "--ranks-per-node", 1, "--one-at-a-time")
    ended = scimill(*words, env=narrow.env, cwd=folder)
    assert (ended.returncode, ended.errors) == (7, ["scimill: error: the job of a ended with exit code 7"]), ended


@pytest.mark.parametrize("cluster", ["slurm", "pbs", "cobalt"], indirect=True)
def test_a_cancelled_chain_is_to_do_again(cluster: Cluster, folder: Path) -> None:
    text = """
        resources: {walltime: 10min, ranks_per_node: 1}
        steps: {a: {command: sleep 600}, b: {command: touch b, after: a}}
    """
    before = job_ids(cluster)
    submit(cluster, folder, write_chain(folder, text))
    wait_until(lambda: states(folder)["a"] == "running", "the first step", 60)
    cancelled = scimill("jobs", "cancel", "chain.yaml", cwd=folder)
    assert [line.split()[:2] for line in cancelled.stdout.splitlines()] == [["b", "cancelled"], ["a", "cancelled"]]
    assert set(end_of(cluster, before)) <= {CANCELLED, DEP_FAIL}
    wait_until(lambda: set(states(folder).values()) == {"to do"}, "the end of the jobs", 60)
    assert scimill("jobs", "cancel", "chain.yaml", cwd=folder).stdout == ""
