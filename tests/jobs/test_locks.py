"""The lock of a chain: who holds it, for how long, and what the scheduler's commands inherit of it."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from jobs.cluster import Cluster
from jobs.test_chains import cluster, end_of, folder, job_ids, outputs, quick_start, states, write_chain
from mpi import scimill, start, wait_until
from scimill.errors import StorageError
from scimill.jobs import state
from scimill.jobs.state import LOCK, ChainLock, locked

__all__ = ["cluster", "folder", "quick_start"]  # fixtures


def test_the_file_stays_and_is_empty(tmp_path: Path) -> None:
    """On NFS, another host may lock a removed file and believe that it is still there."""
    with locked(tmp_path):
        first = (tmp_path / LOCK).stat().st_ino
        assert b"scimill lock: process" in (tmp_path / LOCK).read_bytes()
    for _ in range(2):
        assert ((tmp_path / LOCK).stat().st_ino, (tmp_path / LOCK).read_bytes()) == (first, b"")
        with locked(tmp_path, patience=0):
            pass


def test_what_a_killed_command_left_in_it_is_removed(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("scimill lock: process 1 on elsewhere\n".ljust(1024))
    with locked(tmp_path, patience=0):
        pass
    assert (tmp_path / LOCK).read_bytes() == b""


def test_a_command_that_waits_reports_for_whom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(state, "REPORT_AFTER", 0.3)
    holder = f"process {os.getpid()} on {os.uname().nodename}"
    with locked(tmp_path), pytest.raises(StorageError, match=f"another command changes this chain: {holder}"):
        ChainLock(tmp_path).acquire(0.6)
    assert f"waiting for another command that changes this chain: {holder}" in capsys.readouterr().err


def test_another_comes_in_between_two_submissions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    came = threading.Event()

    def other() -> None:
        with locked(tmp_path, patience=20):
            came.set()

    with locked(tmp_path) as lock:
        thread = threading.Thread(target=other)
        thread.start()
        assert not lock.let_others_in()
        assert not came.is_set()
        monkeypatch.setattr(state, "HELD_AT_MOST", 0.0)
        while not came.is_set():
            assert lock.let_others_in()
        thread.join()


@pytest.mark.parametrize("cluster", ["cobalt"], indirect=True)
def test_a_long_submission_blocks_neither_jobs_nor_commands(cluster: Cluster, folder: Path, tmp_path: Path) -> None:
    """Cobalt has no arrays: each element is a call of qsub, here of a second or more."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "qsub").write_text(f'#!/bin/sh\nsleep 1\nexec {shutil.which("qsub")} "$@"\n')
    (bin_ / "qsub").chmod(0o755)
    text = """
        resources: {walltime: 10min, ranks_per_node: 1}
        steps: {each: {command: sleep 600, resources: {array: 0-59}}}
    """
    name = write_chain(folder, text)
    before = job_ids(cluster)
    with (
        cluster.searching_first(bin_),
        start("jobs", "submit", name, "--machine", "cobalt-generic", env=cluster.env, cwd=folder) as running,
    ):
        wait_until(lambda: len(job_ids(cluster) - before) >= 2, "two jobs", 60)
        began = time.monotonic()
        assert set(states(folder).values()) <= {"running", "queued"}
        cancelled = scimill("jobs", "cancel", name, env=cluster.env, cwd=folder)
        assert time.monotonic() - began < 45  # of 60 that the submission would last at least
        ended = running.wait(60)
    assert cancelled.stdout.startswith("each             cancelled "), cancelled
    assert ended.returncode == 2, ended
    assert "was cancelled while the chain was being submitted" in ended.errors[0]
    assert len(job_ids(cluster) - before) < 60
    end_of(cluster, before)
    wait_until(lambda: states(folder) == {"each": "to do"}, "the end of all jobs", 60)


# ---- what qsub inherits -----------------------------------------------------------------------------------------

QSUB = """#!/bin/bash
# Like that of OpenPBS, it leaves a process that closes its standard streams but nothing else.
setsid sleep 60 <&- >&- 2>&- &
echo $! >background
touch called
until [ -e answer ]; do sleep 0.05; done
echo 1.server
"""
SUBMIT = """
import sys
from pathlib import Path
from scimill.jobs.schedulers import SCHEDULERS, submit_script
from scimill.jobs.state import locked
with locked(Path.cwd()) as lock:
    print(submit_script(SCHEDULERS["pbs"], Path("script"), keep=(lock.descriptor,)), flush=True)
    sys.stdin.read()
"""


def is_free(folder: Path) -> bool:
    """Whether nobody holds the lock of a chain."""
    with (folder / LOCK).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


@pytest.fixture
def submission(tmp_path: Path) -> "subprocess.Popen[str]":
    """A process that holds the lock and has called qsub, which waits for the file `answer`."""
    (tmp_path / "qsub").write_text(QSUB)
    (tmp_path / "qsub").chmod(0o755)
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    process = subprocess.Popen(
        [sys.executable, "-c", SUBMIT], cwd=tmp_path, env={**os.environ, "PATH": path}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    wait_until((tmp_path / "called").exists, "qsub", 30)
    return process


def test_qsub_keeps_the_lock_of_a_command_that_was_killed_and_what_it_leaves_does_not(
    tmp_path: Path, submission: "subprocess.Popen[str]"
) -> None:
    """Nobody may look for the job before qsub has queued it."""
    submission.kill()
    submission.communicate()
    time.sleep(0.3)
    assert not is_free(tmp_path)
    (tmp_path / "answer").touch()
    wait_until(lambda: is_free(tmp_path), "the lock", 10)
    end_background(tmp_path)


def test_the_lock_is_held_after_the_call_until_it_is_released(
    tmp_path: Path, submission: "subprocess.Popen[str]"
) -> None:
    assert submission.stdout is not None
    (tmp_path / "answer").touch()
    assert submission.stdout.readline() == "1.server\n"
    assert not is_free(tmp_path)
    submission.communicate("")
    assert is_free(tmp_path)
    end_background(tmp_path)


def end_background(folder: Path) -> None:
    """End the process that qsub left, which must still run."""
    os.kill(int((folder / "background").read_text()), signal.SIGKILL)


@pytest.mark.parametrize("cluster", ["pbs"], indirect=True)
def test_a_chain_is_submitted_while_such_a_process_remains(cluster: Cluster, folder: Path, tmp_path: Path) -> None:
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    left = "setsid sleep 90 <&- >&- 2>&- &"
    (bin_ / "qsub").write_text(f'#!/bin/bash\n{left}\necho $! >>{tmp_path}/left\nexec {shutil.which("qsub")} "$@"\n')
    (bin_ / "qsub").chmod(0o755)
    text = """
        resources: {walltime: 10min, ranks_per_node: 1}
        steps: {a: {command: touch a}, b: {command: cp a b, after: a}}
    """
    before = job_ids(cluster)
    with cluster.searching_first(bin_):
        name = write_chain(folder, text)
        submitted = scimill("jobs", "submit", name, "--machine", "pbs-generic", env=cluster.env, cwd=folder)
        assert submitted.returncode == 0, submitted
        assert is_free(folder / "scimill-jobs/chain")
        assert end_of(cluster, before) == ["completed"] * 2, outputs(cluster, before)
    for process in (tmp_path / "left").read_text().split():
        os.kill(int(process), signal.SIGKILL)
