"""The seal: what it covers, and files that it refuses before HDF5 sees them."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from scimill.errors import InputError
from scimill.store import hdf5
from scimill.store.checksums import crc32c
from scimill.store.output import Output
from scimill.store.reader import Reader
from scimill.store.seal import (
    SEAL_BYTES,
    SIGNATURE,
    Damaged,
    NotAStore,
    Seal,
    make_seal,
    read_seal,
    structure_checksum,
    write_seal,
)
from unit.store.stores import LAYOUT, fill


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "store.h5"
    assert fill(Output(path))
    return path


def flip(position: int) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        data[position] ^= 1

    return change


def remove_signatures(data: bytearray) -> None:
    data[:] = data.replace(SIGNATURE, bytes(len(SIGNATURE)))


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (flip(3), NotAStore, "not a scimill store"),
        (flip(60), Damaged, "the seal at the start of the file is damaged"),
        (flip(SEAL_BYTES - 1), Damaged, "the seal at the start of the file is damaged"),
        (lambda data: data.__delitem__(slice(4000, None)), Damaged, "the seal at the start of the file is damaged"),
        (lambda data: data.__delitem__(slice(-1, None)), Damaged, "the file is truncated: "),
        (lambda data: data.append(0), Damaged, "the file is too long: "),
        (flip(SEAL_BYTES + 9), Damaged, "the file's structure is damaged"),
        (flip(SEAL_BYTES + 20), Damaged, "the file's structure is damaged"),  # HDF5's open mark
        (remove_signatures, Damaged, "the file's structure is damaged"),
    ],
)
def test_damage_is_found(
    change: Callable[[bytearray], None], kind: type[Exception], message: str, whole: Path, tmp_path: Path
) -> None:
    data = bytearray(whole.read_bytes())
    change(data)
    (tmp_path / "store.h5").write_bytes(data)
    with pytest.raises(kind, match=message):
        Reader.open(tmp_path / "store.h5")


def test_a_later_format_is_named(whole: Path, tmp_path: Path) -> None:
    first, second, _ = whole.read_bytes()[:SEAL_BYTES].split(b"\n", 2)
    text = first.replace(b"format 2", b"format 3") + b"\n" + second + b"\n"
    (tmp_path / "store.h5").write_bytes((text + f"{crc32c(text):08x}\n".encode()).ljust(SEAL_BYTES, b"\0"))
    with pytest.raises(NotAStore, match="unsupported store format 3"):
        read_seal(tmp_path / "store.h5")


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_seal(tmp_path / "store.h5")


def test_it_holds_a_limited_number_of_datasets() -> None:
    assert len(Seal(1, ((0, 1),) * 100, 0).to_bytes()) == SEAL_BYTES
    with pytest.raises(ValueError, match="2000 datasets do not fit into a seal"):
        Seal(1, ((0, 1),) * 2000, 0).to_bytes()


def test_it_covers_all_bytes_but_those_of_datasets_and_the_open_mark() -> None:
    header = SIGNATURE + bytes(range(8, 60))
    mark = slice(SEAL_BYTES + 20, SEAL_BYTES + 24)
    data = bytes(SEAL_BYTES) + header + b"dataset" + b"between" + b"the last"
    first, last = SEAL_BYTES + len(header), len(data) - 8
    for extents, covered in (
        (((first, 7), (last, 8)), header + b"between"),  # the file may end with a dataset
        (((first, 7),), header + b"betweenthe last"),
        (((first, 0),), header + b"datasetbetweenthe last"),
    ):
        expected = crc32c(covered[:20] + covered[24:])
        assert structure_checksum(io.BytesIO(data), len(data), extents) == expected
    changed = bytearray(data)
    changed[mark] = b"open"
    assert structure_checksum(io.BytesIO(changed), len(data), ()) == structure_checksum(io.BytesIO(data), len(data), ())


# ---- HDF5 -------------------------------------------------------------------------------------------------------


def test_a_sealed_file_without_a_layout_is_not_a_store(tmp_path: Path) -> None:
    path = tmp_path / "other.h5"
    with hdf5.new_file(path, 4096) as file:
        file["x"] = 1
    write_seal(path, make_seal(path, []))
    with pytest.raises(InputError, match="an HDF5 file, but not a store"):
        Reader.open(path)


def test_what_hdf5_cannot_open_is_reported(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no HDF5")
    with pytest.raises(InputError, match="HDF5 cannot open the file"):
        hdf5.open_for_reading(tmp_path / "text")


def test_a_finished_store_that_a_writer_left_open_is_damaged_but_a_part_is_not(whole: Path, tmp_path: Path) -> None:
    """A killed run leaves HDF5's open mark; a store that has its name was closed."""
    data = bytearray(whole.read_bytes())
    data[SEAL_BYTES + 20] = 1
    for name in ("store.h5.part", "store.h5"):
        (tmp_path / name).write_bytes(data)
    Reader.open(tmp_path / "store.h5.part").file.close()
    with pytest.raises(Damaged, match="the file's structure is damaged"):
        Reader.open(tmp_path / "store.h5")


def test_the_seal_is_text_that_names_the_datasets(whole: Path, tmp_path: Path) -> None:
    shutil.copy(whole, tmp_path / "store.h5")
    first, second = (tmp_path / "store.h5").read_bytes().split(b"\n")[:2]
    assert first.startswith(b"scimill store, format 2; an HDF5 file follows")
    assert len(json.loads(second)["extents"]) == len(list(LAYOUT.datasets())) + 1
