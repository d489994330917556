"""A disk that is full while a database is added to or compressed: told, and nothing is lost."""

import shutil

import numpy as np
import pytest

from atoms_data import contents, opened
from faults.conftest import Mount
from mpi import scimill, succeed
from scimill.atoms import Database
from scimill.errors import StorageError

ROWS, ATOMS = 3000, 28  # some 2.5 MB


def add(database: Database, rows: int, seed: int) -> None:
    database.add_batch(np.full(ATOMS, 13), np.random.default_rng(seed).uniform(0, 9, (rows, ATOMS, 3)))


def test_a_full_disk_in_compress_is_told_and_nothing_is_lost(mount: Mount) -> None:
    disk = mount("4m")
    with opened(disk / "db") as database:
        add(database, ROWS, 1)
        database.refresh()
        before = contents(database)
    result = scimill("atoms", "compress", disk / "db")
    assert (result.returncode, len(result.errors), result.tracebacks) == (4, 1, 0), result
    assert "the disk is" in result.errors[0]
    with Database(disk / "db") as database:
        assert contents(database) == before
    moved = shutil.copytree(disk / "db", disk.with_name("elsewhere"))
    assert f"{ROWS:,} structures compressed" in succeed("atoms", "compress", moved).stdout
    with Database(moved) as database:
        assert contents(database).keys() == before.keys()


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
