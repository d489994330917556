"""Import and export files of headerless records of 36 bytes.

Records of the original generator are nine little-endian float32: the six inputs, time, radius and temperature, in the
order of `fields.UNITS`. All ranks share the import, since the position of every record is known beforehand. Traces of
simulations have the same size and another layout; `exchange.traces` imports them.
"""

from collections.abc import Callable, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scimill.campaign import describe_plan
from scimill.config import from_stored, with_values
from scimill.droplets import CAMPAIGN, arguments, fields, origin
from scimill.droplets.exchange import impossible, traces
from scimill.droplets.exchange.recognise import RECORD_BYTES, RECORDS, TRACE, recognise
from scimill.droplets.fields import samples_per_droplet
from scimill.droplets.kernels import weird
from scimill.droplets.params import DropletsImportConfig
from scimill.errors import InputError
from scimill.parallel.report import say
from scimill.parallel.world import World
from scimill.store.layout import Layout
from scimill.store.output import Output, copying
from scimill.store.reader import Reader
from scimill.store.writer import BlockData

COLUMNS = tuple(fields.UNITS)
INVALID = weird.BITS["inputs-invalid_inputs"]
SALINITY = {RECORDS: "salt-mass", TRACE: "solute-term"}
"""Meaning of salinity if it is not given: that of the published networks' data, and that of traces."""

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


def resolve(config: DropletsImportConfig) -> DropletsImportConfig:
    """Find out what the files hold; return the configuration that says so. On rank 0.

    Raises
    ------
    InputError : a file is missing or damaged, or could be either.
    """
    count_all(config)
    kind = recognise([Path(name) for name in config.files]) if config.kind == "auto" else config.kind
    salinity_kind = vars(config)["salinity_kind"] or SALINITY[kind]
    return with_values(config, kind=kind, salinity_kind=salinity_kind)


def import_files(config: DropletsImportConfig, output: Output, world: World) -> bool:
    """Make a store from files of records or traces; collective. Return False if it was already complete.

    Weird and impossible records are kept and flagged with their classes, as with ``--keep-weird``.

    Raises
    ------
    InputError : a file is missing or damaged, or it is unclear what it holds.
    ScimillError : see `store.writer.open_writer`.
    """
    config = world.on_root(resolve, config)
    if config.kind == TRACE:
        return traces.import_traces(config, output, world)
    counts = world.on_root(lambda: [count_records(Path(name)) for name in config.files])
    layout = _layout(config, sum(counts))
    make_block = _importer(config, counts, layout)
    is_new = CAMPAIGN.fill(config, layout, make_block, output, world, maker="import-data", unit="records")
    if world.is_root:
        report(output.path)
    return is_new


def report(store: Path) -> None:
    """Print what an imported store says about its records."""
    with Reader.open(store) as reader:
        for line in describe_imported(reader, origin.stored_config(reader)):
            say(line)


def describe_imported(reader: Reader, stored: Mapping[str, Any]) -> list[str]:
    """Describe weird and impossible records and the physics of an imported store, a line each."""
    lines = []
    rejected = int(sum(np.count_nonzero(reader.rows(block, "weird")) for block in range(reader.layout.blocks)))
    if found := impossible.describe(reader.column("impossible").sum(0, dtype=np.int64)):
        lines.append(f"impossible records, kept and flagged: {found}")
    if rejected:
        lines.append(f"flagged as weird: {rejected:,} of {reader.layout.rows:,} records; training leaves them out")
    if not origin.is_physics_known(stored):
        lines.append("the physics that made the records is unknown; state it with --preset, --config or its flags")
    return lines


def describe_import(config: DropletsImportConfig, output: Output, count: int) -> str:
    """Describe what an import would do, for ``--dry-run``; see `campaign.describe_plan`."""
    found = resolve(config)
    rows = {"records": f"{count:,}, input files: {len(config.files)}", "kind": found.kind, "physics": found.physics}
    return describe_plan(output, _layout(found, count), rows)


def remake(config: str, output: Output, world: World) -> bool:
    """Import from a stored configuration; see `import_files`."""
    return import_files(from_stored(DropletsImportConfig, config), output, world)


def _layout(config: DropletsImportConfig, count: int) -> Layout:
    return fields.imported_layout(count, config.block_size, tuple(impossible.CLASSES), is_trace=config.kind == TRACE)


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
        return _block_data(np.concatenate(pieces), limits)

    return make


def _block_data(records: Records, limits: weird.Limits) -> BlockData:
    """Make the content of a block from its records, (n, 9)."""
    columns = dict(zip(COLUMNS, np.ascontiguousarray(records.T), strict=True))
    kinds = impossible.classify(columns)
    inputs_only = {**columns, "radius": columns["initial_radius"], "temperature": columns["initial_temperature"]}
    classes = weird.classify(
        columns["radius"][:, None], columns["temperature"][:, None], np.zeros((len(records), 1), dtype=np.uint8), limits
    )[:, 0]
    classes[impossible.classify(inputs_only) > 0] |= INVALID
    ledger: dict[str, ArrayLike] = {
        "attempts": len(records), "weird_by_class": weird.count_classes(classes), "impossible": impossible.count(kinds),
        **dict(zip(fields.EXTREMES, origin.extremes({**columns, "weird": classes}), strict=True)),
    }  # fmt: skip
    return BlockData({**columns, "weird": classes}, ledger=ledger)


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
