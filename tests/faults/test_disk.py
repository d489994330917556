"""Disks that are too small, fill up or refuse writing."""

import shutil
from pathlib import Path

import pytest

from faults.conftest import Mount
from mpi import SCIMILL, Result, dataset_hashes, done_blocks, scimill, start, succeed, wait_until

pytestmark = pytest.mark.usefixtures("compiled_kernel", "fuzzers_beside")
QUICK = ("--block-size", 512, "--tolerance", 1e-4)
LONG = ("--count", 300_000, *QUICK)  # 14 MB of data in 586 blocks, two seconds on one rank
STORAGE = 4


def generate(output: Path, *args: object, ranks: int = 1, **options: object) -> Result:
    return scimill("droplets", "generate", output, *args, ranks=ranks, **options)


def assert_refused(result: Result, reason: str) -> None:
    assert (result.returncode, len(result.errors), result.tracebacks) == (STORAGE, 1, 0), result
    assert reason in result.stderr, result


@pytest.mark.parametrize("ranks", [1, 2])
def test_what_is_larger_than_the_disk_is_refused_before_it_begins(mount: Mount, ranks: int) -> None:
    disk = mount("8m")
    assert_refused(generate(disk / "droplets.h5", *LONG, ranks=ranks), "not enough disk space")
    assert list(disk.iterdir()) == []


def fill(disk: Path) -> Path:
    """Take all free space of a disk."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        while free := shutil.disk_usage(disk).free:
            file.write(bytes(min(free, 1 << 20)))
    return ballast


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_disk_that_fills_up_does_not_reach_a_run_whose_space_is_reserved(
    mount: Mount, tmp_path: Path, ranks: int
) -> None:
    disk = mount("40m")
    with start("droplets", "generate", disk / "droplets.h5", *LONG, "--keep-weird", ranks=ranks) as job:
        wait_until(lambda: len(done_blocks(disk / "droplets.h5.part")) > 10, "ten blocks")
        fill(disk)
        assert len(done_blocks(disk / "droplets.h5.part")) < 586
        assert job.wait().returncode == 0
    succeed("droplets", "generate", tmp_path / "elsewhere.h5", *LONG, "--keep-weird")
    assert dataset_hashes(disk / "droplets.h5") == dataset_hashes(tmp_path / "elsewhere.h5")


def test_where_no_space_can_be_reserved_a_run_does_without(ramfs: Path, tmp_path: Path) -> None:
    succeed("droplets", "generate", ramfs / "droplets.h5", "--count", 3000, *QUICK)
    succeed("droplets", "generate", tmp_path / "droplets.h5", "--count", 3000, *QUICK)
    assert dataset_hashes(ramfs / "droplets.h5") == dataset_hashes(tmp_path / "droplets.h5")


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_disk_without_room_for_tables_ends_the_run_and_keeps_what_is_done(
    mount: Mount, tmp_path: Path, ranks: int
) -> None:
    disk = mount("40m")
    output, part = disk / "droplets.h5", disk / "droplets.h5.part"
    with start("droplets", "generate", output, *LONG, ranks=ranks) as job:
        wait_until(lambda: len(done_blocks(part)) > 10, "ten blocks")
        ballast = fill(disk)
        result = job.wait()
    assert_refused(result, "the disk is full")
    assert "--resume" in result.stderr
    assert not output.exists()
    assert 10 < len(done_blocks(part)) < 586

    verdict = succeed("verify", part)
    assert f"{586 - len(done_blocks(part))} of them still to do" in verdict.stdout
    assert_refused(generate(output, *LONG, "--resume", ranks=ranks), "the disk is")

    ballast.unlink()
    succeed("droplets", "generate", output, *LONG, "--resume", ranks=ranks)
    succeed("droplets", "generate", tmp_path / "elsewhere.h5", *LONG)
    assert dataset_hashes(output) == dataset_hashes(tmp_path / "elsewhere.h5")


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_read_only_disk_is_refused(mount: Mount, ranks: int) -> None:
    disk = mount("8m")
    mount("8m", "ro")
    assert_refused(generate(disk / "droplets.h5", "--count", 1000, ranks=ranks), "cannot be written")


def test_a_disk_that_turns_read_only_is_refused_on_resuming(mount: Mount) -> None:
    disk = mount("40m")
    part = disk / "droplets.h5.part"
    with start("droplets", "generate", disk / "droplets.h5", *LONG) as job:
        wait_until(lambda: done_blocks(part), "a block")
        job.kill(0)
    mount("40m", "ro")
    assert_refused(generate(disk / "droplets.h5", *LONG, "--resume"), "cannot be written")


@pytest.mark.parametrize(("ranks", "limit"), [(1, 4096), (1, 100_000), (1, 5_000_000), (2, 5_000_000)])
def test_a_limit_of_file_sizes_is_reported(output: Path, ranks: int, limit: int) -> None:
    result = generate(output, *LONG, ranks=ranks, program=("prlimit", f"--fsize={limit}", *SCIMILL))
    assert_refused(result, "full")
    assert list(output.parent.iterdir()) == []
