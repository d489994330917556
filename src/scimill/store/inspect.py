"""Describe what a store holds and where it comes from."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scimill.parallel.report import describe_count, human
from scimill.store.layout import DONE, LEDGER
from scimill.store.reader import Reader


def inspect(path: Path) -> str:
    """Describe a store: provenance, datasets, ledger, configuration.

    Raises
    ------
    InputError : not a store.
    StorageError : its structure is damaged.
    """
    with Reader.open(path) as reader:
        return "\n".join((*_origin(reader), "", *_datasets(reader), "", *_ledger(reader), "", *_configuration(reader)))


def _origin(reader: Reader) -> Iterator[str]:
    yield f"{reader.path}: {human(reader.path.stat().st_size)}"
    for name, value in reader.provenance.items():
        if name != "config" and value != "":
            yield f"  {name:<16} {value}"


def _datasets(reader: Reader) -> Iterator[str]:
    layout = reader.layout
    columns = [(replace(column, name=f"{LEDGER}/{column.name}"), layout.blocks) for column in layout.columns]
    datasets = [*layout.datasets(), *columns]
    rows = [(f.name, str((n, *f.shape)), f.dtype, f.units, f.long_name) for f, n in datasets]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)).rstrip()


def _ledger(reader: Reader) -> Iterator[str]:
    done = reader.column("state") == DONE
    layout = reader.layout
    size = describe_count(layout.block_rows, "row")
    yield f"blocks: {np.count_nonzero(done):,} of {layout.blocks:,} done, {size} each"
    yield f"time: {reader.column('seconds')[done].sum(dtype=float):.6g} s of all ranks together"
    for column in layout.campaign_columns:
        yield f"{column.name}: {_summary(reader.column(column.name)[done])}"


def _summary(values: NDArray[Any]) -> str:
    """Describe a ledger column: counts by their sum over the blocks, measured values by their range."""
    if values.dtype.kind != "f":
        return str(values.sum(axis=0, dtype=np.int64).tolist())
    if not len(values):
        return "none yet"
    low, high = (np.atleast_1d(extreme).tolist() for extreme in (values.min(axis=0), values.max(axis=0)))
    return ", ".join(f"{a:.4g}" if a == b else f"{a:.4g} to {b:.4g}" for a, b in zip(low, high, strict=True))


def _configuration(reader: Reader) -> Iterator[str]:
    yield "configuration:"
    yield from ("  " + line for line in str(reader.provenance["config"]).splitlines())
