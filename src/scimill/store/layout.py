"""Structure of a store: fields by row, tables of bounded length per block, and ledger columns.

A `Layout` describes the whole structure. It is stored in the file; two files with the same layout have the same
datasets at the same places.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np

PENDING, DONE = 0, 255
"""States of a block. Flipping a single bit never turns one into the other."""


@dataclasses.dataclass(frozen=True)
class Field:
    """One dataset.

    Parameters
    ----------
    name : its path in the file.
    dtype : numpy's name of the stored type.
    units : its unit, "1" if it has none.
    long_name : its meaning.
    shape : shape of one row.
    valid : smallest and largest physical value, both allowed; `verify` checks them.
    flags : names of the bits (``flag_masks`` and ``flag_meanings`` of the CF conventions).

    """

    name: str
    dtype: str
    units: str
    long_name: str
    shape: tuple[int, ...] = ()
    valid: tuple[float, float] | None = None
    flags: tuple[str, ...] = ()

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return int(np.dtype(self.dtype).itemsize * np.prod(self.shape, dtype=np.int64))


@dataclasses.dataclass(frozen=True)
class Table:
    """A table with up to `capacity` rows per block; those of block b begin at row b · capacity.

    The ledger column ``<name>_rows`` holds a block's number of rows. The rest stays zero and takes no space on file
    systems with sparse files.
    """

    name: str
    capacity: int
    fields: tuple[Field, ...]

    @property
    def counter(self) -> str:
        """The ledger column that counts a block's rows."""
        return f"{self.name}_rows"


@dataclasses.dataclass(frozen=True)
class Layout:
    """Structure of a store with `rows` rows in blocks of `block_rows` (the last may be shorter)."""

    rows: int
    block_rows: int
    fields: tuple[Field, ...]
    tables: tuple[Table, ...] = ()
    ledger: tuple[Field, ...] = ()

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return -(-self.rows // self.block_rows)

    def span(self, block: int) -> slice:
        """Return the rows of a block as a slice."""
        return slice(block * self.block_rows, min((block + 1) * self.block_rows, self.rows))

    def rows_in(self, block: int) -> int:
        """Return the number of rows of a block."""
        span = self.span(block)
        return int(span.stop - span.start)

    @property
    def campaign_columns(self) -> tuple[Field, ...]:
        """Ledger columns that the campaign fills, then the tables' counters."""
        counters = (Field(t.counter, "uint32", "1", f"rows of {t.name} in this block") for t in self.tables)
        return (*self.ledger, *counters)

    @cached_property
    def columns(self) -> tuple[Field, ...]:
        """All ledger columns in writing order; the done mark is last."""
        return (
            *self.campaign_columns,
            Field("seconds", "float32", "s", "time that this block took"),
            Field("crc32c", "uint32", "1", "CRC-32C of the block's rows, field after field, then of its tables' rows"),
            Field("row_crc32c", "uint32", "1", "CRC-32C of the block's number and of the other columns of this row"),
            Field("state", "uint8", "1", f"{PENDING} pending, {DONE} done: all of the block's bytes are in place"),
        )

    def datasets(self) -> Iterator[tuple[Field, int]]:
        """Yield every dataset with its number of rows; fields first, the ledger last."""
        for field in self.fields:
            yield field, self.rows
        for table in self.tables:
            for field in table.fields:
                yield dataclasses.replace(field, name=f"{table.name}/{field.name}"), self.blocks * table.capacity
        for column in self.columns:
            yield dataclasses.replace(column, name=f"blocks/{column.name}"), self.blocks

    @property
    def data_bytes(self) -> int:
        """Bytes of all datasets."""
        return sum(field.row_bytes * rows for field, rows in self.datasets())

    @property
    def table_bytes(self) -> int:
        """Bytes of all tables if they were full."""
        per_block = sum(field.row_bytes * table.capacity for table in self.tables for field in table.fields)
        return per_block * self.blocks

    def to_json(self) -> str:
        """Write the description that is stored in the file."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Layout":
        """Read a description back."""
        return _layout(json.loads(text))


def _layout(values: Mapping[str, Any]) -> Layout:
    tables = tuple(Table(t["name"], t["capacity"], _fields(t["fields"])) for t in values["tables"])
    return Layout(values["rows"], values["block_rows"], _fields(values["fields"]), tables, _fields(values["ledger"]))


def _fields(values: list[dict[str, Any]]) -> tuple[Field, ...]:
    return tuple(
        Field(
            **{**v, "shape": tuple(v["shape"]), "flags": tuple(v["flags"]), "valid": v["valid"] and tuple(v["valid"])}
        )
        for v in values
    )
