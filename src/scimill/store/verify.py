"""Verify a store: the executable form of docs/format.md.

The seal covers the structure, each ledger row covers itself and its block's bytes: so every byte of the file is
covered, and each is read once. Groups of blocks are shared among the ranks.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scimill.parallel.partition import share
from scimill.parallel.report import Progress, describe_count
from scimill.parallel.world import World
from scimill.store.checksums import bytes_checksum, row_checksum
from scimill.store.layout import DONE, PENDING, Field, Layout, Table
from scimill.store.reader import Reader, Rows

GROUP_BYTES = 1 << 23
"""About how much is read at once, if blocks are small."""


@dataclasses.dataclass(frozen=True)
class Report:
    """Result of verifying a store. `problems` holds one line each, in the order of the blocks.

    Blocks in `damaged` hold bytes that differ from those written; other problems concern the values written.
    """

    blocks: int
    pending: int
    rows: int
    problems: tuple[str, ...]
    damaged: tuple[int, ...] = ()


def verify(path: Path, world: World) -> Report:
    """Check a whole store; collective. A ``.part`` may have pending blocks.

    Parameters
    ----------
    path : the file.
    world : the ranks that share the blocks.

    Raises
    ------
    InputError : not a store.
    StorageError : its seal or structure is damaged, so its blocks cannot be found.

    """
    with open_on_all_ranks(path, world) as reader:
        checks = [check for check in _check_share(reader, world) if check.problems()]
        found = sorted(check for part in world.gather_all(checks) for check in part)
        problems = tuple(f"block {check.block}: {problem}" for check in found for problem in check.problems())
        lost = tuple(check.block for check in found if check.damage)
        return Report(reader.layout.blocks, reader.count_pending(), reader.layout.rows, problems, lost)


def _check_share(reader: Reader, world: World) -> "Iterator[BlockCheck]":
    """Check this rank's share of the blocks; those of a ``.part`` may be pending."""
    ledger, groups = reader.ledger(), groups_of_blocks(reader.layout)
    progress = Progress(reader.layout.blocks, unit="blocks", what="verify", enabled=world.is_root)
    for first, last in share(groups, world.rank, world.size).tolist():
        for check, row in zip(check_blocks(reader, first, ledger[first:last]), ledger[first:last], strict=True):
            if row["state"] != PENDING or reader.path.suffix != ".part":
                yield check
        if progress.due():
            progress.update(first)  # other ranks are about as far: groups are distributed in turn
    progress.close()


def open_on_all_ranks(path: Path, world: World) -> Reader:
    """Open a store on all ranks; only rank 0 checks the structure, so that damage gives one message."""
    if world.size > 1:
        world.on_root(_check_structure, path)
    return Reader.open(path, check=world.size == 1)


def _check_structure(path: Path) -> None:
    Reader.open(path).file.close()


# ---- blocks -----------------------------------------------------------------------------------------------------


def groups_of_blocks(layout: Layout) -> NDArray[np.int64]:
    """Divide the blocks into groups that are read at once: first block, and one past the last; shape (groups, 2)."""
    size = max(1, GROUP_BYTES // max(1, layout.block_bytes))
    firsts = np.arange(0, layout.blocks, size)
    return np.stack([firsts, np.minimum(firsts + size, layout.blocks)], axis=1)


@dataclasses.dataclass(order=True)
class BlockCheck:
    """What is wrong with a block: a description of its damage, and of fields outside their valid range."""

    block: int
    damage: str = ""
    unphysical: list[str] = dataclasses.field(default_factory=list)

    def problems(self) -> list[str]:
        """Return all that is wrong; damaged values are not also called unphysical."""
        return [self.damage] if self.damage else self.unphysical


def check_blocks(reader: Reader, first: int, ledger: NDArray[np.void]) -> list[BlockCheck]:
    """Compare consecutive blocks with their ledger rows; pending blocks count as damaged.

    Parameters
    ----------
    reader : the store.
    first : number of the first block.
    ledger : the blocks' rows of the ledger.

    """
    checks = [BlockCheck(first + number, row_damage(first + number, row)) for number, row in enumerate(ledger)]
    if all(check.damage for check in checks):
        return checks
    sums, stray = np.zeros(len(ledger), dtype=np.int64), np.zeros(len(ledger), dtype=bool)
    for field in reader.layout.fields:
        rows = reader.rows(first, field.name, len(ledger))
        for number, part in enumerate(_split(rows, reader.layout.block_rows)):
            sums[number] = bytes_checksum(part, int(sums[number]))
        _note_unphysical(checks, field, rows, reader.layout.block_rows)
    for table in reader.layout.tables:
        _add_table(reader, table, first, ledger, sums, stray)
    for number, check in enumerate(checks):
        if check.damage or sums[number] != ledger["crc32c"][number]:
            check.damage = check.damage or "its data do not match their checksum"
        elif stray[number]:
            check.damage = "there are stray bytes after its table rows"
    return checks


def block_damage(reader: Reader, block: int) -> str:
    """Describe how a done block's bytes differ from what was written; empty if they do not."""
    return check_blocks(reader, block, reader.ledger(block, block + 1))[0].damage


def unfinished_blocks(reader: Reader, first: int, last: int) -> list[int]:
    """Return which blocks from `first` to before `last` the ledger does not vouch for."""
    rows = reader.ledger(first, last)
    return [block for block, row in zip(range(first, last), rows, strict=True) if row_damage(block, row)]


def row_damage(block: int, row: np.void) -> str:
    """Describe why a ledger row does not vouch for its block; empty if it does."""
    if row["state"] != DONE:
        return f"its state is {row['state']}, not {DONE} (done)"
    return "" if row["row_crc32c"] == row_checksum(block, row) else "its ledger row is damaged"


def _split(rows: Rows, length: int) -> Iterator[Rows]:
    for first in range(0, len(rows), length):
        yield rows[first : first + length]


def _add_table(
    reader: Reader,
    table: Table,
    first: int,
    ledger: NDArray[np.void],
    sums: NDArray[np.int64],
    stray: NDArray[np.bool_],
) -> None:
    """Continue the blocks' checksums over a table's rows, and find blocks with bytes after them."""
    used = np.minimum(ledger[table.counter], table.capacity).tolist()
    for field in table.fields:
        rows = reader.reserved_rows(first, table, field.name, len(ledger))
        for number, part in enumerate(_split(rows, table.capacity)):
            sums[number] = bytes_checksum(part[: used[number]], int(sums[number]))
            rest = np.ascontiguousarray(part[used[number] :])
            stray[number] |= bool(rest.size and rest.reshape(-1).view(np.uint8).any())


def _note_unphysical(checks: list[BlockCheck], field: Field, rows: Rows, block_rows: int) -> None:
    """Describe where a field has values outside its valid range."""
    if field.valid is None:
        return
    low, high = np.asarray(field.valid, dtype=field.dtype)
    outside = ~((rows >= low) & (rows <= high))
    if not outside.any():
        return
    unit = "" if field.units == "1" else f" {field.units}"
    for check, part in zip(checks, _split(outside, block_rows), strict=True):
        if count := int(np.count_nonzero(part)):
            verb = "is" if count == 1 else "are"
            text = f"{describe_count(count, 'value')} of {field.name} {verb} outside {low:g} … {high:g}{unit}"
            check.unphysical.append(text)
