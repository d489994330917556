"""Ledger and manifest of a dataset: which blocks are done, and what the finished files are.

A row of the ledger is written in a single call, after the bytes of its block. So a block marked as done is always
complete. The manifest is written last.
"""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scimill.bench import CAMPAIGN
from scimill.bench.dataset.plan import DatasetPlan
from scimill.errors import InputError, StorageError
from scimill.files import replacing, storage_errors
from scimill.store.checksums import crc32c, join_all_checksums

FORMAT = 1
FOLDER, LEDGER, RUN, MANIFEST = ".scimill", "ledger", "run.json", "manifest.json"
DONE = 255  # as in the store: no single flipped bit turns a pending block into a done one
PARTS = 3  # numbers per block that a file may keep for its patches, see `plan.DataFile.parts`
ROW = np.dtype(
    [("crc32c", "<u4"), ("parts", "<u4", PARTS), ("row_crc32c", "<u4"), ("state", "u1"), ("reserved", "u1", 11)]
)

Rows = NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One file of a finished dataset."""

    name: str
    size: int
    records: int
    crc32c: int


class Ledger:
    """A file with one row per block; each rank writes the rows of its blocks."""

    def __init__(self, folder: Path, blocks: int) -> None:
        self.path = folder / FOLDER / LEDGER
        self._blocks = blocks

    def create(self) -> None:
        """Make the file, with all blocks pending."""
        self.path.touch()
        os.truncate(self.path, self._blocks * ROW.itemsize)

    def rows(self) -> Rows:
        """Read all rows; rows missing from a truncated file count as pending."""
        rows = np.zeros(self._blocks, dtype=ROW)
        stored = np.fromfile(self.path, dtype=ROW, count=self._blocks)
        rows[: len(stored)] = stored
        return rows

    def write(self, block: int, crc: int, parts: tuple[int, ...] = ()) -> None:
        """Mark a block as done."""
        row = np.zeros((), dtype=ROW)
        row["crc32c"], row["state"] = crc, DONE
        row["parts"][: len(parts)] = parts
        row["row_crc32c"] = row_checksum(block, row)
        descriptor = os.open(self.path, os.O_WRONLY)
        try:
            os.pwrite(descriptor, row.tobytes(), block * ROW.itemsize)
        finally:
            os.close(descriptor)

    def entries(self, plan: DatasetPlan) -> tuple[Entry, ...]:
        """Return all files with their checksums."""
        rows = self.rows()
        sums = (joined_checksum(plan, number, rows) for number in range(len(plan.files)))
        return tuple(Entry(file.name, file.size, file.records, crc) for file, crc in zip(plan.files, sums, strict=True))


def row_checksum(block: int, row: Rows) -> int:
    """Compute the CRC-32C of a row: block number, checksum, parts and state."""
    content = np.int64(block).tobytes() + row["crc32c"].tobytes() + row["parts"].tobytes() + row["state"].tobytes()
    return int(crc32c(content))


def is_done(block: int, row: Rows) -> bool:
    """Whether a row marks its block as done and is itself undamaged."""
    is_sound = row["row_crc32c"] == row_checksum(block, row) and not row["reserved"].any()
    return bool(row["state"] == DONE and is_sound)


@dataclasses.dataclass(frozen=True)
class DatasetManifest:
    """Description of a finished dataset: its configuration, its files, and how it was made."""

    workload: str
    format: str
    seed: int
    algorithm: int
    block_size: int
    size: int
    records: int
    config: str
    files: tuple[Entry, ...]
    made: dict[str, str | int]

    def write(self, folder: Path) -> None:
        """Write the manifest into the folder of the dataset, with its own checksum."""
        values = {"format_version": FORMAT, **dataclasses.asdict(self)}
        values["manifest_crc32c"] = _own_checksum(values)
        with replacing(folder / MANIFEST, "manifest") as part:
            part.write_text(_format(values), "utf-8")

    @classmethod
    def read(cls, folder: Path) -> "DatasetManifest":
        """Read the manifest of a dataset.

        Raises
        ------
        InputError : there is none.
        StorageError : it is damaged.
        """
        path = folder / MANIFEST
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            if isinstance(error, UnicodeDecodeError):
                raise _damaged(path) from None
            raise InputError(
                f"not a finished dataset of scimill: cannot read {MANIFEST} ({error.strerror})", where=str(folder)
            ) from None
        try:
            values = json.loads(text)
            if text != _format(values):  # the checksum is one of values: 1E5 is 1e5
                raise _damaged(path)
            checksum, version = values.pop("manifest_crc32c"), values["format_version"]
            if checksum != _own_checksum(values):
                raise _damaged(path)
            if version != FORMAT:
                what = f"the manifest has format version {version}"
                raise InputError(what, where=str(path), allowed=f"format version {FORMAT}")
            del values["format_version"]
            return cls(**{**values, "files": tuple(Entry(**entry) for entry in values["files"])})
        except (ValueError, KeyError, TypeError, AttributeError):
            raise _damaged(path) from None


def _format(values: dict[str, Any]) -> str:
    return json.dumps(values, indent=1) + "\n"


def _own_checksum(values: dict[str, Any]) -> int:
    return int(crc32c(json.dumps(values, sort_keys=True).encode()))


def _damaged(path: Path) -> StorageError:
    return StorageError("the manifest is damaged", where=str(path), remedy="regenerate the dataset")


def joined_checksum(plan: DatasetPlan, number: int, rows: Rows) -> int:
    """Compute the CRC-32C of a file from those of its blocks."""
    blocks = range(int(plan.first_blocks[number]), int(plan.first_blocks[number + 1]))
    sizes = (span.stop - span.start for span in map(plan.span, blocks))
    return join_all_checksums(zip(rows["crc32c"][blocks.start : blocks.stop].tolist(), sizes, strict=True))


@dataclasses.dataclass(frozen=True)
class PendingWrite:
    """The configuration and version of the run that writes a dataset, for ``--resume``; a finished one keeps it."""

    campaign: str
    algorithm: int
    scimill_version: str
    config: str
    blocks: int

    def write(self, folder: Path) -> None:
        """Write the record into the folder of the dataset."""
        with replacing(folder / FOLDER / RUN, "record of the run") as part:
            part.write_text(self._text, "utf-8")

    @property
    def _text(self) -> str:
        return json.dumps(dataclasses.asdict(self)) + "\n"

    def is_in(self, folder: Path) -> bool:
        """Whether the folder of a dataset holds this record, byte for byte."""
        with storage_errors(folder, "reading the record of the run"):
            return (folder / FOLDER / RUN).read_bytes() == self._text.encode()

    @classmethod
    def of(cls, manifest: DatasetManifest, blocks: int) -> "PendingWrite":
        """Return the record of a finished dataset."""
        version = str(manifest.made["scimill_version"])
        return cls(CAMPAIGN.name, manifest.algorithm, version, manifest.config, blocks)

    @classmethod
    def read(cls, folder: Path) -> "PendingWrite":
        """Read the record of an unfinished dataset.

        Raises
        ------
        StorageError : it is missing or damaged, so scimill did not make the folder.
        """
        path = folder / FOLDER / RUN
        try:
            with storage_errors(path, "reading the record of the run"):
                return cls(**json.loads(path.read_text("utf-8")))
        except (ValueError, TypeError, StorageError):
            what = "the directory is not an unfinished dataset of scimill"
            raise StorageError(what, where=str(folder), remedy="choose another output, or remove it") from None
