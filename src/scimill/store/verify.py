"""Verify a store: the executable form of docs/format.md.

The seal covers the structure, each ledger row covers itself and its block's bytes: so every byte of the file is
covered. Blocks are shared among the ranks.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from scimill.parallel.partition import share
from scimill.parallel.report import Progress, describe_count
from scimill.parallel.world import World
from scimill.store.checksums import bytes_checksum, row_checksum
from scimill.store.layout import DONE, PENDING, Field
from scimill.store.reader import Reader, Rows


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
        mine: list[tuple[int, str]] = []
        damaged: list[int] = []
        blocks = np.arange(reader.layout.blocks)
        states = reader.column("state")
        progress = Progress(len(blocks), unit="blocks", what="verify", enabled=world.is_root)
        for block in share(blocks, world.rank, world.size):
            if damage := _damage(reader, int(block), int(states[block])):
                mine.append((int(block), damage))
                damaged.append(int(block))
            elif states[block] == DONE:
                mine += [(int(block), problem) for problem in _unphysical(reader, int(block))]
            if progress.due():
                progress.update(int(block))  # other ranks are about as far: blocks are distributed in turn
        progress.close()
        found = sorted(pair for part in world.gather_all(mine) for pair in part)
        problems = tuple(f"block {block}: {problem}" for block, problem in found)
        lost = tuple(sorted(block for part in world.gather_all(damaged) for block in part))
        return Report(len(blocks), int(np.count_nonzero(states == PENDING)), reader.layout.rows, problems, lost)


def open_on_all_ranks(path: Path, world: World) -> Reader:
    """Open a store on all ranks; only rank 0 checks the structure, so that damage gives one message."""
    if world.size > 1:
        world.on_root(_check_structure, path)
    return Reader.open(path, check=world.size == 1)


def _check_structure(path: Path) -> None:
    Reader.open(path).file.close()


def _damage(reader: Reader, block: int, state: int) -> str:
    """Describe a block's damage; a ``.part`` may have pending blocks."""
    return "" if state == PENDING and reader.path.suffix == ".part" else block_damage(reader, block)


def block_damage(reader: Reader, block: int) -> str:
    """Describe how a done block's bytes differ from what was written; empty if they do not."""
    row = reader.ledger_row(block)
    if row["state"] != DONE:
        return f"its state is {row['state']}, not {DONE} (done)"
    if row["row_crc32c"] != row_checksum(reader.layout, block, row):
        return "its ledger row is damaged"
    checksum = 0
    for _, rows in stored_rows(reader, block):
        checksum = bytes_checksum(rows, checksum)
    if checksum != row["crc32c"]:
        return "its data do not match their checksum"
    return "there are stray bytes after its table rows" if _has_stray_bytes(reader, block) else ""


def stored_rows(reader: Reader, block: int) -> Iterator[tuple[Field, Rows]]:
    """Yield every field and table field of a block with its rows, in the order of the checksum."""
    for field in reader.layout.fields:
        yield field, reader.rows(block, field.name)
    for table in reader.layout.tables:
        for field in table.fields:
            yield field, reader.table_rows(block, table, field.name)


def _has_stray_bytes(reader: Reader, block: int) -> bool:
    for table in reader.layout.tables:
        first, last = block * table.capacity, (block + 1) * table.capacity
        used = int(reader.file[f"blocks/{table.counter}"][block])
        for field in table.fields:
            rest = np.asarray(reader.file[f"{table.name}/{field.name}"][first + used : last])
            if rest.size and rest.reshape(-1).view(np.uint8).any():
                return True
    return False


def _unphysical(reader: Reader, block: int) -> Iterator[str]:
    """Describe fields with values outside their valid range."""
    for field in reader.layout.fields:
        if field.valid is None:
            continue
        rows = reader.rows(block, field.name)
        low, high = np.asarray(field.valid, dtype=field.dtype)
        outside = int(np.count_nonzero(~((rows >= low) & (rows <= high))))
        if outside:
            unit = "" if field.units == "1" else f" {field.units}"
            verb = "is" if outside == 1 else "are"
            yield f"{describe_count(outside, 'value')} of {field.name} {verb} outside {low:g} … {high:g}{unit}"
