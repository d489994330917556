"""Rows that do not fit a dataset, and values that a ledger or a dimension lacks."""

import lzma
from pathlib import Path

import h5py
import numpy as np
import pytest

from scimill.store.hdf5 import Rows, library_version, pieces
from scimill.store.layout import DONE
from scimill.store.ledger import BlockLedger, make_row
from scimill.store.reader import Reader
from unit.store.stores import LAYOUT


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    file = h5py.File(tmp_path / "a.h5", "w")
    file.create_dataset("x", (10, 4, 3), "i4")
    return Rows(file, "x")


@pytest.mark.parametrize("shape", [(2, 4), (2, 4, 2), (2, 12)])
def test_rows_of_another_shape_are_refused(shape: tuple[int, ...], rows: Rows) -> None:
    with pytest.raises(ValueError, match=r"for a dataset whose rows have shape \(4, 3\)"):
        rows.write(0, np.zeros(shape, np.int32))


@pytest.mark.parametrize("shape", [(1, 4), (1, 2, 2)])
def test_a_part_of_another_shape_is_refused(shape: tuple[int, ...], rows: Rows) -> None:
    with pytest.raises(ValueError, match=r"a part of shape .* for a dataset whose rows have shape"):
        rows.write_part(0, 0, np.zeros(shape, np.int32))


def test_rows_without_values_are_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", (10, 0), "i4")
        assert Rows(file, "x").read(0, 2).shape == (2, 0)


def test_no_rows_are_no_pieces() -> None:
    assert list(pieces((3,), np.zeros(0), 100)) == []


def test_a_ledger_row_needs_all_columns() -> None:
    with pytest.raises(ValueError, match="the block has no tries for the ledger"):
        make_row(LAYOUT, 0, {"found_rows": 0})


def test_the_version_of_hdf5_is_that_of_h5py() -> None:
    assert ".".join(map(str, library_version())) == h5py.version.hdf5_version.split("-")[0]


def test_the_ledger_of_format_1_is_written_column_by_column(tmp_path: Path) -> None:
    path = tmp_path / "store.h5.part"
    packed = Path(__file__).parents[2] / "data" / "format-1-unfinished.xz"
    path.write_bytes(lzma.decompress(packed.read_bytes()))
    with Reader.open(path) as reader:
        layout, rows = reader.layout, reader.ledger()
    block = int(np.flatnonzero(rows["state"] != DONE)[0])
    values = {name: rows[0][name] for name in layout.ledger_type.names[:-1]}
    row = make_row(layout, block, values)
    with h5py.File(path, "r+", locking=False) as file:
        ledger = BlockLedger(file, layout)
        assert ledger.is_by_column
        ledger.writer()(block, row)
        assert ledger.rows(block, block + 1) == row
        assert ledger.column("state")[block] == DONE
