"""The Slurm of the tests is a real one: it takes, refuses, limits and cleans up as a site's does."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import mpi
from jobs.slurm import PREFIX, Slurm
from jobs.states import CANCELLED, COMPLETED, FAILED, WAITING
from mpi import wait_until


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
    """A folder whose path is short enough for the socket of munge, whatever pytest is run by."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.mark.needs("Slurm")
def test_a_killed_session_leaves_nothing_behind(short: Path) -> None:
    code = "import time, jobs.slurm as s\nwith s.running() as one: print(one.folder, flush=True); time.sleep(600)"
    command = [sys.executable, "-c", code]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "TMPDIR": str(short)}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout
        folder = killed.stdout.readline().strip()
        killed.send_signal(signal.SIGKILL)
    assert Path(folder).name.startswith(PREFIX)
    assert _named(folder), "its daemons have outlived it"
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as next_one:
        assert next_one.stdout
        assert next_one.stdout.readline().strip() != folder
        assert not _named(folder)
        assert not Path(folder).exists()
        next_one.send_signal(signal.SIGINT)
    wait_until(lambda: not list(short.glob(PREFIX + "*")), "an end without leftovers", 20)


def _named(folder: str) -> list[int]:
    """Processes whose command line names the folder, or that find their Slurm there."""
    found = []
    for pid, _, _ in mpi.processes():
        if f"SLURM_CONF={folder}/slurm.conf".encode() in mpi.environment(pid):
            found.append(pid)
    return found
