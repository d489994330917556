"""A disk that is full, or fills, while adding or compressing: the error is reported and nothing is lost."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from atoms_data import contents, opened
from faults.conftest import Mount
from mpi import scimill, succeed
from scimill.atoms.database.database import Database
from scimill.errors import StorageError

ROWS, ATOMS = 3000, 28  # about 2.5 MB
PAGE = 4096  # bytes: allocation unit of a disk in memory


def add(database: Database, rows: int, seed: int) -> None:
    database.add_batch(np.full(ATOMS, 13), np.random.default_rng(seed).uniform(0, 9, (rows, ATOMS, 3)))


def test_a_full_disk_in_compress_is_reported_and_nothing_is_lost(mount: Mount) -> None:
    disk = mount("4m")
    with opened(disk / "db") as database:
        add(database, ROWS, 1)
        database.refresh()
        before = contents(database)
    result = scimill("atoms", "compress", disk / "db")
    assert (result.returncode, len(result.errors), result.tracebacks) == (4, 1, 0), result
    assert "not enough disk space" in result.errors[0]
    with Database(disk / "db") as database:
        assert contents(database) == before
    moved = shutil.copytree(disk / "db", disk.with_name("elsewhere"))
    assert f"{ROWS:,} structures compressed" in succeed("atoms", "compress", moved).stdout
    with Database(moved) as database:
        assert contents(database).keys() == before.keys()


@pytest.fixture
def filling(mount: Mount) -> tuple[Path, Path]:
    """A database on a disk with space for the arrays of a segment, but not for its metadata."""
    disk = mount("8m")
    with opened(disk / "db") as database:
        add(database, ROWS, 1)
    elsewhere = shutil.copytree(disk / "db", disk.with_name("elsewhere"))
    with opened(elsewhere) as database:
        database.compress_dataset()
        needed = ATOMS + sum(values.nbytes for _, _, columns in database.blocks() for values in columns.values())
    filler = disk / "filler"
    free = shutil.disk_usage(disk).free - 4 * PAGE
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, (free - needed) // PAGE * PAGE)
    assert needed <= shutil.disk_usage(disk).free
    return disk / "db", filler


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_disk_that_fills_in_the_midst_of_compressing(filling: tuple[Path, Path], ranks: int) -> None:
    path, filler = filling
    with Database(path) as database:
        before = contents(database)
    result = scimill("atoms", "compress", path, ranks=ranks)
    assert (result.returncode, len(result.errors), result.tracebacks) == (4, 1, 0), result
    assert "the disk is full" in result.errors[0]
    with Database(path) as database:
        assert database.groups == {}
        assert contents(database) == before
    filler.unlink()
    assert f"{ROWS:,} structures compressed" in succeed("atoms", "compress", path, ranks=ranks).stdout
    with Database(path) as database:
        assert contents(database) == before
    assert [entry.name for entry in (path / "Compressed_data").iterdir()] == ["000000.h5"]


def test_a_process_goes_on_once_there_is_space(filling: tuple[Path, Path]) -> None:
    path, filler = filling
    with opened(path, create=False) as database:
        before = contents(database)
        for _ in range(2):
            with pytest.raises(StorageError, match="the disk is full"):
                database.compress_dataset()
            assert contents(database) == before
        filler.unlink()
        assert database.compress_dataset() == {f"Al{ATOMS}": ROWS}
        assert contents(database) == before


def test_a_full_disk_while_adding_keeps_what_was_added(mount: Mount) -> None:
    disk = mount("4m")
    with opened(disk / "db") as database:
        added = 0
        with pytest.raises(StorageError, match="the disk is full"):
            for seed in range(100):
                add(database, 100, seed)
                added += 100
        assert added > 1000
    with Database(disk / "db") as database:
        assert len(contents(database)) == added
