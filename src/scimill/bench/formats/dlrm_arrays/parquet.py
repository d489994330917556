"""Parquet files for dlrm: 40 int32 columns with plain encoding, uncompressed.

pyarrow makes a file of zeros, and only its structure (page headers and footer) is kept. The footer gives the places of
the values of each column, so any rank can write any range of a file.
"""

import dataclasses
from collections.abc import Callable, Iterator
from functools import lru_cache, partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scimill.bench.dataset.plan import DataFile, DatasetPlan, FileSegment, KnownBytes, fit_count, records_per_file
from scimill.bench.formats import dlrm
from scimill.bench.formats.dlrm import NAMES
from scimill.bench.formats.dlrm_bin.write import ROW_BYTES
from scimill.bench.params import PlanConfig, block_size_of
from scimill.parallel.world import World

GROUP_ROWS = 2**18  # rows per row group: 1 MiB of each column, one page
ZEROS = 4096  # bytes; a run of zeros at least this long is a page of values


@dataclasses.dataclass(frozen=True)
class Template:
    """Structure of a file: its bytes, and the column and rows of each run of values between them."""

    structure: tuple[bytes, ...]
    values: tuple[tuple[int, int, int], ...]
    """(column, first row, number of rows) after each piece of the structure but the last"""

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return sum(map(len, self.structure)) + 4 * sum(rows for _, _, rows in self.values)


def make_plan(config: PlanConfig, request: int, world: World) -> DatasetPlan:
    """Plan ``day_0.parquet``, …; rank 0 lets pyarrow make their structure."""
    count, templates = world.on_root(_fit, config, request)
    files = [
        parquet_file(number, rows, templates[rows], partial(_values, config, number * config.rows_per_file))
        for number, rows in enumerate(records_per_file(count, config.rows_per_file))
    ]
    return DatasetPlan(tuple(files), block_size_of(config))


def _fit(config: PlanConfig, request: int) -> tuple[int, dict[int, Template]]:
    """Return the number of rows, and the file structure for each number of rows that occurs."""
    most = config.rows_per_file

    def total(rows: int) -> int:
        whole, rest = divmod(rows, most)
        return (whole * template(most).size if whole else 0) + (template(rest).size if rest else 0)

    guess = 1
    for _ in range(3):  # converges fast: the size of the structure hardly depends on the number of rows
        guess = max(1, guess + (request - total(guess)) // ROW_BYTES)
    count = fit_count(total, request, config.fit, "row", ROW_BYTES, guess)
    return count, {rows: template(rows) for rows in set(records_per_file(count, most))}


def _values(config: PlanConfig, start: int, column: int, first: int, rows: int) -> FileSegment:
    return dlrm.columns(config, "<i4", (column, column + 1), start + first, rows)


def parquet_file(
    number: int, rows: int, structure: Template, content: Callable[[int, int, int], FileSegment]
) -> DataFile:
    """Make a file of this structure; content(column, first row, number of rows) makes the values."""
    segments: list[FileSegment] = []
    for piece, place in zip(structure.structure, structure.values, strict=False):
        segments += [KnownBytes(piece), content(*place)]
    return DataFile(f"day_{number}.parquet", rows, (*segments, KnownBytes(structure.structure[-1])))


@lru_cache(maxsize=64)
def template(rows: int) -> Template:
    """Make the structure of a file of `rows` rows."""
    sink = SparseFile()
    schema = pa.schema([pa.field(name, pa.int32(), nullable=False) for name in NAMES])
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    options |= {"data_page_size": 2**30, "max_rows_per_page": 2**30}  # a chunk is one page
    with pq.ParquetWriter(pa.PythonFile(sink, mode="w"), schema, version="2.6", **options) as writer:
        for first in range(0, rows, GROUP_ROWS):
            zeros = pa.array(np.zeros(min(GROUP_ROWS, rows - first), dtype=np.int32))
            writer.write_table(pa.Table.from_arrays([zeros] * len(NAMES), schema=schema), row_group_size=GROUP_ROWS)
    pieces, values, position = [], [], 0
    for start, column, row, count in _value_places(sink):
        pieces.append(sink.read(position, start))
        values.append((column, row, count))
        position = start + 4 * count
    return Template((*pieces, sink.read(position, sink.size)), tuple(values))


def _value_places(sink: "SparseFile") -> Iterator[tuple[int, int, int, int]]:
    """Yield the place of the values of each column and row group: the end of its chunk, which is one page."""
    metadata, row = pq.read_metadata(pa.PythonFile(sink, mode="r")), 0
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        for column in range(len(NAMES)):
            chunk = metadata.row_group(group).column(column)
            yield chunk.data_page_offset + chunk.total_compressed_size - 4 * rows, column, row, rows
        row += rows


class SparseFile:
    """A file in memory that does not store long runs of zeros; it has the methods that pyarrow calls."""

    def __init__(self) -> None:
        self.size = self._position = 0
        self._pieces: list[tuple[int, bytes]] = []
        self.closed = False

    def write(self, content: bytes) -> int:
        """Append bytes; return their number."""
        content = bytes(content)
        if len(content) < ZEROS or content != bytes(len(content)):
            self._pieces.append((self.size, content))
        self.size += len(content)
        self._position = self.size
        return len(content)

    def read(self, start: int, stop: int | None = None) -> bytes:
        """Return bytes [start, stop); without `stop`, the next `start` bytes, as a file does."""
        if stop is None:
            start, stop = self._position, min(self.size, self._position + start)
            self._position = stop
        found = bytearray(stop - start)
        for offset, piece in self._pieces:
            low, high = max(start, offset), min(stop, offset + len(piece))
            if low < high:
                found[low - start : high - start] = piece[low - offset : high - offset]
        return bytes(found)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move the position, as a file does."""
        self._position = offset + (0, self._position, self.size)[whence]
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def flush(self) -> None:
        """Do nothing: the content is in memory."""

    def close(self) -> None:
        """Do nothing: the content is read afterwards."""

    def readable(self) -> bool:
        """Whether the file can be read."""
        return True

    def writable(self) -> bool:
        """Whether the file can be written."""
        return True

    def seekable(self) -> bool:
        """Whether the position can be moved."""
        return True
