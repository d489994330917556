"""A store as an artifact: what it says of itself, and what of it can be repaired."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from scimill.artifacts import COMPLETE, Damage, Recipe
from scimill.store.artifact import StoreArtifact
from scimill.store.output import Output
from scimill.store.reader import Reader
from scimill.store.repack import Packing, repack
from scimill.store.writer import BlockData
from unit.store.stores import ALONE, content, fill


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "store.h5"
    assert fill(Output(path))
    return path


@pytest.fixture
def damaged(whole: Path, tmp_path: Path) -> Path:
    """A store whose second block is damaged."""
    path = Path(shutil.copy(whole, tmp_path / "store.h5"))
    with h5py.File(path, "r+", locking=False) as file:
        file["count"][5000] += 1
    return path


def test_it_says_what_it_is_and_how_it_was_made(whole: Path, tmp_path: Path) -> None:
    store = StoreArtifact(whole)
    assert StoreArtifact.recognise(whole)
    assert store.describe_completeness() == COMPLETE
    assert store.recipe() == Recipe("test", "", "size: 1", store.provenance["command_line"])
    assert "3 of 3 done" in store.inspect()
    with Reader.open(whole) as reader:
        assert (store.identity(), store.sums()) == (reader.identity(), reader.checksums())
    part = Path(shutil.copy(whole, tmp_path / "store.h5.part"))
    assert StoreArtifact(part).describe_completeness() == "unfinished: 0 of 3 blocks to do"


def test_its_values_are_read_by_name(whole: Path) -> None:
    fields = StoreArtifact(whole).fields
    assert list(fields) == ["count", "spectrum", "found/row"]
    assert np.array_equal(fields["count"][4096:8192], content(1).fields["count"])
    assert fields["found/row"][:].tolist() == [1, 1, 2]
    assert fields["found/row"][-1] == 2


def test_what_can_be_repaired_is_found(whole: Path, damaged: Path) -> None:
    assert StoreArtifact(whole).find_damage(ALONE) == Damage("", "the other 3 of 3 blocks", "")
    assert StoreArtifact(damaged).find_damage(ALONE) == Damage("block 1", "the other 2 of 3 blocks", "")
    assert StoreArtifact(damaged).verify(ALONE).problems == ("block 1: its data do not match their checksum",)


def test_what_cannot_be_repaired_has_an_obstacle(damaged: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed.h5"
    repack(damaged, Output(packed), Packing("gzip", 1, False, 1000))  # it copies what is there
    found = StoreArtifact(packed).find_damage(ALONE)
    assert (found.lost, found.obstacle[:38]) == ("block 1", "a repacked copy cannot be repaired: re")

    def make(block: int) -> BlockData:
        data = content(block)
        data.fields["count"][0] = 100
        return data

    fill(Output(tmp_path / "wrong.h5"), make)
    found = StoreArtifact(tmp_path / "wrong.h5").find_damage(ALONE)
    assert found.lost == ""
    assert found.obstacle == "values are outside their physical range, although their bytes are as written"
