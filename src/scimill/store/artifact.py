"""The store as an artifact."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scimill.artifacts import (
    COMPLETE,
    PART,
    BlockArtifact,
    Damage,
    Findings,
    Recipe,
    Values,
    begins_with,
)
from scimill.parallel.report import describe_count, describe_numbers
from scimill.parallel.world import World
from scimill.store.seal import MAGIC, SEAL_BYTES, SIGNATURE

if TYPE_CHECKING:
    from scimill.store.layout import Field
    from scimill.store.reader import Reader


class StoreArtifact(BlockArtifact):
    """A store, finished or not. HDF5 is imported when it is read."""

    kind = "store"

    @classmethod
    def recognise(cls, path: Path) -> bool:
        """Return whether a file begins with a seal, or HDF5 data begins where a seal would end."""
        return begins_with(path, MAGIC.encode()) or begins_with(path, SIGNATURE, SEAL_BYTES)

    def _open(self, *, check: bool = True) -> "Reader":
        from scimill.store.reader import Reader

        return Reader.open(self.path, check=check)

    def describe_completeness(self) -> str:
        """Return `COMPLETE`, or how many blocks are missing."""
        with self._open() as reader:
            pending = reader.count_pending()
        if self.path.suffix != PART:
            return COMPLETE if not pending else f"{describe_count(pending, 'block')} not marked done"
        return f"unfinished: {pending:,} of {describe_count(reader.layout.blocks, 'block')} to do"

    def verify(self, world: World) -> Findings:
        """Check every byte, and physical ranges; the ranks share the blocks. See `store.verify.verify`."""
        from scimill.store.verify import verify

        report = verify(self.path, world)
        left = f", {report.pending:,} of them still to do" if report.pending else ""
        size = f"{describe_count(report.rows, 'row')} in {describe_count(report.blocks, 'block')}"
        return Findings(f"{self.path}: sound; {size}{left}", report.problems)

    def inspect(self) -> str:
        """Describe provenance, datasets, ledger, configuration."""
        from scimill.store.inspect import inspect

        return inspect(self.path)

    def identity(self) -> str:
        """Return a digest of the structure and of all blocks' checksums."""
        with self._open() as reader:
            return reader.identity()

    # ---- repair ----

    def recipe(self) -> Recipe:
        """Return how it was made."""
        made = {name: str(value) for name, value in self.provenance.items()}
        return Recipe(made["campaign"], made.get("maker", ""), made["config"], made.get("command_line", ""))

    def find_damage(self, world: World) -> Damage:
        """Find the damaged blocks."""
        from scimill.store.verify import verify

        report = verify(self.path, world)
        lost = describe_numbers("block", report.damaged) if report.damaged else ""
        whole = f"the other {report.blocks - len(report.damaged):,} of {describe_count(report.blocks, 'block')}"
        obstacle = ""
        if len(report.problems) > len(report.damaged):
            obstacle = "values are outside their physical range, although their bytes are as written"
        elif lost and world.on_root(self._is_repacked):
            obstacle = "a repacked copy cannot be repaired: repair or regenerate the original, then repack it"
        return Damage(lost, whole, obstacle)

    def _is_repacked(self) -> bool:
        with self._open(check=False) as reader:
            return any(reader.file[field.name].chunks is not None for field in reader.layout.fields)

    def sums(self) -> Mapping[int, int]:
        """Return the checksums of all blocks with an intact ledger row."""
        with self._open(check=False) as reader:
            return reader.checksums()

    # ---- in Python ----

    @property
    def provenance(self) -> Mapping[str, Any]:
        """The root attributes: configuration, seed, versions, host, command line, …."""
        with self._open(check=False) as reader:
            return {
                name: value.item() if hasattr(value, "item") else value for name, value in reader.provenance.items()
            }

    @property
    def fields(self) -> Mapping[str, Values]:
        """Fields by name, and those of tables by "table/field"."""
        with self._open() as reader:
            return dict(self._values(reader))

    def _values(self, reader: "Reader") -> Iterator[tuple[str, Values]]:
        layout = reader.layout
        for field in layout.fields:
            yield field.name, _values(field, layout.rows, partial(self._read, field.name), "row")
        for table in layout.tables:
            for field in table.fields:
                name = f"{table.name}/{field.name}"
                rows = reader.table_row_numbers(table)
                yield name, _values(field, len(rows), partial(self._read_table, name, rows), f"{table.name}_row")

    def _read(self, name: str, index: Any) -> NDArray[Any]:
        with self._open(check=False) as reader:
            return np.asarray(reader.file[name][index])

    def _read_table(self, name: str, rows: NDArray[Any], index: Any) -> NDArray[Any]:
        with self._open(check=False) as reader:
            return np.asarray(reader.file[name][:][rows][index])


def _values(field: "Field", rows: int, read: Any, dimension: str) -> Values:
    return Values((rows, *field.shape), field.dtype, field.units, field.long_name, read, dimension, field.axes)
