"""Verify a store: the executable form of docs/format.md.

The seal covers the structure, each ledger row covers itself and its block's bytes: so every byte of the file is
covered, and each is read once. Groups of blocks are shared among the ranks.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scimill.parallel.partition import share
from scimill.parallel.report import Progress, describe_count
from scimill.parallel.world import World
from scimill.store.checksums import crc32c, row_checksums
from scimill.store.direct import Bytes
from scimill.store.layout import DONE, PENDING, Field, Layout, Table
from scimill.store.reader import Reader, Rows

GROUP_BYTES = 1 << 23
"""About how much is read at once, if blocks are small."""
WRONG_CHECKSUM = "its data do not match their checksum"
STRAY_BYTES = "there are stray bytes after its table rows"


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
        found = sorted(check for part in world.gather_all(list(_check_share(reader, world))) for check in part)
        problems = tuple(f"block {check.block}: {problem}" for check in found for problem in check.problems())
        lost = tuple(check.block for check in found if check.damage)
        return Report(reader.layout.blocks, reader.count_pending(), reader.layout.rows, problems, lost)


def _check_share(reader: Reader, world: World) -> "Iterator[BlockCheck]":
    """Yield the blocks of this rank's share in which something is wrong; those of a ``.part`` may be pending."""
    ledger, groups = reader.ledger(), groups_of_blocks(reader.layout)
    progress = Progress(reader.layout.blocks, unit="blocks", what="verify", enabled=world.is_root)
    for first, last in share(groups, world.rank, world.size).tolist():
        for check in check_blocks(reader, first, ledger[first:last]):
            if ledger[check.block]["state"] != PENDING or reader.path.suffix != ".part":
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
    """Compare consecutive blocks with their ledger rows; return those in which something is wrong.

    Pending blocks count as damaged.

    Parameters
    ----------
    reader : the store.
    first : number of the first block.
    ledger : the blocks' rows of the ledger.

    """
    damage, unphysical = _damage_of_rows(first, ledger), defaultdict[int, list[str]](list)
    if not all(damage):
        sums, stray = [0] * len(ledger), np.zeros(len(ledger), dtype=bool)
        memory = np.empty(_largest_read(reader.layout) * len(ledger), dtype=np.uint8)
        cut = cache(partial(_cut, memory.data))
        for field in reader.layout.fields:
            rows = reader.rows(first, field.name, len(ledger), memory)
            sums = list(map(crc32c, cut(rows.nbytes, reader.layout.block_rows * field.row_bytes), sums))
            _note_unphysical(unphysical, field, rows, reader.layout.block_rows)
        for table in reader.layout.tables:
            _add_table(reader, table, first, ledger, sums, stray, memory)
        wrong = np.array(sums) != ledger["crc32c"]
        for block in np.flatnonzero(wrong | stray).tolist():
            damage[block] = damage[block] or (WRONG_CHECKSUM if wrong[block] else STRAY_BYTES)
    found = enumerate(damage)
    return [BlockCheck(first + block, text, unphysical[block]) for block, text in found if text or block in unphysical]


def block_damage(reader: Reader, block: int) -> str:
    """Describe how a done block's bytes differ from what was written; empty if they do not."""
    return next((check.damage for check in check_blocks(reader, block, reader.ledger(block, block + 1))), "")


def unfinished_blocks(reader: Reader, first: int, last: int) -> list[int]:
    """Return which blocks from `first` to before `last` the ledger does not vouch for."""
    damage = _damage_of_rows(first, reader.ledger(first, last))
    return [block for block, text in enumerate(damage, first) if text]


def _damage_of_rows(first: int, rows: NDArray[np.void]) -> list[str]:
    """Describe why each of consecutive ledger rows does not vouch for its block; empty where it does."""
    sound = (rows["row_crc32c"] == row_checksums(first, rows)).tolist()
    return [
        f"its state is {state}, not {DONE} (done)" if state != DONE else "" if is_sound else "its ledger row is damaged"
        for state, is_sound in zip(rows["state"].tolist(), sound, strict=True)
    ]


def _largest_read(layout: Layout) -> int:
    """Return the bytes of the largest field, or table's field, of a block."""
    fields = [layout.block_rows * field.row_bytes for field in layout.fields]
    return max([*fields, *(table.capacity * field.row_bytes for table in layout.tables for field in table.fields)])


def _cut(content: memoryview, size: int, block_bytes: int) -> list[memoryview]:
    """Cut the first bytes into those of consecutive blocks."""
    return [content[start : min(start + block_bytes, size)] for start in range(0, size, block_bytes)]


def _add_table(
    reader: Reader,
    table: Table,
    first: int,
    ledger: NDArray[np.void],
    sums: list[int],
    stray: NDArray[np.bool_],
    memory: Bytes,
) -> None:
    """Continue the blocks' checksums over a table's rows, and find blocks with bytes after them."""
    used = np.minimum(ledger[table.counter], table.capacity).tolist()
    for field in table.fields:
        rows = reader.reserved_rows(first, table, field.name, len(ledger), memory)
        content = memory[: rows.nbytes].reshape(len(ledger), -1)
        for block, part in enumerate(content):
            end = used[block] * field.row_bytes
            sums[block] = crc32c(part[:end].data, sums[block])
            stray[block] |= bool(part[end:].any())


def _note_unphysical(found: dict[int, list[str]], field: Field, rows: Rows, block_rows: int) -> None:
    """Describe in which of consecutive blocks a field has values outside its valid range."""
    if field.valid is None:
        return
    low, high = np.asarray(field.valid, dtype=field.dtype)
    if rows.min() >= low and rows.max() <= high:  # false if there is a NaN; ten times faster than two comparisons
        return
    outside = ~((rows >= low) & (rows <= high))
    unit = "" if field.units == "1" else f" {field.units}"
    for block, first in enumerate(range(0, len(rows), block_rows)):
        if count := int(np.count_nonzero(outside[first : first + block_rows])):
            verb = "is" if count == 1 else "are"
            text = f"{describe_count(count, 'value')} of {field.name} {verb} outside {low:g} … {high:g}{unit}"
            found[block].append(text)
