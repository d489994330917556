"""The claim on an output: whose lock file it is, and leases where hosts do not share locks."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scimill import claim as module
from scimill.claim import MAGIC, SIZE, Claim, Holder
from scimill.errors import StorageError
from unit.limits import no_file_may_grow

OTHER = Holder("h2", "another start", "4026531836", 77, "1234", "8.pbs", "feed")


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "store.h5.lock"


@pytest.fixture
def without_shared_locks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(module, "local_locks", lambda _: "nfs with nolock")
    monkeypatch.setattr(module, "EXPIRES", 1.0)
    monkeypatch.setattr(module, "RENEWED_EVERY", 0.1)
    monkeypatch.setattr(module, "SETTLES_IN", 0.1)
    yield


def write_lease(lock: Path, holder: Holder, renewals: int = 0) -> None:
    described = json.dumps({**dataclasses.asdict(holder), "renewals": renewals})
    lock.write_bytes(f"{MAGIC}: {holder}\n{described}\n".encode().ljust(SIZE))


def token(lock: Path) -> str:
    return str(json.loads(lock.read_text().splitlines()[1])["token"])


# ---- whose file it is -------------------------------------------------------------------------------------------


def test_it_names_its_holder_and_goes_away(lock: Path) -> None:
    claim = Claim(lock)
    claim.acquire()
    assert lock.read_text().startswith(f"{MAGIC}: process {os.getpid()} on ")
    claim.release()
    assert not lock.exists()


def test_a_second_claim_is_refused_with_the_name_of_the_first(lock: Path) -> None:
    first = Claim(lock)
    first.acquire()
    with pytest.raises(StorageError, match=f"another run is writing this output: process {os.getpid()} on"):
        Claim(lock).acquire()
    first.release()


@pytest.mark.parametrize("content", [b"my notes\n", b"process 7 on h1, and more", bytes(5000)])
def test_a_users_file_is_left_as_it_is(lock: Path, content: bytes) -> None:
    lock.write_bytes(content)
    with pytest.raises(StorageError, match="scimill did not write"):
        Claim(lock).acquire()
    assert lock.read_bytes() == content


@pytest.mark.parametrize("content", [b"", bytes(SIZE), bytes(512) + b" " * 512])
def test_a_blank_file_may_be_a_users_and_is_left_as_it_is(lock: Path, content: bytes) -> None:
    lock.write_bytes(content)
    claim = Claim(lock)
    claim.acquire()
    claim.release()
    assert lock.read_bytes() == content


def test_a_link_is_not_followed(lock: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    lock.symlink_to("notes")
    with pytest.raises(StorageError, match="scimill did not write"):
        Claim(lock).acquire()
    assert (tmp_path / "notes").read_text() == "mine"
    assert lock.is_symlink()


def test_a_directory_and_a_pipe_are_refused_without_waiting(lock: Path) -> None:
    for make in (lock.mkdir, lambda: os.mkfifo(lock)):
        make()
        with pytest.raises(StorageError, match="scimill did not write"):
            Claim(lock).acquire()
        lock.rmdir() if lock.is_dir() else lock.unlink()


@pytest.mark.parametrize("content", [b"process 7 on h1", b"", f"{MAGIC}: torn".encode()])
def test_what_a_killed_run_left_is_no_obstacle(lock: Path, content: bytes) -> None:
    lock.write_bytes(content)
    claim = Claim(lock)
    claim.acquire()
    claim.confirm()
    claim.release()


def test_a_lock_that_its_owner_removed_does_not_keep_a_run_from_publishing(lock: Path) -> None:
    claim = Claim(lock)
    claim.acquire()
    lock.unlink()
    claim.confirm()
    claim.release()


@pytest.mark.parametrize("successor", [False, True], ids=["alone", "with a successor"])
def test_a_lock_that_its_owner_removes_meanwhile_is_refused(lock: Path, successor: bool) -> None:
    """Two runs would hold a lock each: one on the file that is gone, one on its successor."""
    first, second = Claim(lock), Claim(lock)
    first.acquire()
    open_lock = second._open

    def open_too_late() -> tuple[int, bool]:
        opened = open_lock()
        first.release()
        if successor:
            first.acquire()
        return opened

    second._open = open_too_late  # type: ignore[method-assign]
    with pytest.raises(StorageError, match="another run is writing this output: one that has just begun or ended"):
        second.acquire()
    first.release()
    assert not lock.exists()


def test_on_a_full_disk_a_lock_needs_no_content_but_a_lease_does(
    lock: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with no_file_may_grow():
        claim = Claim(lock)
        claim.acquire()
        assert lock.read_bytes() == b""
        with pytest.raises(StorageError, match="another run is writing this output"):
            Claim(lock).acquire()
        claim.release()
        monkeypatch.setattr(module, "local_locks", lambda _: "nfs with nolock")
        with pytest.raises(OSError, match="File too large"):
            Claim(lock).acquire()
    assert "store.h5.lock is a lease" in capsys.readouterr().err


@pytest.mark.needs("mounting")
def test_a_host_that_does_not_show_its_start_is_known_by_its_name() -> None:
    hidden = "mount -t tmpfs none /proc/sys/kernel/random"
    program = "from scimill.claim import host_identity; print(host_identity())"
    command = ["unshare", "--mount", "sh", "-c", f'{hidden} && exec "$0" -c "$1"', sys.executable, program]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"{socket.gethostname()} \n"


# ---- leases -----------------------------------------------------------------------------------------------------


def test_the_lease_of_a_silent_host_is_taken_over(lock: Path, without_shared_locks: None, capsys) -> None:
    write_lease(lock, OTHER)
    started = time.monotonic()
    claim = Claim(lock)
    claim.acquire()
    assert time.monotonic() - started >= 1.0
    assert "to see whether process 77 on h2, job 8.pbs still runs" in capsys.readouterr().err
    assert token(lock) != OTHER.token
    claim.release()
    assert not lock.exists()


def test_a_lease_that_names_nobody_is_taken_over_soon(lock: Path, without_shared_locks: None, capsys) -> None:
    """Whoever has just made it writes its name within that time."""
    lock.touch()
    started = time.monotonic()
    claim = Claim(lock)
    claim.acquire()
    assert time.monotonic() - started >= 0.1
    assert "waiting" not in capsys.readouterr().err
    claim.confirm()
    claim.release()
    assert lock.read_bytes() == b""


def test_a_lease_that_is_renewed_is_refused(lock: Path, without_shared_locks: None) -> None:
    write_lease(lock, OTHER)
    renewing = threading.Timer(0.3, write_lease, (lock, OTHER, 1))
    renewing.start()
    with pytest.raises(StorageError, match="another run is writing this output: process 77 on h2, job 8"):
        Claim(lock).acquire()
    renewing.join()
    assert token(lock) == OTHER.token


def test_a_lease_is_taken_over_at_once_if_asked(
    lock: Path, without_shared_locks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EXPIRES", 1000.0)
    write_lease(lock, OTHER)
    Claim(lock, break_lock=True).acquire()
    assert token(lock) != OTHER.token


def test_the_lease_of_a_process_of_this_host_that_ended_is_taken_over(
    lock: Path, without_shared_locks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EXPIRES", 1000.0)
    code = "import sys; from pathlib import Path; from scimill.claim import Claim; Claim(Path(sys.argv[1])).acquire()"
    subprocess.run([sys.executable, "-c", code + "; import os; os._exit(0)", lock], check=True)
    assert Claim(lock).acquire() is None


def test_the_lease_of_a_process_that_runs_is_not_taken_over(
    lock: Path, without_shared_locks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two mounts of one directory on one host share neither locks nor, perhaps, renewals."""
    write_lease(lock, Holder.this_process())
    assert not Holder.this_process().is_dead()
    monkeypatch.setattr(module, "EXPIRES", 1000.0)
    waiting = threading.Thread(target=Claim(lock).acquire, daemon=True)
    waiting.start()
    waiting.join(0.5)
    assert waiting.is_alive()


def test_a_lease_is_renewed_until_it_is_released(lock: Path, without_shared_locks: None) -> None:
    claim = Claim(lock)
    claim.acquire()
    before = lock.read_bytes()
    deadline = time.monotonic() + 60
    while lock.read_bytes() == before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert lock.read_bytes() != before
    claim.release()
    assert not lock.exists()


def test_a_lost_lease_is_noticed_and_left_to_its_new_holder(lock: Path, without_shared_locks: None) -> None:
    claim = Claim(lock)
    claim.acquire()
    write_lease(lock, OTHER)
    with pytest.raises(StorageError, match="another run took this output over: process 77 on h2"):
        claim.confirm()
    time.sleep(0.3)  # three renewals
    claim.release()
    assert token(lock) == OTHER.token


# ---- which file systems -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options", "reason"),
    [
        ("ext4", ["rw"], ""),
        ("gpfs", ["rw"], ""),
        ("nfs4", ["rw", "vers=4.2", "local_lock=none"], ""),
        ("nfs4", ["rw", "local_lock=flock"], "nfs4 with local_lock=flock"),
        ("nfs", ["rw", "vers=3", "nolock", "local_lock=all"], "nfs with nolock"),
        ("nfs", ["rw", "local_lock=posix"], ""),
        ("lustre", ["rw", "flock"], ""),
        ("lustre", ["rw", "localflock"], "lustre with localflock"),
        ("fuse.sshfs", ["rw"], "fuse.sshfs"),
        ("beegfs", ["rw"], "beegfs"),
    ],
)
def test_where_hosts_do_not_share_locks(
    kind: str, options: list[str], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "mount", lambda _: (kind, options))
    assert module.local_locks(Path("/scratch")) == reason


def test_the_mount_of_a_folder_is_found(tmp_path: Path) -> None:
    answer = subprocess.run(["stat", "-f", "-c", "%T", tmp_path], capture_output=True, text=True, check=True)
    assert module.mount(tmp_path)[0][:3] == answer.stdout[:3]
    assert module.mount(Path("/proc/self"))[0] == "proc"
