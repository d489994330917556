"""The names around an output: whose they are, what may stand there, and what of them is kept."""

import os
import signal
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest

from mpi import SCIMILL, scimill, start, succeed

FLAGS = ("--count", 400, "--block-size", 100, "--tolerance", 1e-4)


def file_of_a_user(path: Path) -> None:
    path.write_text("my notes")


def link_to_a_file(path: Path) -> None:
    path.with_name("notes").write_text("my notes")
    path.symlink_to("notes")


STANDING: dict[str, Callable[[Path], None]] = {
    "file": file_of_a_user, "link": link_to_a_file, "directory": Path.mkdir, "pipe": os.mkfifo,
}  # fmt: skip


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("kind", STANDING)
def test_what_has_the_name_of_the_lock_is_left_alone(kind: str, ranks: int, tmp_path: Path) -> None:
    lock = tmp_path / "store.h5.lock"
    STANDING[kind](lock)
    before = lock.lstat()
    result = scimill("droplets", "generate", tmp_path / "store.h5", *FLAGS, ranks=ranks)
    assert (result.returncode, len(result.errors), result.tracebacks) == (4, 1, 0), result
    assert "scimill did not write the file that has the name of its lock" in result.stderr
    assert str(lock) in result.stderr
    after = lock.lstat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)
    assert kind != "link" or (tmp_path / "notes").read_text() == "my notes"
    assert not (tmp_path / "store.h5").exists()


def test_a_link_as_output_is_followed(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "store.h5").symlink_to("scratch/store.h5")
    succeed("droplets", "generate", tmp_path / "store.h5", *FLAGS)
    assert (tmp_path / "store.h5").is_symlink()
    assert [path.name for path in (tmp_path / "scratch").iterdir()] == ["store.h5"]
    succeed("verify", tmp_path / "store.h5")
    assert scimill("droplets", "generate", tmp_path / "store.h5", *FLAGS).returncode == 4
    succeed("droplets", "generate", tmp_path / "store.h5", *FLAGS, "--overwrite")
    assert (tmp_path / "store.h5").is_symlink()


def test_overwriting_keeps_the_permissions(tmp_path: Path) -> None:
    store = tmp_path / "store.h5"
    succeed("droplets", "generate", store, *FLAGS)
    store.chmod(0o640)
    succeed("droplets", "generate", store, *FLAGS, "--overwrite")
    assert stat.S_IMODE(store.stat().st_mode) == 0o640


def test_names_need_not_be_utf8(tmp_path: Path) -> None:
    store = tmp_path / os.fsdecode(b"gr\xfcn.h5")
    for ranks in (1, 2):
        result = succeed("droplets", "generate", store, *FLAGS, "--overwrite", ranks=ranks)
        assert "400 droplets" in result.stdout
    for command in ("verify", "inspect"):
        assert "n.h5" in succeed(command, store).stdout
    with h5py.File(os.fsencode(store)) as file:
        assert "gr\\udcfcn.h5" in file.attrs["command_line"]


@pytest.mark.parametrize(
    "command",
    [
        ("droplets", "generate", "{}", "--count", 10), ("verify", "{}"), ("inspect", "{}"), ("repair", "{}"),
        ("repack", "{}", "b.h5"), ("bench", "generate", "dlrm", "{}"),
        ("droplets", "generate", "a.h5", "--config", "{}"),
        ("atoms", "import", "{}", "a.xyz"), ("droplets", "train", "{}", "--output", "run"),
        ("droplets", "train", "a.h5", "--output", "{}"), ("sky", "pair", "{}", "--output", "pairs.csv"),
        ("jobs", "run", "{}"),
    ],
    ids=lambda words: " ".join(map(str, words[:3])).replace("{}", "NAME"),
)  # fmt: skip
def test_names_that_are_too_long_are_refused(command: tuple[object, ...], tmp_path: Path) -> None:
    name = str(tmp_path / ("n" * 300))
    result = scimill(*(str(word).format(name) for word in command), cwd=tmp_path)
    assert result.returncode in (2, 3, 4), result
    assert (len(result.errors), result.tracebacks) == (1, 0), result


def test_a_plan_is_printed_and_then_what_is_lacking(tmp_path: Path) -> None:
    for command in (("droplets", "generate"), ("bench", "generate", "dlrm")):
        size = ("--size", "900PB") if command[0] == "bench" else ("--count", "1e13")
        for output in (tmp_path / "out", tmp_path / "missing" / "out"):
            result = scimill(*command, output, *size, "--dry-run")
            assert result.returncode == 4, result
            assert f"output    {output}" in result.stdout
            assert "not enough disk space" in result.stderr or "does not exist" in result.stderr


def test_secrets_of_the_command_line_are_not_stored(tmp_path: Path) -> None:
    folder = tmp_path / "token=abc123"
    folder.mkdir()
    succeed("droplets", "generate", folder / "store.h5", *FLAGS)
    with h5py.File(folder / "store.h5") as file:
        command = file.attrs["command_line"]
    assert "abc123" not in command
    assert "token=***" in command


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_signal_before_the_work_begins_stops_it(number: int, ranks: int, tmp_path: Path) -> None:
    """While modules are imported, or MPI starts: exit code 75, so that a chain goes on, and nothing left behind."""
    program = (sys.executable, "-c", EARLY)
    with start("droplets", "generate", tmp_path / "store.h5", *FLAGS, ranks=ranks, program=program,
               env={"SIGNAL": str(int(number))}) as job:  # fmt: skip
        result = job.wait()
    assert (result.returncode, result.tracebacks) == (75, 0), result
    assert f"stopped by signal {signal.Signals(number).name}" in result.stderr
    assert not list(tmp_path.iterdir())


EARLY = """
import os, signal, sys
from scimill import __main__

def run():
    os.kill(os.getpid(), int(os.environ["SIGNAL"]))
    return actual()

actual, __main__.run = __main__.run, run
sys.argv[0] = "scimill"
__main__.main()
"""


HIDDEN = """\
#!/bin/bash
# Run a program; on rank 1, with an empty folder in place of another.
[ "$OMPI_COMM_WORLD_RANK" != 1 ] || exec unshare --mount bash -c 'mount -t tmpfs none "$0" && exec "$@"' "$FOLDER" "$@"
exec "$@"
"""


@pytest.mark.needs("mounting")
@pytest.mark.parametrize("command", [("droplets", "generate"), ("bench", "generate", "dlrm")], ids=["store", "dataset"])
def test_a_folder_that_a_rank_does_not_see_is_named_with_rank_and_host(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    folder, wrapper = tmp_path / "folder", tmp_path / "wrapper"
    folder.mkdir()
    wrapper.write_text(HIDDEN)
    wrapper.chmod(0o755)
    flags = FLAGS if command[0] == "droplets" else ("--size", "1MB")
    result = scimill(
        *command, folder / "out", *flags, ranks=2, program=(str(wrapper), *SCIMILL), env={"FOLDER": str(folder)}
    )
    assert (result.returncode, len(result.errors), result.tracebacks) == (4, 1, 0), result
    assert f"rank 1 on host {socket.gethostname()} does not see" in result.stderr
    assert "hosts share" in result.stderr
    assert not (folder / "out").exists()
