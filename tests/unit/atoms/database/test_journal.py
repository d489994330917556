"""Journals: whatever happens to the end of the file, all whole records before it are read."""

import contextlib
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scimill.atoms.database.journal import READ_BYTES, Journal, JournalWriter


def write(path, records):
    """Write records; return the size of the file after each."""
    path.unlink(missing_ok=True)
    writer, sizes = JournalWriter(path), []
    for header, body in records:
        writer.append(header, body)
        sizes.append(writer.size)
    writer.close()
    return sizes


def read(path):
    with contextlib.closing(Journal(path)) as journal:
        index = journal.index
        numbers = [np.array([i]) for i in range(len(index.kinds))]
        return [(index.headers[index.kinds[n[0]]], journal.bodies(n).tobytes()) for n in numbers]


RECORDS = st.lists(st.tuples(st.sampled_from([b"a", b"bb", b"{}"]), st.binary(min_size=1, max_size=40)), max_size=12)
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@PATIENT
@given(records=RECORDS)
def test_what_is_written_is_read(tmp_path, records):
    write(tmp_path / "j", records)
    assert read(tmp_path / "j") == records


@PATIENT
@given(records=RECORDS, cut=st.floats(0, 1))
def test_a_torn_end_loses_only_itself(tmp_path, records, cut):
    sizes = write(tmp_path / "j", records)
    length = int(cut * (tmp_path / "j").stat().st_size)
    os.truncate(tmp_path / "j", length)
    assert read(tmp_path / "j") == records[: sum(size <= length for size in sizes)]


@PATIENT
@given(records=RECORDS.filter(len), place=st.floats(0, 0.999), bit=st.integers(0, 7))
def test_a_flipped_bit_is_no_record(tmp_path, records, place, bit):
    sizes = write(tmp_path / "j", records)
    data = bytearray((tmp_path / "j").read_bytes())
    where = int(place * len(data))
    data[where] ^= 1 << bit
    (tmp_path / "j").write_bytes(data)
    assert read(tmp_path / "j") == records[: sum(size <= where for size in sizes)]


def test_records_are_longer_than_what_is_read_at_once(tmp_path):
    records = [(b"h", bytes([n]) * size) for n, size in enumerate((10, READ_BYTES - 30, 3 * READ_BYTES, 5))]
    write(tmp_path / "j", records)
    assert read(tmp_path / "j") == records


def test_records_of_one_kind_are_read_together(tmp_path):
    write(tmp_path / "j", [(b"h" if n % 3 else b"x", bytes([n]) * 4) for n in range(9)])
    with contextlib.closing(Journal(tmp_path / "j")) as journal:
        mine = np.flatnonzero(journal.index.kinds == 1)
        assert journal.bodies(mine)[:, 0].tolist() == [1, 2, 4, 5, 7, 8]


def test_a_journal_is_begun_once(tmp_path):
    write(tmp_path / "j", [])
    with pytest.raises(FileExistsError):
        JournalWriter(tmp_path / "j")


def test_a_reader_keeps_a_file_that_is_removed(tmp_path):
    write(tmp_path / "j", [(b"h", b"body")])
    with contextlib.closing(Journal(tmp_path / "j")) as journal:
        (tmp_path / "j").unlink()
        assert journal.bodies(np.array([0])).tobytes() == b"body"
