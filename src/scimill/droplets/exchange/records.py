"""Import and export the original generator's files: headerless records of nine little-endian float32.

A record holds the six inputs, time, radius and temperature, in the order of `fields.UNITS`. All ranks share the import,
since the position of every record is known beforehand.
"""

from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scimill.campaign import describe_plan
from scimill.config import from_stored
from scimill.droplets import CAMPAIGN, arguments, fields
from scimill.droplets.fields import samples_per_droplet
from scimill.droplets.kernels import weird
from scimill.droplets.params import DropletsImportConfig
from scimill.errors import InputError
from scimill.parallel.world import World
from scimill.store.layout import Layout
from scimill.store.output import Output, copying
from scimill.store.reader import Reader
from scimill.store.writer import BlockData

COLUMNS = tuple(fields.UNITS)
RECORD_BYTES = 4 * len(COLUMNS)

Records = NDArray[np.float32]


def count_records(path: Path) -> int:
    """Count the records of a file.

    Raises
    ------
    InputError : it cannot be read, is empty, or ends within a record.
    """
    try:
        if path.is_dir():
            raise InputError("expected a file of records, got a directory", where=str(path))
        size = path.stat().st_size
        with path.open("rb"):
            pass
    except OSError as error:
        raise InputError.unreadable("file", error, path) from None
    if size == 0 or size % RECORD_BYTES:
        raise InputError(
            f"the file size, {size:,}, is not a multiple of the record size" if size else "the file is empty",
            where=str(path),
            allowed=f"a multiple of {RECORD_BYTES} bytes",
        )
    return size // RECORD_BYTES


def count_all(config: DropletsImportConfig) -> int:
    """Count the records of all files; raises the errors of `count_records`."""
    return sum(count_records(Path(name)) for name in config.files)


# ---- import -----------------------------------------------------------------------------------------------------


def import_files(config: DropletsImportConfig, output: Output, world: World) -> bool:
    """Make a store from files of records; collective. Return False if it was already complete.

    Weird records are kept and flagged with their classes, as with ``--keep-weird``.

    Raises
    ------
    InputError : a file is missing or damaged.
    ScimillError : see `store.writer.open_writer`.
    """
    counts = world.on_root(lambda: [count_records(Path(name)) for name in config.files])
    layout = fields.make_layout(sum(counts), config.block_size, 1, {}, weird_capacity=None)
    make_block = _importer(config, counts, layout)
    return CAMPAIGN.fill(config, layout, make_block, output, world, maker="import-data", unit="records")


def describe_import(config: DropletsImportConfig, output: Output, count: int) -> str:
    """Describe what an import would do, for ``--dry-run``; see `campaign.describe_plan`."""
    layout = fields.make_layout(count, config.block_size, 1, {}, weird_capacity=None)
    return describe_plan(output, layout, {"records": f"{count:,}, input files: {len(config.files)}"})


def remake(config: str, output: Output, world: World) -> bool:
    """Import from a stored configuration; see `import_files`."""
    return import_files(from_stored(DropletsImportConfig, config), output, world)


def _importer(config: DropletsImportConfig, counts: list[int], layout: Layout) -> Callable[[int], BlockData]:
    starts = [0, *accumulate(counts)]
    limits = arguments.limits(config)

    def make(block: int) -> BlockData:
        span = layout.span(block)
        pieces = [
            _read(Path(name), max(span.start - first, 0), min(span.stop, last) - max(span.start, first))
            for name, first, last in zip(config.files, starts, starts[1:], strict=False)
            if first < span.stop and last > span.start
        ]
        records = np.concatenate(pieces)
        columns: dict[str, NDArray[np.generic]] = dict(zip(COLUMNS, records.T, strict=True))
        radius, temperature = records[:, -2:-1], records[:, -1:]
        classes = weird.classify(radius, temperature, np.zeros(radius.shape, dtype=np.uint8), limits)
        ledger: dict[str, ArrayLike] = {"attempts": len(records), "weird_by_class": weird.count_classes(classes)}
        return BlockData(columns | {"weird": classes[:, 0]}, ledger=ledger)

    return make


def _read(path: Path, first: int, count: int) -> Records:
    """Read some records of a file, by position."""
    try:
        values = np.fromfile(path, dtype="<f4", count=count * len(COLUMNS), offset=first * RECORD_BYTES)
    except OSError as error:
        raise InputError.unreadable("file", error, path) from None
    if values.size != count * len(COLUMNS):
        raise InputError("the file was truncated while it was read", where=str(path))
    return values.reshape(count, len(COLUMNS))


# ---- export -----------------------------------------------------------------------------------------------------


def export_file(store: Path, output: Output) -> int:
    """Write a store's sample to one file of records, on one process; return their number.

    A droplet has one record per time.

    Raises
    ------
    InputError : not a store of droplets, or unfinished.
    StorageError : the output exists, or cannot be written.
    """
    with Reader.open(store) as reader:
        reader.require_complete()
        CAMPAIGN.require(reader)
        count = reader.layout.rows * samples_per_droplet(reader)
        with copying(store, output, count * RECORD_BYTES) as target, target.open("wb") as file:
            for block in range(reader.layout.blocks):
                _records(reader, block).tofile(file)
    return count


def _records(reader: Reader, block: int) -> Records:
    """Read the records of a block, shape (rows · samples, 9)."""
    columns = [reader.rows(block, name) for name in COLUMNS]
    shape = columns[-1].shape
    spread = [column if column.shape == shape else np.repeat(column, shape[-1]).reshape(shape) for column in columns]
    records: Records = np.stack(spread, axis=-1).astype("<f4", copy=False)
    return records.reshape(-1, len(COLUMNS))
