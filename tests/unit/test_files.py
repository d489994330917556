"""Files that cannot be written, and what the message then says; each error is the kernel's own."""

import errno
import os
from pathlib import Path

import pytest

from scimill.errors import ConfigError, StorageError
from scimill.files import (
    check_free,
    check_picture,
    check_target,
    check_workbook,
    describe_free_space,
    replacing,
    reserve,
    storage_errors,
)
from unit.limits import no_file_may_grow


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(StorageError, match="the disk is full while writing"),
        storage_errors(tmp_path, "writing"),
        Path("/dev/full").open("wb", buffering=0) as full,
    ):
        full.write(b"x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("MPI_ERR_NO_SPACE: no space left on device", "the disk is full"),
        ("file write failed: errno = 122, error message = 'Disk quota exceeded'", "your quota on this disk is used up"),
        ("MPI_ERR_OTHER: known error not in list", "writing failed: MPI_ERR_OTHER"),
        ("", "writing failed: RuntimeError"),
    ],
)
def test_the_texts_of_mpi_and_hdf5_are_read(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=message), storage_errors(tmp_path / "a.h5", "writing"):
        raise RuntimeError(text)
    assert list(tmp_path.iterdir()) == []


def test_where_mpi_and_hdf5_give_no_reason_a_trial_finds_it(tmp_path: Path) -> None:
    with no_file_may_grow():
        with pytest.raises(StorageError, match="files may not be so large"), storage_errors(tmp_path / "a.h5", "it"):
            raise RuntimeError("MPI_ERR_OTHER: known error not in list")
        with pytest.raises(StorageError, match="files may not be so large"), storage_errors(tmp_path / "a.h5", "it"):
            raise OSError(errno.EIO, "HDF5's own number of any error")
    assert list(tmp_path.iterdir()) == []


def test_what_stands_in_the_way_of_an_output_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.h5").touch()
    check_target(tmp_path / "a.h5", overwrite=True)
    check_target(tmp_path / "b.h5", overwrite=False)
    for path, message in ((tmp_path / "a.h5", "already exists"), (tmp_path, "is a directory")):
        with pytest.raises(StorageError, match=message):
            check_target(path, overwrite=False)
    with pytest.raises(StorageError, match="directory does not exist"):
        check_target(tmp_path / "missing" / "a.h5", overwrite=True)


def test_workbooks_and_pictures_have_their_own_suffix(tmp_path: Path) -> None:
    check_workbook(tmp_path / "a.XLSX", "--workbook")
    check_picture(tmp_path / "a.png", "--picture")
    with pytest.raises(ConfigError, match=r"the workbook's name must end in \.xlsx"):
        check_workbook(tmp_path / "a.png", "--workbook")
    with pytest.raises(ConfigError, match=r"the picture's name must end in \.png"):
        check_picture(tmp_path / "a.xlsx", "--picture")


def test_free_space_is_described_and_checked(tmp_path: Path) -> None:
    assert describe_free_space(tmp_path).endswith("iB")
    assert describe_free_space(tmp_path / "missing") == "unknown: no such file or directory"
    assert describe_free_space(Path("/proc")) == "unknown: the file system does not report it"
    check_free(Path("/proc/a"), 1 << 60)
    check_free(tmp_path / "a", 1)
    with pytest.raises(StorageError, match="not enough disk space: 1024 PiB needed"):
        check_free(tmp_path / "a", 1 << 60)


def test_space_is_reserved_where_the_file_system_can(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"kept")
    with path.open("r+b") as file:
        assert reserve(file.fileno(), 0, 100_000)
        assert reserve(file.fileno(), 200_000, 0)
    assert path.read_bytes() == b"kept" + bytes(99_996)
    assert path.stat().st_blocks * 512 >= 100_000
    with Path("/proc/self/comm").open("r+b", buffering=0) as file:
        assert not reserve(file.fileno(), 0, 1)


def test_space_that_cannot_be_had_is_an_error(tmp_path: Path) -> None:
    with (
        no_file_may_grow(),
        (tmp_path / "a").open("wb") as file,
        pytest.raises(OSError, match=os.strerror(errno.EFBIG)),
    ):
        reserve(file.fileno(), 0, 1)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "list"
    with replacing(path, "list") as part:
        part.write_text("old")
    path.chmod(0o640)
    with (
        pytest.raises(StorageError, match="while writing the list"),
        replacing(path, "list") as part,
        no_file_may_grow(),
    ):
        part.write_text("new")
    assert path.read_text() == "old"
    with replacing(path, "list") as part:
        part.write_text("new")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("new", 0o640)
    assert list(tmp_path.iterdir()) == [path]
