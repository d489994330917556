"""The Slurm of the tests is a real one: it accepts, refuses, limits and cleans up like a site's."""

import os
import re
import select
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import mpi
from jobs.cluster import end_processes
from jobs.slurm import PREFIX, Slurm
from jobs.states import CANCELLED, COMPLETED, FAILED, WAITING


def script(folder: Path, text: str, name: str = "job.sh") -> Path:
    path = folder / name
    path.write_text(f"#!/bin/bash\n#SBATCH --output=%x-%j.log\n{text}\n")
    return path


def test_ranks_find_each_other_by_pmix(slurm: Slurm, tmp_path: Path) -> None:
    job = slurm.submit(script(tmp_path, "srun --mpi=pmix scimill doctor"), "--ntasks=2")
    assert slurm.wait(job, 120) == (COMPLETED, 0), slurm.output(job)
    assert "Open MPI v4.1.4; 2 ranks" in slurm.output(job)
    assert "2 ranks      write one store in parallel and read it back" in slurm.output(job)


def test_ranks_get_gpus(slurm: Slurm, tmp_path: Path) -> None:
    text = "srun --gpus-per-task=1 bash -c 'echo gpu $CUDA_VISIBLE_DEVICES'"
    job = slurm.submit(script(tmp_path, text), "--ntasks=4", "--gpus-per-node=4", "--partition=gpu")
    assert slurm.wait(job) == (COMPLETED, 0), slurm.output(job)
    assert sorted(slurm.output(job).split("\n")) == ["", *(f"gpu {n}" for n in range(4))]


def test_jobs_on_one_node_use_the_gpus_that_the_scheduler_gave_each(slurm: Slurm, tmp_path: Path) -> None:
    command = ("bash", "-c", "echo rank $SLURM_LOCALID gpu $CUDA_VISIBLE_DEVICES; sleep 5")
    flags = ("--machine", "slurm-generic", "--queue", "gpu", "--walltime", "10min", "--gpus-per-node")

    def submit(gpus: int) -> str:
        result = mpi.scimill("jobs", "submit", *flags, gpus, "--", *command, env=slurm.env, cwd=tmp_path)
        return result.stdout.strip()

    jobs = [submit(1), submit(1), submit(2)]
    assert [slurm.wait(job) for job in jobs] == [(COMPLETED, 0)] * 3, [slurm.output(job) for job in jobs]
    used = [re.findall(r"rank (\d) gpu (\d)", slurm.output(job)) for job in jobs]
    assert [sorted(rank for rank, _ in job) for job in used] == [["0"], ["0"], ["0", "1"]]
    assert sorted(gpu for job in used for _, gpu in job) == ["0", "1", "2", "3"]


REFUSED = ["--partition=none", "--partition=short --time=10", "--nodes=2", "--gpus-per-node=5"]


@pytest.mark.parametrize("option", REFUSED)
def test_it_refuses_what_it_has_not(slurm: Slurm, tmp_path: Path, option: str) -> None:
    result = slurm.run("sbatch", "--test-only", *option.split(), str(script(tmp_path, "hostname")))
    assert result.returncode != 0, result


def test_states_and_exit_codes(slurm: Slurm, tmp_path: Path) -> None:
    failed = slurm.submit(script(tmp_path, "exit 3"))
    array = slurm.submit(script(tmp_path, "exit $SLURM_ARRAY_TASK_ID"), "--array=0-2")
    waiting = slurm.submit(script(tmp_path, "hostname"), "--hold")
    assert slurm.wait(failed) == (FAILED, 3)
    assert slurm.wait(array) == (FAILED, 1)
    assert slurm.wait(f"{array}_0") == (COMPLETED, 0)
    assert slurm.state(waiting) == WAITING
    slurm.cancel(waiting)
    assert slurm.wait(waiting)[0] == CANCELLED


def test_a_wait_has_an_end(slurm: Slurm, tmp_path: Path) -> None:
    job = slurm.submit(script(tmp_path, "sleep 60"))
    with pytest.raises(mpi.Hang, match=f"job {job} of slurm, which is"):
        slurm.wait(job, 0.5)


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a path short enough for munge's socket; its processes end with the test."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
        for cluster in Path(folder).glob(PREFIX + "*"):
            end_processes(cluster)


SESSION = """
import signal, time, jobs.slurm
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may start its background jobs without
with jobs.slurm.running() as cluster:
    print(cluster.folder, flush=True)
    time.sleep(600)
"""


def start_session(short: Path) -> mpi.Job:
    """Start a test session that starts a Slurm and waits; kill it when the context ends."""
    path = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {"PYTHONPATH": os.pathsep.join(path), "TMPDIR": str(short)}
    return mpi.Job([sys.executable, "-c", SESSION], env, None)


def folder_of(session: mpi.Job) -> Path:
    """Return the folder of a session's Slurm once it is up."""
    assert session.process.stdout
    assert select.select([session.process.stdout], [], [], 120)[0], "no Slurm within 120 s"
    return Path(session.process.stdout.readline().strip())


@pytest.mark.needs("Slurm")
def test_a_killed_session_leaves_nothing_behind(short: Path) -> None:
    with start_session(short) as killed:
        folder = folder_of(killed)
        killed.process.kill()
    assert folder.name.startswith(PREFIX)
    assert _named(folder), "its daemons have outlived it"
    with start_session(short) as next_one:
        assert folder_of(next_one) != folder
        assert not _named(folder)
        assert not folder.exists()
        next_one.process.send_signal(signal.SIGINT)
        next_one.wait(300)
    assert not list(short.glob(PREFIX + "*")), "an end without leftovers"


def _named(folder: Path) -> list[int]:
    """Processes whose command line or Slurm configuration names the folder."""
    found = []
    for pid, _, _ in mpi.processes():
        if f"SLURM_CONF={folder}/slurm.conf".encode() in mpi.environment(pid):
            found.append(pid)
    return found
