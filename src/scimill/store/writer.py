"""Write a store: create the structure, write data, read back, rename.

The file is called ``NAME.part`` until every block is done. Rank 0 creates the whole structure in ``NAME.part.new``, and
renames it. Then each rank writes its blocks' bytes and ledger rows independently; only opening and closing are
collective. A block's data are written first, then its ledger row, which holds the checksum and the done mark: a block
marked done is always complete. The file gets its name when other hosts have read back what was written.
"""

import dataclasses
import os
import socket
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scimill.claim import Claim
from scimill.errors import ConfigError, ScimillError, Stopped, StorageError
from scimill.files import check_directory, keep_mode, rename, reserve, storage_errors, sync
from scimill.parallel.report import Progress, describe_count, say
from scimill.parallel.world import Stop, World, create_striped
from scimill.store import direct, hdf5
from scimill.store.checksums import bytes_checksum, crc32c, join_checksums
from scimill.store.layout import DONE, Field, Layout
from scimill.store.ledger import BlockLedger, make_row
from scimill.store.output import RESUME, Output, check_absent, check_space
from scimill.store.provenance import Provenance, root_attributes
from scimill.store.readback import Stored, require_stored
from scimill.store.reader import Reader
from scimill.store.seal import SEAL_BYTES, make_seal, parse_seal, write_seal
from scimill.store.verify import block_damage, check_blocks, groups_of_blocks, unfinished_blocks

VISIBLE_WITHIN = 10.0  # s; network file systems remember for that long that a name did not exist


@dataclasses.dataclass(frozen=True)
class BlockData:
    """Content of one block: its rows by field, its tables' rows, its ledger columns."""

    fields: Mapping[str, NDArray[np.generic]]
    tables: Mapping[str, Mapping[str, NDArray[np.generic]]] = dataclasses.field(default_factory=dict)
    ledger: Mapping[str, ArrayLike] = dataclasses.field(default_factory=dict)
    shared: tuple[str, ...] = ()
    """fields that hold only this rank's part, see `Writer.write_shared`"""


@dataclasses.dataclass(frozen=True)
class _PendingWrite:
    """A block whose writes may be in progress: its number, its ledger row, the futures of its writes."""

    block: int
    row: NDArray[np.void]
    futures: list[Future[None]]


class _Background:
    """Writes whole pages of a file past the page cache in a thread of its own, in order."""

    def __init__(self, path: Path) -> None:
        self._pages = direct.open_pages(path)
        self._thread = ThreadPoolExecutor(1)

    def begin(self, content: direct.Bytes, offset: int) -> Future[None] | None:
        """Start to write; None if the bytes are not whole pages."""
        if self._pages is None or not self._pages.accepts(content, offset):
            return None
        return self._thread.submit(self._pages.write, content, offset)

    def close(self) -> None:
        """Wait for all writes, and close."""
        self._thread.shutdown()
        if self._pages is not None:
            self._pages.close()


class Writer:
    """An open store, into which each rank writes its blocks. Made by `open_writer`."""

    def __init__(
        self, world: World, output: Output, layout: Layout, claim: Claim, stop: Stop, ledger: NDArray[np.void]
    ) -> None:
        self.layout = layout
        self._world, self._output, self._claim, self._started = world, output, claim, time.monotonic()
        self._identity = require_one_file(output.part, world)
        self.pending, damaged = self._find_pending(ledger, stop)
        with storage_errors(output.part, "opening the file"):
            self._file = hdf5.open_for_writing(output.part, world, output.hints)
        is_direct = world.on_root(partial(direct.use_direct, output.path.parent, wanted=output.direct))
        with storage_errors(output.part, "opening the file"):
            self._background = _Background(output.part) if is_direct else None
            begin = self._background.begin if self._background is not None else None
            of_field = dict.fromkeys((field.name for field in layout.fields), begin)
            self._rows = {f.name: hdf5.Rows(self._file, f.name, of_field.get(f.name)) for f, _ in layout.datasets()}
            self._ledger = BlockLedger(self._file, layout)
            self._write_row = self._ledger.writer()
            for block in damaged:
                self._write_row(block, np.zeros(1, layout.ledger_type))
        self._pending_write: _PendingWrite | None = None
        self._written = 0
        self._mine: list[int] = []

    def _find_pending(self, ledger: NDArray[np.void], stop: Stop) -> tuple[NDArray[np.int64], list[int]]:
        """Find the blocks to make, the same on all ranks, and done ones that this rank found damaged."""
        mine = self._find_damaged(ledger, stop) if (ledger["state"] == DONE).any() else []
        if any(self._world.gather_all(mine is None)):
            reason = stop.finish()
            self._claim.release()
            self._world.fail(Stopped(f"stopped by {reason} while verifying finished blocks", remedy=RESUME))
        lost = [block for part in self._world.gather_all(mine) for block in part or ()]
        if lost and self._world.is_root:
            say(f"{describe_count(len(lost), 'block')} with a wrong checksum: recomputing")
        return np.union1d(np.flatnonzero(ledger["state"] != DONE), np.array(lost, dtype=np.int64)), mine or []

    def _find_damaged(self, ledger: NDArray[np.void], stop: Stop) -> list[int] | None:
        """Return done blocks of this rank's share that are damaged; None if asked to stop."""
        done, part, what = ledger["state"] == DONE, self._output.part, "verifying finished blocks"
        groups = [group for group in groups_of_blocks(self.layout).tolist() if done[slice(*group)].any()]
        progress = Progress(int(done.sum()), unit="blocks", what=what, enabled=self._world.is_root)
        damaged: list[int] = []
        with storage_errors(part, what), Reader.open(part, check=False) as reader:
            for first, last in groups[self._world.rank :: self._world.size]:
                if stop.requested():
                    return None
                checks = check_blocks(reader, first, ledger[first:last])
                damaged += [check.block for check in checks if check.damage and done[check.block]]
                if progress.due():
                    progress.update(int(done[:last].sum()))
        progress.close()
        return damaged

    def _states(self) -> NDArray[np.uint8]:
        return self._ledger.column("state")

    def reader(self) -> Reader:
        """Return a reader of this file for this rank alone, valid until the writer is closed."""
        return Reader(self._output.part, self._file)

    def write(self, block: int, data: BlockData, started: float) -> None:
        """Write a block: data, ledger row, then done mark. Independent of the other ranks.

        If data are written past the page cache, this returns early: the next call marks the block as done or reports
        its failure.

        Parameters
        ----------
        block : its number.
        data : its content; in the case above, not to be changed until the next call returns.
        started : `time.monotonic` when work on it began.

        """
        with storage_errors(self._output.part, f"writing block {block}"):
            checksum, futures = self._write_data(block, data)
        current = _PendingWrite(block, self._row(block, data, checksum, started), futures)
        self._mine.append(block)
        previous, self._pending_write = self._pending_write, current
        if previous is not None:
            self._complete(previous)
        if self._background is None:
            self.flush()

    def flush(self) -> None:
        """Wait until the last block is done."""
        if self._pending_write is not None:
            self._complete(self._pending_write)
            self._pending_write = None

    def _complete(self, write: _PendingWrite) -> None:
        """Wait for a block's data, then write its ledger row, which marks it as done."""
        with storage_errors(self._output.part, f"writing block {write.block}"):
            for future in write.futures:
                future.result()
            self._write_row(write.block, write.row)
        self._written += 1

    def write_shared(self, block: int, data: BlockData, offset: int, team: World, started: float) -> None:
        """Write a block that several ranks made together; collective among these ranks only.

        Parameters
        ----------
        block : its number.
        data : its content. Each rank gives its part of the `shared` fields along the rows' first axis, in the order of
            the ranks; everything else comes from the first rank.
        offset : where along that axis this rank's part begins.
        team : the ranks that share the block.
        started : `time.monotonic` when work on it began.

        """
        with storage_errors(self._output.part, f"writing block {block}"):
            parts = self._write_parts(block, data, offset)
            gathered = team.gather_all(parts)  # all parts are written when the first rank has gathered this
        if team.is_root:
            self._finish_shared(block, data, gathered, started)

    def _write_parts(self, block: int, data: BlockData, offset: int) -> list[tuple[int, int]]:
        """Write this rank's parts; return checksum and length of each."""
        parts, first = [], self.layout.span(block).start
        for field in self._divided(data):
            part = _stored(data.fields, field)
            self._rows[field.name].write_part(first, offset, part)
            parts.append((bytes_checksum(part, 0), part.nbytes))
        return parts

    def _divided(self, data: BlockData) -> list[Field]:
        return [field for field in self.layout.fields if field.name in data.shared]

    def _finish_shared(self, block: int, data: BlockData, parts: list[list[tuple[int, int]]], started: float) -> None:
        """Write the fields that are not shared, the ledger row, and the done mark."""
        divided = {field.name: pieces for field, *pieces in zip(self._divided(data), *parts, strict=True)}
        with storage_errors(self._output.part, f"writing block {block}"):
            checksum, futures = self._write_data(block, data, divided)
        self._complete(_PendingWrite(block, self._row(block, data, checksum, started), futures))

    def _write_data(
        self, block: int, data: BlockData, divided: Mapping[str, list[tuple[int, int]]] = MappingProxyType({})
    ) -> tuple[int, list[Future[None]]]:
        """Write a block's data except fields whose parts are already written.

        Return the checksum of all data, and the futures of unfinished writes.
        """
        checksum, span = 0, self.layout.span(block)
        futures: list[Future[None] | None] = []
        if unknown := data.fields.keys() - {field.name for field in self.layout.fields}:
            raise ValueError(f"the block has fields that the layout lacks: {', '.join(sorted(unknown))}")
        for field in self.layout.fields:
            if field.name in divided:
                for part, length in divided[field.name]:
                    checksum = join_checksums(checksum, part, length)
                continue
            rows = _stored(data.fields, field)
            if len(rows) != span.stop - span.start:
                raise ValueError(f"{len(rows)} rows of {field.name} for a block of {span.stop - span.start}")
            futures.append(self._rows[field.name].write(span.start, rows))
            checksum = bytes_checksum(rows, checksum)
        for table in self.layout.tables:
            for field in table.fields:
                rows = _stored(data.tables[table.name], field)
                self._write_table_rows(f"{table.name}/{field.name}", block * table.capacity, rows, table.capacity)
                checksum = bytes_checksum(rows, checksum)
        return checksum, [future for future in futures if future is not None]

    def _write_table_rows(self, name: str, first: int, rows: NDArray[np.generic], capacity: int) -> None:
        """Write rows of a table; overwrite with zeros what an interrupted run may have left after them."""
        if len(rows):
            self._rows[name].write(first, rows)
        if self._output.resume:
            rest = self._rows[name].read(first + len(rows), first + capacity)
            if rest.size and rest.reshape(-1).view(np.uint8).any():
                self._rows[name].write(first + len(rows), np.zeros_like(rest))

    def _row(self, block: int, data: BlockData, checksum: int, started: float) -> NDArray[np.void]:
        counts = {t.counter: len(data.tables[t.name][t.fields[0].name]) for t in self.layout.tables}
        kept = {"seconds": time.monotonic() - started, "crc32c": checksum, "state": DONE}
        return make_row(self.layout, block, {**data.ledger, **counts, **kept})

    @property
    def rows(self) -> int:
        """Rows of the store."""
        return self.layout.rows

    def rows_done(self) -> int:
        """Return the number of rows in done blocks, as the ledger says now."""
        done = np.flatnonzero(self._states() == DONE)
        last_is_done = done.size > 0 and done[-1] == self.layout.blocks - 1
        short = self.layout.block_rows - self.layout.rows_in(self.layout.blocks - 1)
        return int(done.size * self.layout.block_rows - (short if last_is_done else 0))

    def finish(self) -> bool:
        """Close the file, and give it its name if every block is done and was read back. Collective.

        Returns
        -------
        bool, whether every block is done.

        Raises
        ------
        StorageError : the storage does not hold what was written, or another run took the output over.
        """
        self.flush()
        complete = sum(self._world.gather_all(self._written)) == len(self.pending)
        self._close()
        try:
            if complete:
                self._require_stored()
                self._world.on_root(self._publish)
        finally:
            self._claim.release()
        return complete

    def _require_stored(self) -> None:
        """Refuse to publish a file in which other hosts do not find what was written."""
        part = self._output.part
        with storage_errors(part, "reading back what was written"), Reader.open(part, check=False) as reader:
            stored = Stored(
                self.layout.blocks, self._mine, time.monotonic() - self._started, partial(unfinished_blocks, reader),
                lambda block: bool(block_damage(reader, block)),
            )  # fmt: skip
            require_stored(self._world, self._output, stored)

    def _publish(self) -> None:
        """Give the file its name. On rank 0."""
        part, path = self._output.part, self._output.path
        self._claim.confirm()
        with storage_errors(path, "publishing the file"):
            if identify(part) != self._identity:
                raise StorageError("another program replaced the unfinished file", where=str(part), remedy=RESUME)
        rename(part, path)

    def _close(self) -> None:
        with storage_errors(self._output.part, "closing the file"):
            if self._background is not None:
                self._background.close()
            self._file.close()
            sync(self._output.part, forget=True)
        self._world.barrier()


def require_one_file(part: Path, world: World) -> tuple[int, int, str]:
    """Make sure that all ranks see the same unfinished file; return its identity on rank 0's host. Collective.

    Raises
    ------
    StorageError : a rank does not see it, or sees another.
    """
    problem, identity = "", None
    deadline = time.monotonic() + VISIBLE_WITHIN
    while identity is None:
        try:
            identity = identify(part)
        except (OSError, ScimillError) as error:
            problem = str(error)
            if time.monotonic() > deadline or world.is_root:
                break
            time.sleep(0.1)
    seen = world.gather_all((socket.gethostname(), identity[2] if identity else problem))
    wrong = next(((rank, *found) for rank, found in enumerate(seen) if found[1] != seen[0][1]), None)
    if wrong or identity is None:
        rank, host, _ = wrong or (0, *seen[0])
        what = f"rank {rank} on host {host} does not see the file that rank 0 on host {seen[0][0]} has made"
        remedy = "write to a directory that all hosts share"
        world.fail(StorageError(what, where=str(part), remedy=remedy))
    return identity


def identify(path: Path) -> tuple[int, int, str]:
    """Return what tells a store from any other: device, inode, checksum of the seal."""
    with path.open("rb") as file:
        status, raw = os.fstat(file.fileno()), file.read(SEAL_BYTES)
    parse_seal(raw, path)
    return status.st_dev, status.st_ino, f"{crc32c(raw):08x}"


def _stored(values: Mapping[str, NDArray[np.generic]], field: Field) -> NDArray[np.generic]:
    """Convert the values of a field to their stored type.

    Raises
    ------
    ValueError : they are missing, or fractional where whole numbers are stored.
    """
    if field.name not in values:
        raise ValueError(f"the block has no {field.name}; it has {', '.join(sorted(values)) or 'no fields'}")
    given = np.asarray(values[field.name])
    if given.dtype.kind == "f" and np.dtype(field.dtype).kind in "iu":
        raise ValueError(f"{field.name} is stored as {field.dtype}, which would truncate {given.dtype}")
    return np.ascontiguousarray(given, dtype=field.dtype)


# ---- opening ----------------------------------------------------------------------------------------------------


def open_writer(
    world: World,
    output: Output,
    layout: Layout,
    provenance: Provenance,
    explain_difference: Callable[[str], str],
    stop: Stop,
) -> Writer | None:
    """Open an output for writing: a new store, or one to resume. Collective.

    Parameters
    ----------
    world, output, layout, provenance : ranks, output, structure and origin.
    explain_difference : describes what in the stored configuration would change the bytes; empty if nothing.
    stop : checked while the blocks of an earlier run are verified.

    Returns
    -------
    Writer, or None if the store is already complete.

    Raises
    ------
    ConfigError : resumed with another configuration, or many ranks and an h5py without MPI.
    StorageError : the output exists or another run is writing it; the directory is missing, or space is too small.
    InputError : the output to resume is not a store.
    Stopped : asked to stop.
    """
    if world.size > 1 and not hdf5.is_parallel():
        what = f"there are {world.size} ranks, but this h5py was built without MPI"
        world.fail(ConfigError(what, remedy="run scripts/setup.sh with a parallel HDF5, or use one rank"))
    claim = output.claim()
    ledger = world.on_root(_prepare, world, output, layout, provenance, explain_difference, claim)
    if ledger is None:
        stop.restore()
        return None
    try:
        return Writer(world, output, layout, claim, stop, ledger)
    except ScimillError:
        claim.release()
        raise


def _prepare(
    world: World,
    output: Output,
    layout: Layout,
    provenance: Provenance,
    explain_difference: Callable[[str], str],
    claim: Claim,
) -> NDArray[np.void] | None:
    """Claim a ``.part`` with complete structure; return its ledger, None if nothing is left to do. On rank 0."""
    with storage_errors(output.path, "preparing the output"):
        check_directory(output.path)
        claim.acquire()
        try:
            ledger = _accept_existing(output, layout, provenance, explain_difference)
            if ledger is not None and not output.part.exists():
                _create_structure(world, output, layout, provenance)
        except BaseException:
            claim.release()
            raise
        if ledger is None:
            claim.release()
        return ledger


def _accept_existing(
    output: Output, layout: Layout, provenance: Provenance, explain_difference: Callable[[str], str]
) -> NDArray[np.void] | None:
    """Refuse, remove or accept an existing output; return the ledger to start from, None if it is complete."""
    if output.resume and output.part.exists():
        ledger = _read_same(output.part, layout, provenance, explain_difference)
        check_space(output.part, layout)
        return ledger
    if output.resume and output.path.exists():
        _read_same(output.path, layout, provenance, explain_difference)
        return None
    if output.overwrite:
        output.part.unlink(missing_ok=True)
    else:
        check_absent(output)
    return np.zeros(layout.blocks, layout.ledger_type)


def _create_structure(world: World, output: Output, layout: Layout, provenance: Provenance) -> None:
    output.new.unlink(missing_ok=True)
    check_space(output.path, layout)
    if world.comm and output.hints:
        create_striped(output.new, output.hints)
    attributes = {**root_attributes(provenance, world), "layout": layout.to_json()}
    try:
        extents = hdf5.create(output.new, layout, attributes, output.alignment)
        keep_mode(output.path, output.new)
        _reserve(output.new, layout, extents)
        write_seal(output.new, make_seal(output.new, extents))
    except BaseException:
        output.new.unlink(missing_ok=True)  # free its space on a full disk
        raise
    rename(output.new, output.part)


def _reserve(path: Path, layout: Layout, extents: list[tuple[int, int]]) -> None:
    """Reserve the space of fields and ledger, so that the disk cannot fill up later; tables stay sparse.

    Writing to reserved space also takes only half the processor time.
    """
    descriptor = os.open(path, os.O_RDWR)
    try:
        for offset, length in (*extents[: len(layout.fields)], extents[-1]):
            if not reserve(descriptor, offset, length):
                break
    finally:
        os.close(descriptor)


def _read_same(
    path: Path, layout: Layout, provenance: Provenance, explain_difference: Callable[[str], str]
) -> NDArray[np.void]:
    """Read the ledger of a store to resume; refuse one with another configuration, layout or algorithm."""
    with Reader.open(path) as reader:
        stored = reader.file.attrs
        if stored["campaign"] != provenance.campaign:
            raise ConfigError(
                f"the store belongs to campaign {stored['campaign']}, not {provenance.campaign}", where=str(path)
            )
        difference = explain_difference(str(stored["config"]))
        if difference or reader.layout != layout:
            what = f"the store was started with another configuration: {difference or 'another layout'}"
            raise ConfigError(
                what, where=str(path), remedy="resume with the original configuration, or use --overwrite"
            )
        if stored["algorithm"] != provenance.algorithm:
            what = f"the store has algorithm {stored['algorithm']}, but this scimill has {provenance.algorithm}"
            raise ConfigError(what, where=str(path), remedy=f"resume with scimill {stored['scimill_version']}")
        return reader.ledger()
