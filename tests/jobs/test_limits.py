"""Chains one job at a time or packed into one, and their cancellation."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.cluster import Cluster
from jobs.states import CANCELLED, COMPLETED, DEP_FAIL, FAILED
from jobs.test_chains import (
    MACHINES,
    SLOW,
    assert_refused,
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


@pytest.mark.parametrize("cluster", ["slurm", "pbs", "cobalt"], indirect=True)
def test_a_chain_runs_packed_into_one_job_and_its_next_link(
    cluster: Cluster, folder: Path, slow: dict[str, str]
) -> None:
    text = f"""
        resources: {{walltime: 30min, ranks_per_node: 2}}
        steps:
          first: {{command: touch first}}
          generate: {{command: scimill droplets generate droplets.h5 {" ".join(SLOW)}, after: first}}
          each:
            command: "bash -c 'touch each-$SCIMILL_ARRAY_INDEX'"
            after: generate
            resources: {{array: 0-1, ranks_per_node: 1}}
          last: {{command: cp each-1 last, after: [generate, each]}}
    """
    name = write_chain(folder, text)
    before = job_ids(cluster)
    submit(cluster, folder, name, "--pack", "--walltime", "1h")
    assert len(job_ids(cluster) - before) == 1
    wait_for_blocks(folder / "droplets.h5.part", 8)
    assert set(submit(cluster, folder, name, "--pack").stdout.split()[1::2]) <= {"running", "complete"}
    stop_rank(folder)
    assert end_of(cluster, before) == [COMPLETED] * 2, outputs(cluster, before)
    assert set(states(folder).values()) == {"complete"}, outputs(cluster, before)
    assert dataset_hashes(folder / "droplets.h5") == slow
    shown = scimill("jobs", "logs", name, "generate", cwd=folder).stdout
    assert "link 1 of at most 20 has stopped" in shown


MEET = """\
echo $CUDA_VISIBLE_DEVICES
touch "$1"
for _ in $(seq 300); do [ ! -e "$2" ] || exit 0; sleep 0.1; done
exit 9
"""
"""Succeeds only if another step runs at the same time."""


@pytest.mark.parametrize("cluster", ["slurm"], indirect=True)
def test_steps_of_a_packed_chain_run_side_by_side_each_with_its_part_of_the_node(
    cluster: Cluster, folder: Path
) -> None:
    text = """
        resources: {walltime: 10min, ranks_per_node: 1, memory: 1GiB}
        steps:
          a: {command: bash meet.sh a b, resources: {gpus_per_node: 1}}
          b: {command: bash meet.sh b a, resources: {gpus_per_node: 1}}
          fails: {command: bash -c 'exit 7'}
          never: {command: touch never, after: fails}
          both:
            command: bash -c 'bash meet.sh both-$SCIMILL_ARRAY_INDEX both-1'
            after: [a, b]
            resources: {array: 0-1%2, gpus_per_node: 1}
    """
    (folder / "meet.sh").write_text(MEET)
    name = write_chain(folder, text)
    before = job_ids(cluster)
    submit(cluster, folder, name, "--pack")
    assert end_of(cluster, before, 90) == [FAILED], outputs(cluster, before)
    job = (job_ids(cluster) - before).pop()
    assert cluster.code(job) == 7
    assert states(folder) == {
        "a": "complete", "b": "complete", "fails": "failed (7)", "never": "to do", "both": "complete"
    }, outputs(cluster, before)  # fmt: skip
    for units in (("a", "b"), ("both.0", "both.1")):
        assert sorted((folder / f"{unit}-{job}.log").read_text() for unit in units) == ["0\n", "1\n"]
    shown = scimill("jobs", "logs", name, "both", cwd=folder).stdout
    assert f"== both.0-{job}.log" in shown and f"== a-{job}.log" not in shown


@pytest.mark.parametrize("cluster", ["slurm"], indirect=True)
def test_the_next_link_of_a_packed_chain_leaves_out_what_has_failed(cluster: Cluster, folder: Path) -> None:
    text = """
        resources: {walltime: 10min, ranks_per_node: 1}
        steps:
          fails: {command: "bash -c 'echo x >>fails; exit 7'"}
          resumes:
            command: "bash -c '[ -e resumes ] || { touch resumes; sleep 1; exit 75; }'"
            resources: {resumable: true}
          last: {command: touch last, after: resumes}
    """
    name = write_chain(folder, text)
    before = job_ids(cluster)
    submit(cluster, folder, name, "--pack")
    assert end_of(cluster, before, 90) == [COMPLETED] * 2, outputs(cluster, before)
    assert states(folder) == {"fails": "failed (7)", "resumes": "complete", "last": "complete"}
    assert (folder / "fails").read_text() == "x\n"


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


@pytest.mark.parametrize("cluster", ["pbs", "cobalt"], indirect=True)
@pytest.mark.parametrize("flags", [(), ("--one-at-a-time",)], ids=["all", "one at a time"])
def test_held_jobs_are_released_by_the_next_submission(
    cluster: Cluster, folder: Path, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    """A submission that is killed leaves the first job on hold, here by a qrls that fails."""
    text = """
        resources: {walltime: 10min, ranks_per_node: 1}
        steps: {a: {command: touch a}, b: {command: cp a b, after: a}}
    """
    name = write_chain(folder, text)
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "qrls").write_text("#!/bin/sh\nexit 1\n")
    (bin_ / "qrls").chmod(0o755)
    before = job_ids(cluster)
    with cluster.searching_first(bin_):
        words = ("jobs", "submit", name, "--machine", MACHINES[cluster.name])
        failed = scimill(*words, env=cluster.env, cwd=folder)
    assert_refused(failed, "still holds the first jobs")
    submit(cluster, folder, name, *flags)
    assert end_of(cluster, before) == [COMPLETED] * 2, outputs(cluster, before)
    submit(cluster, folder, name)  # and does not try again
    assert (folder / "b").exists()


@pytest.mark.parametrize("cluster", ["slurm"], indirect=True)
def test_a_step_that_was_renamed_is_cancelled_before_another_takes_its_place(cluster: Cluster, folder: Path) -> None:
    text = "resources: {walltime: 10min, ranks_per_node: 1}\nsteps: {a: {command: sleep 600}}"
    before = job_ids(cluster)
    submit(cluster, folder, write_chain(folder, text))
    name = write_chain(folder, text.replace("a: {command: sleep 600}", "z: {command: touch z}"))
    words = ("jobs", "submit", name, "--machine", "slurm-generic")
    assert_refused(scimill(*words, cwd=folder), "a was removed from the chain, but its job")
    assert scimill("jobs", "cancel", name, cwd=folder).stdout.split()[:2] == ["a", "cancelled"]
    end_of(cluster, before)
    submit(cluster, folder, name)
    end_of(cluster, before)
    assert states(folder) == {"z": "complete"}


@pytest.mark.parametrize("cluster", ["slurm"], indirect=True)
def test_a_chain_does_not_run_here_and_in_a_queue_at_once(cluster: Cluster, folder: Path) -> None:
    text = "resources: {walltime: 10min, ranks_per_node: 1}\nsteps: {a: {command: bash -c 'touch b; sleep 600'}}"
    name = write_chain(folder, text)
    submit(cluster, folder, name)
    assert_refused(scimill("jobs", "run", name, cwd=folder), "of this chain has not ended")
    wait_until((folder / "b").exists, "the job", 60)
    scimill("jobs", "cancel", name, cwd=folder)
    wait_until(lambda: states(folder) == {"a": "to do"}, "its end", 60)
    (folder / "b").unlink()
    with start("jobs", "run", name, cwd=folder) as running:
        wait_until((folder / "b").exists, "the run", 60)
        refused = scimill("jobs", "submit", name, "--machine", "slurm-generic", cwd=folder)
        assert refused.returncode == 4, refused
        assert "another command runs this chain: process" in refused.stderr
        running.process.terminate()
        running.wait(60)
