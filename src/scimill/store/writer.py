"""Writing a store: lay down, then move bytes, then rename.

The file is ``NAME.part`` until every block is done. Rank 0 lays down all structure, in ``NAME.part.new``, and renames
it. After that each rank writes its blocks' bytes and ledger rows on its own; no call is collective but opening and
closing. The order of a block's writes is data, checksum, done mark, so a block marked done is complete at any instant.
"""

import dataclasses
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scimill.errors import ConfigError, ScimillError, Stopped
from scimill.files import Claim, check_directory, rename, reserve, storage_errors, sync
from scimill.parallel.partition import share
from scimill.parallel.report import Progress, say
from scimill.parallel.world import Stop, World, create_striped
from scimill.store import direct, hdf5
from scimill.store.checksums import bytes_checksum, joined, row_checksum
from scimill.store.layout import DONE, PENDING, Field, Layout
from scimill.store.output import RESUME, Output, check_absent, check_space
from scimill.store.provenance import Provenance, describe
from scimill.store.reader import Reader
from scimill.store.seal import make_seal, write_seal
from scimill.store.verify import block_damage


@dataclasses.dataclass(frozen=True)
class BlockData:
    """What a campaign returns for one block: its rows by field, its tables' rows, its ledger columns."""

    fields: Mapping[str, NDArray[np.generic]]
    tables: Mapping[str, Mapping[str, NDArray[np.generic]]] = dataclasses.field(default_factory=dict)
    ledger: Mapping[str, ArrayLike] = dataclasses.field(default_factory=dict)
    shared: tuple[str, ...] = ()
    """fields of which this is one rank's part, see `Writer.write_shared`"""


@dataclasses.dataclass(frozen=True)
class _Begun:
    """A block whose data may still be on their way: its number, its ledger row, the ends of their writes."""

    block: int
    row: Mapping[str, ArrayLike]
    ends: list[Future[None]]


class _Background:
    """Writes whole pages of a file past the page cache, one after the other, beside the rank's other work."""

    def __init__(self, path: Path) -> None:
        self._pages = direct.open_pages(path)
        self._thread = ThreadPoolExecutor(1)

    def begin(self, content: direct.Bytes, offset: int) -> Future[None] | None:
        """Begin to write; None where the bytes are no whole pages."""
        if self._pages is None or not self._pages.takes(content, offset):
            return None
        return self._thread.submit(self._pages.write, content, offset)

    def close(self) -> None:
        """Wait for all writes, and close."""
        self._thread.shutdown()
        if self._pages is not None:
            self._pages.close()


class Writer:
    """An open store, of which each rank writes its blocks. Made by `open_writer`."""

    def __init__(self, world: World, output: Output, layout: Layout, claim: Claim, stop: Stop) -> None:
        self.layout = layout
        self._world, self._output, self._claim = world, output, claim
        with storage_errors(output.part, "opening the file"):
            self._file = hdf5.open_for_writing(output.part, world, output.hints)
        is_direct = world.on_root(partial(direct.use_direct, output.path.parent, wanted=output.direct))
        with storage_errors(output.part, "opening the file"):
            self._background = _Background(output.part) if is_direct else None
            begin = self._background.begin if self._background is not None else None
            of_field = dict.fromkeys((field.name for field in layout.fields), begin)
            self._rows = {f.name: hdf5.Rows(self._file[f.name], of_field.get(f.name)) for f, _ in layout.datasets()}
        self._begun: _Begun | None = None
        self.pending = self._find_pending(stop)
        self._written = 0

    def _find_pending(self, stop: Stop) -> NDArray[np.int64]:
        """Blocks still to do, the same on all ranks; among them done ones that do not match their checksum."""
        states = self._world.broadcast(self._states() if self._world.is_root else None)
        done = np.flatnonzero(states == DONE)
        mine = self._find_damaged(share(done, self._world.rank, self._world.size), stop)
        if any(self._world.gather_all(mine is None)):
            reason = stop.finish()
            self._close()
            self._claim.release()
            self._world.fail(Stopped(f"stopped by {reason} while looking at what is done", remedy=RESUME))
        damaged = np.array(
            sorted(block for part in self._world.gather_all(mine) for block in part or ()), dtype=np.int64
        )
        if damaged.size and self._world.is_root:
            say(f"{damaged.size} blocks do not match their checksums and are done again")
        return np.union1d(np.flatnonzero(states != DONE), damaged)

    def _find_damaged(self, done: NDArray[np.int64], stop: Stop) -> list[int] | None:
        """Take the done mark from blocks that do not match their checksum, and return them; None if asked to stop."""
        reader, damaged = self.reader(), []
        progress = Progress(len(done), unit="blocks", what="checking what is done", enabled=self._world.is_root)
        for number, block in enumerate(done.tolist()):
            if stop.requested():
                return None
            with storage_errors(self._output.part, f"checking block {block}"):
                if block_damage(reader, block):
                    self._rows["blocks/state"].write(block, np.array([PENDING], dtype=np.uint8))
                    damaged.append(block)
            if progress.due():
                progress.update(number)
        progress.close()
        return damaged

    def _states(self) -> NDArray[np.uint8]:
        states: NDArray[np.uint8] = self._file["blocks/state"][:]
        return states

    def reader(self) -> Reader:
        """Read what this file holds already, by this rank for itself; it stays open as long as the writer."""
        return Reader(self._output.part, self._file)

    def write(self, block: int, data: BlockData, started: float) -> None:
        """Write a block: data, then its ledger row, then its done mark. Independent of the other ranks.

        Where data are written past the page cache, this returns before they are: the block is marked done, and its
        failure told, at the next call.

        Parameters
        ----------
        block : its number.
        data : its content; in the case above not to be changed before the next call's end.
        started : `time.monotonic` when work on it began.

        """
        with storage_errors(self._output.part, f"writing block {block}"):
            checksum, ends = self._write_data(block, data)
        previous, self._begun = self._begun, _Begun(block, self._row(block, data, checksum, started), ends)
        if previous is not None:
            self._complete(previous)
        if self._background is None:
            self.flush()

    def flush(self) -> None:
        """Wait until the last block is done."""
        if self._begun is not None:
            self._complete(self._begun)
            self._begun = None

    def _complete(self, begun: "_Begun") -> None:
        """Wait for a block's data, then write its ledger row and its done mark."""
        with storage_errors(self._output.part, f"writing block {begun.block}"):
            for end in begun.ends:
                end.result()
            self._write_row(begun.block, begun.row)
            self._rows["blocks/state"].write(begun.block, np.array([DONE], dtype=np.uint8))
        self._written += 1

    def write_shared(self, block: int, data: BlockData, offset: int, team: World, started: float) -> None:
        """Write a block that several ranks have made together; collective among them alone.

        Parameters
        ----------
        block : its number.
        data : its content. Of its `shared` fields each rank gives its part along the rows' first axis, in the order of
            the ranks; all else is the first rank's.
        offset : where along that axis this rank's part begins.
        team : the ranks that share the block.
        started : `time.monotonic` when work on it began.

        """
        with storage_errors(self._output.part, f"writing block {block}"):
            parts = self._write_parts(block, data, offset)
            gathered = team.gather_all(parts)  # all parts are in place when the first rank has heard of them
        if team.is_root:
            self._finish_shared(block, data, gathered, started)

    def _write_parts(self, block: int, data: BlockData, offset: int) -> list[tuple[int, int]]:
        """Write own parts; return checksum and length of each."""
        parts, first = [], self.layout.span(block).start
        for field in self._divided(data):
            part = _stored(data.fields, field)
            self._rows[field.name].write_part(first, offset, part)
            parts.append((bytes_checksum(part, 0), part.nbytes))
        return parts

    def _divided(self, data: BlockData) -> list[Field]:
        return [field for field in self.layout.fields if field.name in data.shared]

    def _finish_shared(self, block: int, data: BlockData, parts: list[list[tuple[int, int]]], started: float) -> None:
        """Write what the ranks do not share, the ledger's row, and the done mark."""
        divided = {field.name: pieces for field, *pieces in zip(self._divided(data), *parts, strict=True)}
        with storage_errors(self._output.part, f"writing block {block}"):
            checksum, ends = self._write_data(block, data, divided)
        self._complete(_Begun(block, self._row(block, data, checksum, started), ends))

    def _write_data(
        self, block: int, data: BlockData, divided: Mapping[str, list[tuple[int, int]]] = MappingProxyType({})
    ) -> tuple[int, list[Future[None]]]:
        """Write a block's data but for the fields whose parts are there already.

        Returns the checksum of all, and the ends of what is still being written.
        """
        checksum, span = 0, self.layout.span(block)
        ends: list[Future[None] | None] = []
        if unknown := data.fields.keys() - {field.name for field in self.layout.fields}:
            raise ValueError(f"the block has fields that the layout lacks: {', '.join(sorted(unknown))}")
        for field in self.layout.fields:
            if field.name in divided:
                for part, length in divided[field.name]:
                    checksum = joined(checksum, part, length)
                continue
            rows = _stored(data.fields, field)
            if len(rows) != span.stop - span.start:
                raise ValueError(f"{len(rows)} rows of {field.name} for a block of {span.stop - span.start}")
            ends.append(self._rows[field.name].write(span.start, rows))
            checksum = bytes_checksum(rows, checksum)
        for table in self.layout.tables:
            for field in table.fields:
                rows = _stored(data.tables[table.name], field)
                self._write_table_rows(f"{table.name}/{field.name}", block * table.capacity, rows, table.capacity)
                checksum = bytes_checksum(rows, checksum)
        return checksum, [end for end in ends if end is not None]

    def _write_table_rows(self, name: str, first: int, rows: NDArray[np.generic], capacity: int) -> None:
        """Write rows of a table, and zeros over what an interrupted run on another processor may have left behind."""
        if len(rows):
            self._rows[name].write(first, rows)
        if self._output.resume:
            rest = self._file[name][first + len(rows) : first + capacity]
            if rest.size and rest.reshape(-1).view(np.uint8).any():
                self._rows[name].write(first + len(rows), np.zeros_like(rest))

    def _row(self, block: int, data: BlockData, checksum: int, started: float) -> dict[str, ArrayLike]:
        row: dict[str, ArrayLike] = dict(data.ledger)
        for table in self.layout.tables:
            row[table.counter] = len(data.tables[table.name][table.fields[0].name])
        row |= {"seconds": time.monotonic() - started, "crc32c": checksum, "state": DONE}
        row["row_crc32c"] = row_checksum(self.layout, block, row)
        return row

    def _write_row(self, block: int, row: Mapping[str, ArrayLike]) -> None:
        for column in self.layout.columns:
            if column.name != "state":
                value = np.array(row[column.name], dtype=column.dtype)
                self._rows[f"blocks/{column.name}"].write(block, value.reshape(1, *column.shape))

    @property
    def rows(self) -> int:
        """Rows of the store."""
        return self.layout.rows

    def rows_done(self) -> int:
        """Rows of all blocks that are done, as the ledger says now."""
        done = np.flatnonzero(self._states() == DONE)
        last_is_done = done.size > 0 and done[-1] == self.layout.blocks - 1
        short = self.layout.block_rows - self.layout.rows_in(self.layout.blocks - 1)
        return int(done.size * self.layout.block_rows - (short if last_is_done else 0))

    def finish(self) -> bool:
        """Close the file; when every block is done, give it its name. Return whether it is complete. Collective."""
        self.flush()
        complete = sum(self._world.gather_all(self._written)) == len(self.pending)
        self._close()
        if complete:
            self._world.on_root(rename, self._output.part, self._output.path)
        self._claim.release()
        return complete

    def _close(self) -> None:
        with storage_errors(self._output.part, "closing the file"):
            if self._background is not None:
                self._background.close()
            self._file.close()
            sync(self._output.part)
        self._world.barrier()


def _stored(values: Mapping[str, NDArray[np.generic]], field: Field) -> NDArray[np.generic]:
    """Return the values of a field as they are stored.

    Raises
    ------
    ValueError : there are none, or they are fractions for whole numbers.
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
    """Open an output for writing: a new store, or one to be resumed. Collective.

    Parameters
    ----------
    world, output, layout, provenance : the ranks, the place, the structure and the origin.
    explain_difference : given the stored configuration, says what would change the bytes, or an empty text.
    stop : asked while what an earlier run has done is checked.

    Returns
    -------
    Writer, or None where the store is complete already.

    Raises
    ------
    ConfigError : resumed with another configuration, or many ranks and an h5py without MPI.
    StorageError : the output exists, is written by another run, the directory is missing or the space too small.
    InputError : what should be resumed is no store.
    Stopped : asked to stop.
    """
    if world.size > 1 and not hdf5.is_parallel():
        what = f"{world.size} ranks, but this h5py was built without MPI"
        world.fail(ConfigError(what, remedy="run scripts/setup.sh with a parallel HDF5, or use one rank"))
    claim = Claim(output.lock)
    if not world.on_root(_prepare, world, output, layout, provenance, explain_difference, claim):
        stop.restore()
        return None
    try:
        return Writer(world, output, layout, claim, stop)
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
) -> bool:
    """Bring about a laid-down ``.part``, claimed for this run; False where there is nothing left to do. On rank 0."""
    with storage_errors(output.path, "preparing the output"):
        check_directory(output.path)
        claim.acquire()
        try:
            is_to_do = _is_to_do(output, layout, provenance, explain_difference)
            if is_to_do and not output.part.exists():
                _lay_down(world, output, layout, provenance)
        except BaseException:
            claim.release()
            raise
        if not is_to_do:
            claim.release()
        return is_to_do


def _is_to_do(output: Output, layout: Layout, provenance: Provenance, explain_difference: Callable[[str], str]) -> bool:
    """Look at what is there: refuse it, remove it, or find that it can be gone on with, or is complete."""
    if output.resume and output.part.exists():
        _check_same(output.part, layout, provenance, explain_difference)
        check_space(output.part, layout)
    elif output.resume and output.path.exists():
        _check_same(output.path, layout, provenance, explain_difference)
        return False
    elif output.overwrite:
        output.part.unlink(missing_ok=True)
    else:
        check_absent(output)
    return True


def _lay_down(world: World, output: Output, layout: Layout, provenance: Provenance) -> None:
    output.new.unlink(missing_ok=True)
    check_space(output.path, layout)
    if world.comm and output.hints:
        create_striped(output.new, output.hints)
    attributes = {**describe(provenance, world), "layout": layout.to_json()}
    try:
        extents = hdf5.create(output.new, layout, attributes, output.alignment)
        _reserve(output.new, layout, extents)
        write_seal(output.new, make_seal(output.new, extents))
    except BaseException:
        output.new.unlink(missing_ok=True)  # what it has taken of a full disk
        raise
    rename(output.new, output.part)


def _reserve(path: Path, layout: Layout, extents: list[tuple[int, int]]) -> None:
    """Reserve the space of what is sure to be written, so that a disk cannot fill up under a run; tables stay sparse.

    Writing to reserved space takes half the processor time of writing to space that has to be found.
    """
    descriptor = os.open(path, os.O_RDWR)
    try:
        for offset, length in (*extents[: len(layout.fields)], *extents[-len(layout.columns) :]):
            if not reserve(descriptor, offset, length):
                break
    finally:
        os.close(descriptor)


def _check_same(path: Path, layout: Layout, provenance: Provenance, explain_difference: Callable[[str], str]) -> None:
    """Refuse to resume a store that would not become what is asked for."""
    with Reader.open(path) as reader:
        stored = reader.provenance
        if stored["campaign"] != provenance.campaign:
            raise ConfigError(
                f"the store is of campaign {stored['campaign']}, not {provenance.campaign}", where=str(path)
            )
        difference = explain_difference(str(stored["config"]))
        if difference or reader.layout != layout:
            what = f"the store was begun with another configuration: {difference or 'another layout'}"
            raise ConfigError(what, where=str(path), remedy="resume with the first configuration, or give --overwrite")
        if stored["algorithm"] != provenance.algorithm:
            what = f"begun with algorithm {stored['algorithm']}; this scimill has {provenance.algorithm}"
            raise ConfigError(what, where=str(path), remedy=f"resume with scimill {stored['scimill_version']}")
