"""Clones, on a file system that supports them."""

import fcntl
import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpi import Result, scimill, start, succeed, wait_until
from needs import require

SIZE = "200MB"
SCALE = ("bench", "scale", "imseg")


@pytest.fixture(scope="module")
def xfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Mount a disk whose files can share blocks, with a dataset."""
    require("XFS")
    folder = tmp_path_factory.mktemp("xfs")
    image, disk = folder / "image", folder / "disk"
    with image.open("wb") as file:
        file.truncate(1 << 30)
    subprocess.run(["/usr/sbin/mkfs.xfs", "-q", "-m", "reflink=1", image], check=True)
    disk.mkdir()
    subprocess.run(["mount", "-o", "loop", image, disk], check=True)
    succeed("bench", "generate", "imseg", disk / "input", "--size", "60MB")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.fixture
def output(xfs: Path) -> Iterator[Path]:
    yield xfs / "output"
    for path in xfs.glob("output*"):
        path.unlink() if path.is_file() else shutil.rmtree(path)


def clone(xfs: Path, output: Path, *more: object, ranks: int = 1) -> Result:
    return scimill(*SCALE, xfs / "input", output, "--size", SIZE, "--mode", "reflink", *more, ranks=ranks)


def kill_while_cloning(xfs: Path, output: Path) -> None:
    """Kill a run before it finishes; if it was too fast, try again."""
    part = output.with_name("output.part")
    for _ in range(10):
        with start(*SCALE, xfs / "input", output, "--size", SIZE, "--mode", "reflink") as job:
            wait_until(lambda: part.exists() or output.exists(), "its directory")
            job.kill(0)
        if not output.exists():
            return
        shutil.rmtree(output)
    pytest.fail("ten runs finished before they were killed")


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.npy")}


@pytest.mark.parametrize("ranks", [1, 3])
def test_clones_are_copies_that_take_no_space(xfs: Path, output: Path, ranks: int) -> None:
    before = shutil.disk_usage(xfs).used
    result = clone(xfs, output, ranks=ranks)
    assert result.returncode == 0, result
    size = sum(path.stat().st_size for path in output.glob("*.npy"))
    assert size > 120e6
    assert shutil.disk_usage(xfs).used - before < size / 20
    assert set(hashes(output).values()) == set(hashes(xfs / "input").values())
    assert "sound" in succeed("bench", "verify", output).stdout
    assert "complete already" in clone(xfs, output, "--resume", ranks=ranks).stderr


def test_a_killed_run_is_resumed_or_overwritten(xfs: Path, output: Path) -> None:
    part = output.with_name("output.part")
    for how in ("--resume", "--overwrite"):
        kill_while_cloning(xfs, output)
        refused = clone(xfs, output)
        assert (refused.returncode, len(refused.errors)) == (4, 1), refused
        assert "use --resume" in refused.stderr
        result = clone(xfs, output, how)
        assert result.returncode == 0, result
        assert not part.exists()
        assert "sound" in succeed("bench", "verify", output).stdout
        shutil.rmtree(output)


@pytest.mark.parametrize("ranks", [1, 3])
def test_another_file_system_is_refused_and_nothing_is_left(xfs: Path, tmp_path: Path, ranks: int) -> None:
    result = clone(xfs, tmp_path / "output", ranks=ranks)
    assert (result.returncode, len(result.errors), result.tracebacks) == (4, 1, 0), result
    assert "cannot clone files" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_asks_for_no_space(xfs: Path, output: Path) -> None:
    result = scimill(*SCALE, xfs / "input", output, "--size", "20GB", "--mode", "reflink", "--dry-run")
    assert result.returncode == 0, result
    assert "times the input" in result.stdout
    assert not output.with_name("output.part").exists()


def test_another_configuration_is_not_resumed(xfs: Path, output: Path) -> None:
    succeed(*SCALE, xfs / "input", output, "--size", SIZE, "--mode", "reflink")
    result = clone(xfs, output, "--resume", "--seed", 2)
    assert (result.returncode, len(result.errors)) == (2, 1), result
    assert "seed" in result.stderr


def test_files_of_another_run_are_not_touched(xfs: Path, output: Path) -> None:
    with output.with_name("output.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = clone(xfs, output, "--overwrite")
    assert (result.returncode, len(result.errors)) == (4, 1), result
    assert "another run is writing" in result.stderr
    foreign = output.with_name("output.part") / "foreign"
    foreign.parent.mkdir()
    foreign.touch()
    result = clone(xfs, output, "--overwrite")
    assert (result.returncode, len(result.errors), result.tracebacks) == (4, 1, 0), result
    assert foreign.exists()
