"""System calls that fail, one at a time: a message names the cause, no file is published, --resume goes on."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from faults.conftest import Mount
from mpi import SCIMILL, Result, dataset_hashes, scimill, succeed
from scimill.errors import StorageError
from scimill.store.output import Output
from unit.store.stores import fill

FLAGS = ("--count", 2000, "--block-size", 100, "--tolerance", 1e-4)
KERNEL_ENOTSUPP = 524


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("shim") / "shim.so"
    source = Path(__file__).with_name("shim.c")
    subprocess.run(["cc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


@pytest.fixture(scope="module")
def expected(compiled_kernel: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    store = tmp_path_factory.mktemp("expected") / "store.h5"
    succeed("droplets", "generate", store, *FLAGS)
    return dataset_hashes(store)


def faults(
    shim: Path, call: str, number: int, name: str = "store.h5.part", after: int = 0, **more: object
) -> dict[str, str]:
    """Return the environment in which a call fails."""
    given = {"name": name, "call": call, "errno": number, "after": after, **more}
    return {"LD_PRELOAD": str(shim), **{f"FAULT_{key.upper()}": str(value) for key, value in given.items()}}


def generate(store: Path, ranks: int, environment: dict[str, str], *more: object) -> Result:
    """Generate in processes of their own, which load the shim."""
    return scimill("droplets", "generate", store, *FLAGS, *more, ranks=ranks, env=environment, program=[*SCIMILL])


CAUSES = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "your quota on this disk is used up",
    errno.EIO: "the disk or its server reports an input/output error",
    errno.ESTALE: "the server no longer knows the file",
}


@pytest.mark.parametrize(
    ("call", "number", "ranks"),
    [
        ("pwrite", errno.EDQUOT, 1), ("pwrite", errno.EDQUOT, 2), ("pwrite", errno.EIO, 1), ("pwrite", errno.EIO, 2),
        ("pwrite", errno.ESTALE, 1), ("pwrite", errno.ESTALE, 2), ("pwrite", errno.ENOSPC, 2), ("fsync", errno.EIO, 1),
        ("fsync", errno.EDQUOT, 2), ("open", errno.EIO, 1), ("rename", errno.EIO, 2), ("fallocate", errno.EDQUOT, 1),
    ],
)  # fmt: skip
def test_a_failing_call_is_named_and_the_run_resumes(
    call: str, number: int, ranks: int, shim: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    store = tmp_path / "store.h5"
    after = {"pwrite": 20, "open": 1}.get(call, 0)
    result = generate(store, ranks, faults(shim, call, number, after=after))
    assert (result.returncode, len(result.errors), result.tracebacks) == (4, 1, 0), result
    assert CAUSES[number] in result.stderr, result
    assert "--resume" in result.stderr, result
    assert not store.exists()
    succeed("droplets", "generate", store, *FLAGS, "--resume", ranks=3 - ranks)
    assert dataset_hashes(store) == expected
    assert [path.name for path in tmp_path.iterdir()] == ["store.h5"]


@pytest.mark.parametrize("ranks", [1, 2])
def test_short_writes_are_continued(ranks: int, shim: Path, expected: dict[str, str], tmp_path: Path) -> None:
    store = tmp_path / "store.h5"
    assert generate(store, ranks, faults(shim, "pwrite", 0)).returncode == 0
    assert dataset_hashes(store) == expected


@pytest.mark.parametrize("number", [errno.ENOLCK, KERNEL_ENOTSUPP])
def test_without_file_locks_a_lease_protects_the_output(
    number: int, shim: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    store = tmp_path / "store.h5"
    result = generate(store, 2, faults(shim, "flock", number, name="store.h5.lock"))
    assert result.returncode == 0, result
    assert "hosts do not share file locks here (no file locks): store.h5.lock is a lease" in result.stderr
    assert dataset_hashes(store) == expected
    assert [path.name for path in tmp_path.iterdir()] == ["store.h5"]


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_lost_writes_are_found_before_the_store_is_published(
    ranks: int, shim: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    """As with a host whose cache is lost: the last rank's writes end well, but do not reach the storage."""
    store = tmp_path / "store.h5"
    lost = faults(shim, "pwrite", -1, after=15 if ranks > 1 else 100, **({"rank": ranks - 1} if ranks > 1 else {}))
    result = generate(store, ranks, lost)
    assert (result.returncode, len(result.errors), result.tracebacks) == (4, 1, 0), result
    assert "the storage does not hold what was written in blocks" in result.stderr
    assert not store.exists()
    succeed("droplets", "generate", store, *FLAGS, "--resume", ranks=ranks)
    assert dataset_hashes(store) == expected


def test_one_lost_write_of_data_is_found_if_all_are_read_back(
    shim: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    store = tmp_path / "store.h5"
    lost = faults(shim, "pwrite", -1, after=20, count=1, rank=1)
    result = generate(store, 2, lost, "--read-back", "all")
    assert (result.returncode, len(result.errors)) == (4, 1), result
    assert "what was written in block " in result.stderr
    succeed("droplets", "generate", store, *FLAGS, "--resume", "--read-back", "all", ranks=3)
    assert dataset_hashes(store) == expected


def test_lost_rows_of_a_datasets_ledger_are_found(shim: Path, tmp_path: Path) -> None:
    flags = ("bench", "generate", "dlrm", tmp_path / "set", "--size", "2MB", "--block-size", 65536)
    lost = faults(shim, "pwrite", -1, name="set.part/.scimill/ledger", after=4, count=2, rank=1)
    result = scimill(*flags, ranks=2, env=lost, program=[*SCIMILL])
    assert (result.returncode, len(result.errors), result.tracebacks) == (4, 1, 0), result
    assert "the storage does not hold what was written in blocks" in result.stderr
    assert not (tmp_path / "set").exists()
    succeed(*flags, "--resume", ranks=1)
    succeed("verify", tmp_path / "set")


# ---- calls that fail in ways of their own ------------------------------------------------------------------------


FILL = "from unit.store.stores import Output, fill; fill(Output(path))"


def run_python(program: str, path: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a program on a path, with ``from pathlib import Path; path = Path(...)`` before it."""
    tests = str(Path(__file__).parents[1])
    lines = ("import sys", "from pathlib import Path", f"path = Path(sys.argv[1]); sys.path.append({tests!r})", program)
    command = [sys.executable, "-c", "\n".join(lines), path]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("call", ["open", "flock"])
def test_a_lock_that_cannot_be_read_ends_the_run(call: str, shim: Path, tmp_path: Path) -> None:
    lock = tmp_path / "store.h5.lock"
    lock.write_text("process 7 on h1")
    failing = faults(shim, call, errno.EIO, name=lock.name, after=int(call == "open"))
    done = run_python(FILL, tmp_path / "store.h5", failing)
    assert f"StorageError: {CAUSES[errno.EIO]}" in done.stderr.replace("scimill: error: ", ""), done
    assert lock.read_text() == "process 7 on h1"
    assert [path.name for path in tmp_path.iterdir()] == [lock.name]


def test_a_store_is_made_under_a_lease_where_there_are_no_locks(shim: Path, tmp_path: Path) -> None:
    done = run_python(FILL, tmp_path / "store.h5", faults(shim, "flock", errno.ENOLCK, name="store.h5.lock"))
    assert "hosts do not share file locks here (no file locks): store.h5.lock is a lease" in done.stderr, done
    assert [path.name for path in tmp_path.iterdir()] == ["store.h5"]


def test_a_lock_that_goes_away_while_it_is_opened_is_made_anew(shim: Path, tmp_path: Path) -> None:
    lock = tmp_path / "store.h5.lock"
    lock.write_text("process 7 on h1")
    program = "from scimill.claim import Claim; Claim(path).acquire(); print(path.read_text())"
    done = run_python(program, lock, faults(shim, "open", errno.ENOENT, name=lock.name, after=1, count=1))
    assert done.stdout.startswith("scimill lock: process "), done


def test_reserving_space_that_a_signal_interrupts_is_continued(shim: Path, tmp_path: Path) -> None:
    store, whole = tmp_path / "store.h5", tmp_path / "whole.h5"
    done = run_python(FILL, store, faults(shim, "fallocate", errno.EINTR, count=1))
    assert done.returncode == 0, done
    assert fill(Output(whole))
    assert dataset_hashes(store) == dataset_hashes(whole)
    # Each has all its space. The file system's own blocks of the file count too, more of them if it is in pieces.
    assert all(path.stat().st_blocks * 512 >= path.stat().st_size for path in (store, whole))


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
def test_a_directory_that_cannot_be_synced_is_no_error_but_one_that_fails_is(
    number: int, shim: Path, tmp_path: Path
) -> None:
    program = "from scimill.files import replacing\nwith replacing(path, 'list') as part: part.write_text('new')"
    done = run_python(program, tmp_path / "list", faults(shim, "fsync", number, name=tmp_path.name, after=1))
    if number == errno.EINVAL:
        assert (done.returncode, (tmp_path / "list").read_text()) == (0, "new")
    else:
        assert f"{CAUSES[number]} while renaming the file" in done.stderr, done


@pytest.mark.parametrize(
    ("call", "number", "answer"),
    [
        ("open", 0, "True"),  # no call fails
        ("open", errno.EINVAL, "False"),
        ("open", errno.EIO, CAUSES[errno.EIO]),
        ("pwrite", errno.EINVAL, "False"),  # the flag is accepted, and then no write
        ("pwrite", errno.ENOSPC, "True"),  # a resumed output already has its space
        ("pwrite", errno.EIO, CAUSES[errno.EIO]),
    ],
)
def test_direct_io_is_tried(call: str, number: int, answer: str, shim: Path, tmp_path: Path) -> None:
    program = "from scimill.store.direct import use_direct; print(use_direct(path, wanted=True))"
    # The first time that the file is opened it is made.
    failing = faults(shim, call, number, name=".direct-", after=int(call == "open"), count=9 if number else 0)
    done = run_python(program, tmp_path, failing)
    assert answer in (done.stdout if answer in ("True", "False") else done.stderr), done
    assert ("does not support direct I/O" in done.stderr) == (answer == "False")
    assert list(tmp_path.iterdir()) == []


def test_neither_reserved_space_nor_direct_io_is_needed(ramfs: Path, tmp_path: Path) -> None:
    assert fill(Output(ramfs / "store.h5", direct=True))
    assert fill(Output(tmp_path / "store.h5"))
    assert dataset_hashes(ramfs / "store.h5") == dataset_hashes(tmp_path / "store.h5")


def test_nothing_is_begun_on_a_read_only_disk(mount: Mount) -> None:
    disk = mount("8m")
    mount("8m", "ro")
    with pytest.raises(StorageError, match="the output's directory cannot be written"):
        fill(Output(disk / "store.h5"))
