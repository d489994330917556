"""The database as an artifact: verify finds damage, and repair keeps every whole record."""

import numpy as np
import pytest

import scimill
from scimill.atoms.database.database import Database
from scimill.atoms.database.journal import Journal, JournalWriter
from scimill.atoms.database.salvage import salvage
from scimill.errors import StorageError
from scimill.parallel.world import World
from scimill.store.seal import SEAL_BYTES

ALONE = World(None)


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def add(database, count, first=0):
    for number in range(first, first + count):
        database.add(["O", "H", "H"], np.arange(9).reshape(3, 3) * 1.1 + number, energy=float(number))


@pytest.fixture
def folder(tmp_path):
    """Five compressed and twenty uncompressed structures."""
    with Database(tmp_path / "db", write=True) as database:
        add(database, 5)
        database.compress_dataset()
        database.create_reduction("active", number=2)
        add(database, 20, first=5)
    return tmp_path / "db"


def journal_of(folder):
    return next(folder.glob("Uncompressed_data/*/*.journal"))


def test_a_sound_database(folder):
    artifact = scimill.open(folder)
    assert artifact.kind == "database"
    assert artifact.is_complete
    assert artifact.verify(ALONE).problems == ()
    assert "nothing to repair" in artifact.repair(ALONE)
    assert "H2O" in artifact.inspect()
    assert artifact["H2O/energy"][:].tolist() == [0, 1, 2, 3, 4]
    assert artifact.units["H2O/energy"] == "eV"
    assert artifact.identity() == scimill.open(folder).identity()


@pytest.mark.parametrize("record", [0, 7, 19])
def test_every_record_but_the_damaged_one_is_kept(folder, record):
    path = journal_of(folder)
    journal = Journal(path)
    flip(path, int(journal.index.offsets[record]) + 3)
    journal.close()
    artifact = scimill.open(folder)
    assert "readable: 19 whole records" in artifact.verify(ALONE).problems[0]
    assert "Set_aside" in artifact.repair(ALONE)
    assert artifact.verify(ALONE).problems == ()
    assert len(list((folder / "Set_aside").iterdir())) == 1
    with Database(folder) as database:
        found = np.concatenate([batch.columns["energy"] for batch in database.uncompressed()])
    assert found.tolist() == [5.0 + number for number in range(20) if number != record]


def test_an_append_that_was_interrupted_is_no_damage(folder):
    path = journal_of(folder)
    path.write_bytes(path.read_bytes()[:-5])
    assert scimill.open(folder).verify(ALONE).problems == ()


def test_records_behind_a_lost_header_keep_their_own(tmp_path):
    path = tmp_path / "a.journal"
    writer = JournalWriter(path)
    for number in range(3):
        writer.append(b"first", bytes([number]))
    lost = writer.size
    for number in range(3):
        writer.append(b"second", bytes([10 + number]))
    writer.append(b"third", b"x")
    writer.close()
    flip(path, lost + 22)  # in the header of the second kind
    found = salvage(path)
    assert found.records == [(b"first", bytes([number])) for number in range(3)] + [(b"third", b"x")]
    assert found.is_damaged


def erase_seal(segment):
    """Make a segment one of earlier versions, which had no seal."""
    with segment.open("r+b") as file:
        file.write(bytes(SEAL_BYTES))


def test_a_damaged_segment_is_found(folder):
    segment = next(folder.glob("Compressed_data/*.h5"))
    flip(segment, segment.stat().st_size - 1)
    (problem,) = scimill.open(folder).verify(ALONE).problems
    assert problem.startswith("Compressed_data/000000.h5: damaged")


def test_a_damaged_geometry_without_a_seal_is_found_and_named(folder):
    import h5py

    segment = next(folder.glob("Compressed_data/*.h5"))
    with h5py.File(segment, "r", locking=False) as file:
        place = file["H2O/coordinates"].id.get_offset()
    erase_seal(segment)
    flip(segment, place + 6)
    artifact = scimill.open(folder)
    assert "wrong geometry hash: 1 of 5 structures" in artifact.verify(ALONE).problems[0]
    before = segment.read_bytes()
    with pytest.raises(StorageError, match="cannot repair"):
        artifact.repair(ALONE)
    assert segment.read_bytes() == before


def test_an_iteration_that_cannot_be_read_is_set_aside(folder):
    (folder / "Data_reductions/active/1.h5").write_bytes(b"nothing")
    artifact = scimill.open(folder)
    assert "active/1.h5" in artifact.verify(ALONE).problems[0]
    assert "the newest" in artifact.repair(ALONE)
    assert artifact.verify(ALONE).problems == ()
    with Database(folder) as database:
        assert database.reduction("active").iteration == 0
