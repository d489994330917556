"""Stores of format 1, written by scimill of November 2026, are read, verified, resumed and repacked."""

import lzma
from pathlib import Path

import pytest

import scimill as package
from mpi import change_ledger, dataset_hashes, scimill, succeed

DATA = Path(__file__).parents[2] / "data"
FLAGS = ("--count", 200, "--block-size", 50, "--tolerance", 1e-4)


def unpack(name: str, path: Path) -> Path:
    path.write_bytes(lzma.decompress((DATA / f"format-1-{name}.xz").read_bytes()))
    return path


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return unpack("whole", tmp_path / "whole.h5")


def test_it_is_what_this_scimill_makes_but_for_the_form_of_the_ledger(whole: Path, tmp_path: Path) -> None:
    succeed("droplets", "generate", tmp_path / "new.h5", *FLAGS)
    new, old = dataset_hashes(tmp_path / "new.h5"), dataset_hashes(whole)
    assert whole.read_bytes().startswith(b"scimill store, format 1")
    assert {name: new[name] for name in old} == old
    assert new.keys() - old.keys() == {"row", "weird_row", "block"}


@pytest.mark.parametrize("ranks", [1, 2])
def test_it_is_verified(whole: Path, ranks: int) -> None:
    assert "sound; 200 rows in 4 blocks" in succeed("verify", whole, ranks=ranks).stdout
    data = bytearray(whole.read_bytes())
    data[-3] ^= 4  # in the ledger
    whole.write_bytes(data)
    assert scimill("verify", whole, ranks=ranks).returncode == 4


def test_it_is_read_and_inspected(whole: Path) -> None:
    store = package.open(whole)
    assert store["radius"][:].shape == (200,)
    assert "4 of 4 done" in store.inspect()


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_it_is_resumed(whole: Path, tmp_path: Path, ranks: int) -> None:
    unpack("unfinished", tmp_path / "store.h5.part")
    succeed("droplets", "generate", tmp_path / "store.h5", *FLAGS, "--resume", ranks=ranks)
    assert dataset_hashes(tmp_path / "store.h5") == dataset_hashes(whole)
    succeed("verify", tmp_path / "store.h5")


def test_a_packed_copy_has_the_ledger_of_today(whole: Path, tmp_path: Path) -> None:
    import h5py

    succeed("repack", whole, tmp_path / "packed.h5")
    succeed("verify", tmp_path / "packed.h5")
    with h5py.File(tmp_path / "packed.h5", "r+") as file:
        change_ledger(file, 1, state=0)
    assert scimill("verify", tmp_path / "packed.h5").returncode == 4
