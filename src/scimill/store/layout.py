"""Structure of a store: fields by row, tables of bounded length per block, and ledger columns.

A `Layout` describes the whole structure. It is stored in the file; two files with the same layout have the same
datasets at the same places.
"""

import dataclasses
import json
import math
from collections.abc import Iterator
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

PENDING, DONE = 0, 255
"""States of a block. Flipping a single bit never turns one into the other."""
LEDGER = "blocks"
"""Name of the ledger in the file."""
ROW, BLOCK = "row", "block"
"""Names of the first dimension of fields, and of the ledger."""


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
    axes : names of the axes of `shape`, which readers of netCDF show; by default made from the field's name.

    """

    name: str
    dtype: str
    units: str
    long_name: str
    shape: tuple[int, ...] = ()
    valid: tuple[float, float] | None = None
    flags: tuple[str, ...] = ()
    axes: tuple[str, ...] = dataclasses.field(default=(), compare=False)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return np.dtype(self.dtype).itemsize * math.prod(self.shape)

    @property
    def axis_names(self) -> tuple[str, ...]:
        """Names of the axes of `shape`."""
        return self.axes or tuple(f"{self.name.replace('/', '_')}_{axis}" for axis in range(1, len(self.shape) + 1))


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
class Coordinate:
    """Values of a dimension, evenly spaced: `first`, `first` + `step`, …; named like an axis of fields."""

    name: str
    first: float
    step: float
    units: str
    long_name: str


@dataclasses.dataclass(frozen=True)
class Layout:
    """Structure of a store with `rows` rows in blocks of `block_rows` (the last may be shorter)."""

    rows: int
    block_rows: int
    fields: tuple[Field, ...]
    tables: tuple[Table, ...] = ()
    ledger: tuple[Field, ...] = ()
    coordinates: tuple[Coordinate, ...] = dataclasses.field(default=(), compare=False)

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
        """All columns of the ledger."""
        return (
            *self.campaign_columns,
            Field("seconds", "float32", "s", "time that this block took"),
            Field("crc32c", "uint32", "1", "CRC-32C of the block's rows, field after field, then of its tables' rows"),
            Field("state", "uint8", "1", f"{PENDING} pending, {DONE} done: all of the block's bytes are in place"),
            Field("row_crc32c", "uint32", "1", "CRC-32C of the block's number and of the other columns of this row"),
        )

    @cached_property
    def ledger_type(self) -> np.dtype[np.void]:
        """Type of a row of the ledger; its bytes have no gaps."""
        return np.dtype([(column.name, column.dtype, column.shape) for column in self.columns])

    def datasets(self) -> Iterator[tuple[Field, int]]:
        """Yield every dataset but the ledger with its number of rows; fields first."""
        for field in self.fields:
            yield field, self.rows
        for table in self.tables:
            for field in table.fields:
                yield dataclasses.replace(field, name=f"{table.name}/{field.name}"), self.blocks * table.capacity

    @property
    def data_bytes(self) -> int:
        """Bytes of all datasets."""
        return sum(field.row_bytes * rows for field, rows in self.datasets()) + self.blocks * self.ledger_type.itemsize

    @property
    def block_bytes(self) -> int:
        """Bytes of a block's fields and full tables."""
        tables = sum(field.row_bytes * table.capacity for table in self.tables for field in table.fields)
        return tables + sum(field.row_bytes for field in self.fields) * self.block_rows

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
        return _layout(text)


@lru_cache(maxsize=16)  # a run opens its store several times
def _layout(text: str) -> Layout:
    values = json.loads(text)
    tables = tuple(Table(t["name"], t["capacity"], _fields(t["fields"])) for t in values["tables"])
    coordinates = tuple(Coordinate(**coordinate) for coordinate in values.get("coordinates", ()))
    fields, ledger = _fields(values["fields"]), _fields(values["ledger"])
    return Layout(values["rows"], values["block_rows"], fields, tables, ledger, coordinates)


def _fields(values: list[dict[str, Any]]) -> tuple[Field, ...]:
    return tuple(
        Field(
            **{
                **v,
                "shape": tuple(v["shape"]),
                "flags": tuple(v["flags"]),
                "axes": tuple(v.get("axes", ())),
                "valid": v["valid"] and tuple(v["valid"]),
            }
        )
        for v in values
    )
