"""Writing a store: lay down, then move bytes, then rename.

The file is ``NAME.part`` until every block is done. Rank 0 lays down all structure, in ``NAME.part.new``, and renames
it. After that each rank writes its blocks' bytes and ledger rows on its own; no call is collective but opening and
closing. The order of a block's writes is data, checksum, done mark, so a block marked done is complete at any instant.
"""

import dataclasses
import errno
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scimill.errors import ConfigError, StorageError
from scimill.parallel.partition import share
from scimill.parallel.report import say
from scimill.parallel.world import World, create_striped
from scimill.store import hdf5
from scimill.store.checksums import bytes_checksum, row_checksum
from scimill.store.layout import DONE, PENDING, Layout
from scimill.store.provenance import Provenance, describe
from scimill.store.reader import Reader
from scimill.store.seal import SEAL_BYTES, make_seal, write_seal
from scimill.store.verify import block_damage

STRUCTURE_BYTES = 1 << 20  # generous estimate of what is no data, for the check of free space


@dataclasses.dataclass(frozen=True)
class BlockData:
    """What a campaign returns for one block: its rows by field, its tables' rows, its ledger columns."""

    fields: Mapping[str, NDArray[np.generic]]
    tables: Mapping[str, Mapping[str, NDArray[np.generic]]] = dataclasses.field(default_factory=dict)
    ledger: Mapping[str, ArrayLike] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Output:
    """Where a store goes, and what to do with what is there."""

    path: Path
    resume: bool = False
    overwrite: bool = False
    hints: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """MPI-IO hints, used by every rank"""
    alignment: int = 4096
    """bytes of which the offset of every large dataset is a multiple"""

    @property
    def part(self) -> Path:
        """The file's name until it is complete."""
        return self.path.with_name(self.path.name + ".part")

    @property
    def new(self) -> Path:
        """The file's name until it is laid down."""
        return self.path.with_name(self.path.name + ".part.new")


class Writer:
    """An open store, of which each rank writes its blocks. Made by `open_writer`."""

    def __init__(self, world: World, output: Output, layout: Layout, lock: int | None) -> None:
        self.layout = layout
        self._world, self._output, self._lock = world, output, lock
        self._file = hdf5.open_for_writing(output.part, world, output.hints)
        self._datasets = {field.name: self._file[field.name] for field, _ in layout.datasets()}
        self._rows = {name: hdf5.Rows(dataset) for name, dataset in self._datasets.items()}
        self.pending = self._find_pending()

    def _find_pending(self) -> NDArray[np.int64]:
        """Blocks still to do, the same on all ranks; among them done ones that do not match their checksum."""
        states = self._world.broadcast(self._datasets["blocks/state"][:] if self._world.is_root else None)
        done = np.flatnonzero(states == DONE)
        reader = Reader(self._output.part, self._file)
        mine = [block for block in share(done, self._world.rank, self._world.size) if block_damage(reader, int(block))]
        for block in mine:
            self._datasets["blocks/state"][block] = PENDING
        damaged = np.array(sorted(b for part in self._world.gather_all(mine) for b in part), dtype=np.int64)
        if damaged.size and self._world.is_root:
            say(f"{damaged.size} blocks do not match their checksums and are done again")
        return np.union1d(np.flatnonzero(states != DONE), damaged)

    def write(self, block: int, data: BlockData, started: float) -> None:
        """Write a block: data, then its ledger row, then its done mark. Independent of the other ranks.

        Parameters
        ----------
        block : its number.
        data : its content.
        started : `time.monotonic` when work on it began.

        """
        with hdf5.storage_errors(self._output.part, f"writing block {block}"):
            checksum = self._write_data(block, data)
            self._write_row(block, self._row(block, data, checksum, time.monotonic() - started))
            self._rows["blocks/state"].write(block, np.array([DONE], dtype=np.uint8))

    def _write_data(self, block: int, data: BlockData) -> int:
        checksum, span = 0, self.layout.span(block)
        for field in self.layout.fields:
            rows = np.ascontiguousarray(data.fields[field.name], dtype=field.dtype)
            if len(rows) != span.stop - span.start:
                raise ValueError(f"{len(rows)} rows of {field.name} for a block of {span.stop - span.start}")
            self._rows[field.name].write(span.start, rows)
            checksum = bytes_checksum(rows, checksum)
        for table in self.layout.tables:
            for field in table.fields:
                rows = np.ascontiguousarray(data.tables[table.name][field.name], dtype=field.dtype)
                if len(rows):
                    self._rows[f"{table.name}/{field.name}"].write(block * table.capacity, rows)
                checksum = bytes_checksum(rows, checksum)
        return checksum

    def _row(self, block: int, data: BlockData, checksum: int, seconds: float) -> dict[str, ArrayLike]:
        row: dict[str, ArrayLike] = dict(data.ledger)
        for table in self.layout.tables:
            row[table.counter] = len(data.tables[table.name][table.fields[0].name])
        row |= {"seconds": seconds, "crc32c": checksum, "state": DONE}
        row["row_crc32c"] = row_checksum(self.layout, block, row)
        return row

    def _write_row(self, block: int, row: Mapping[str, ArrayLike]) -> None:
        for column in self.layout.columns:
            if column.name != "state":
                value = np.array(row[column.name], dtype=column.dtype)
                self._rows[f"blocks/{column.name}"].write(block, value.reshape(1, *column.shape))

    def rows_done(self) -> int:
        """Rows of all blocks that are done, as the ledger says now."""
        done = np.flatnonzero(self._datasets["blocks/state"][:] == DONE)
        last_is_done = done.size > 0 and done[-1] == self.layout.blocks - 1
        short = self.layout.block_rows - self.layout.rows_in(self.layout.blocks - 1)
        return int(done.size * self.layout.block_rows - (short if last_is_done else 0))

    def finish(self) -> bool:
        """Close the file; when every block is done, give it its name. Return whether it is complete. Collective."""
        self._world.barrier()  # before rank 0 looks, every rank has marked its last block
        complete = self._world.broadcast(
            bool(np.all(self._datasets["blocks/state"][:] == DONE)) if self._world.is_root else False
        )
        with hdf5.storage_errors(self._output.part, "closing the file"):
            self._file.close()
            _sync(self._output.part)
        self._world.barrier()
        if complete:
            self._world.on_root(_rename, self._output.part, self._output.path)
        if self._lock is not None:
            os.close(self._lock)
        return complete


# ---- opening ----------------------------------------------------------------------------------------------------


def open_writer(
    world: World,
    output: Output,
    layout: Layout,
    provenance: Provenance,
    explain_difference: Callable[[str], str],
) -> Writer | None:
    """Open an output for writing: a new store, or one to be resumed. Collective.

    Parameters
    ----------
    world, output, layout, provenance : the ranks, the place, the structure and the origin.
    explain_difference : given the stored configuration, says what would change the bytes, or an empty text.

    Returns
    -------
    Writer, or None where the store is complete already.

    Raises
    ------
    ConfigError : resumed with another configuration, or many ranks and an h5py without MPI.
    StorageError : the output exists, is written by another run, the directory is missing or the space too small.
    InputError : what should be resumed is no store.

    """
    if world.size > 1 and not hdf5.is_parallel():
        what = f"{world.size} ranks, but this h5py was built without MPI"
        world.fail(ConfigError(what, remedy="run scripts/setup.sh with a parallel HDF5, or use one rank"))
    prepared = world.on_root(_prepare, world, output, layout, provenance, explain_difference)
    if prepared is None:
        return None
    lock = prepared if world.is_root else None  # the descriptor is of use on the rank that opened it only
    return Writer(world, output, layout, lock)


def _prepare(
    world: World, output: Output, layout: Layout, provenance: Provenance, explain_difference: Callable[[str], str]
) -> int | None:
    """Bring about a laid-down ``.part`` and lock it; None where there is nothing left to do. On rank 0."""
    with hdf5.storage_errors(output.path, "preparing the output"):
        check_directory(output.path)
        if output.resume and output.path.exists() and not output.part.exists():
            _check_same(output.path, layout, provenance, explain_difference)
            return None
        if not output.resume and not output.overwrite:
            _check_absent(output)
        if output.part.exists():
            lock = _lock(output.part, os.O_RDWR)
            if output.resume:
                _check_same(output.part, layout, provenance, explain_difference)
                check_space(output.part, layout)
                return lock
            output.part.unlink()
            os.close(lock)
        return _lay_down(world, output, layout, provenance)


def _lay_down(world: World, output: Output, layout: Layout, provenance: Provenance) -> int:
    check_space(output.path, layout)
    if world.comm and output.hints:
        create_striped(output.new, output.hints)
    lock = _lock(output.new, os.O_RDWR | os.O_CREAT)
    if output.part.exists() or (output.path.exists() and not output.overwrite):
        output.new.unlink()
        raise _another_run(output.part)  # it was quicker, between our looking and locking
    attributes = {**describe(provenance, world), "layout": layout.to_json()}
    extents = hdf5.create(output.new, layout, attributes, output.alignment)
    write_seal(output.new, make_seal(output.new, extents))
    _rename(output.new, output.part)
    return lock


def check_directory(path: Path) -> None:
    """Refuse an output whose directory is missing or cannot be written, before any work is done."""
    folder = path.parent
    if path.is_dir():
        raise StorageError("the output is a directory", where=str(path), allowed="a file name, such as droplets.h5")
    if not folder.is_dir():
        raise StorageError("the output's directory does not exist", where=str(folder), remedy=f"mkdir -p {folder}")
    if not os.access(folder, os.W_OK | os.X_OK) or os.statvfs(folder).f_flag & os.ST_RDONLY:
        raise StorageError("the output's directory cannot be written", where=str(folder))


def check_space(path: Path, layout: Layout) -> None:
    """Refuse an output that is larger than the space which is free for it."""
    there = path.stat().st_blocks * 512 if path.exists() else 0
    check_free(path, layout.data_bytes + SEAL_BYTES + STRUCTURE_BYTES - there)


def check_free(path: Path, needed: int) -> None:
    """Refuse to write more bytes than are free where a file goes."""
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise StorageError(
            f"the disk is too small: {human(needed)} are needed, {human(free)} are free",
            where=str(path.parent),
            remedy="make space, write elsewhere, or ask for less",
        )


def human(size: float) -> str:
    """Write a number of bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(size) < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} PiB"


def _check_absent(output: Output) -> None:
    if output.path.exists():
        raise StorageError("the output exists", where=str(output.path), remedy="name another, or give --overwrite")
    if output.part.exists():
        remedy = "give --resume to go on with it, or --overwrite to begin anew"
        raise StorageError("an unfinished run has left its output", where=str(output.part), remedy=remedy)


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


def _lock(path: Path, flags: int) -> int:
    """Lock a file for as long as this process lives, so that a job submitted twice does not write it twice."""
    descriptor = os.open(path, flags, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise _another_run(path) from None
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
            raise
        say(f"this file system has no locks: make sure that no other run writes {path}")
    if not path.exists() or not os.path.samestat(path.stat(), os.fstat(descriptor)):
        os.close(descriptor)  # it was renamed before it was locked
        raise _another_run(path)
    return descriptor


def _another_run(path: Path) -> StorageError:
    remedy = "wait for it, or end it, then --resume"
    return StorageError("another run is writing this output", where=str(path), remedy=remedy)


def _sync(path: Path) -> None:
    """Bring what this host has written to the disk."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _rename(source: Path, target: Path) -> None:
    """Rename durably."""
    source.replace(target)
    descriptor = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
