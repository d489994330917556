"""Blocks larger than what MPI, HDF5 and Linux write at once."""

import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from mpi import scimill, succeed
from scimill.store.hdf5 import pieces


@pytest.mark.parametrize("how", ["alone", "together"])
def test_a_block_of_two_and_a_half_gibibytes(how: str, tmp_path: Path) -> None:
    store = tmp_path / "large.h5"
    program = (sys.executable, str(Path(__file__).with_name("large.py")))
    result = scimill(store, how, program=program, ranks=2)
    assert result.returncode == 0, result
    succeed("verify", store)
    with h5py.File(store, "r", locking=False) as file:
        x = file["x"]
        assert (x[0, 0, 0], x[0, -1, -1]) == (1, 2)
        assert how == "alone" or (x[0, 3, -1], x[0, 4, 0]) == (3, 4)
    store.unlink()


@pytest.mark.parametrize("largest", [1, 7, 64, 1000])
def test_pieces_cover_the_array_once(largest: int) -> None:
    values = np.arange(3 * 1 * 5 * 4, dtype=np.uint8).reshape(3, 1, 5, 4)
    found = np.zeros((10, 2, 9, 6), dtype=np.int64)
    for place, piece in pieces((2, 1, 3, 1), values, largest):
        assert piece.flags.c_contiguous
        assert piece.nbytes <= largest
        found[tuple(slice(at, at + size) for at, size in zip(place, piece.shape, strict=True))] += piece + 1
    assert np.array_equal(found[2:5, 1:2, 3:8, 1:5], values.astype(int) + 1)
    assert found.sum() == (values.astype(int) + 1).sum()
