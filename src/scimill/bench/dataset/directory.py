"""Writing a dataset of plain files the way a store is written: allocate, then write blocks, then rename.

The directory is called ``NAME.part`` until every block is done. Rank 0 makes it, and all ranks allocate the files at
full size. Then each rank writes its own blocks and their rows of the ledger. The manifest is written last.
"""

import dataclasses
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scimill.bench import CAMPAIGN
from scimill.bench.dataset.ledger import DONE, FOLDER, MANIFEST, DatasetManifest, Entry, Ledger, PendingWrite, is_done
from scimill.bench.dataset.plan import MARGIN, DataFile, DatasetPlan, Span, work_buffer
from scimill.claim import Claim
from scimill.errors import ConfigError, ScimillError, Stopped, StorageError
from scimill.files import check_directory, check_free, rename, storage_errors, sync
from scimill.parallel.partition import share
from scimill.parallel.report import Progress, describe_count, say
from scimill.parallel.world import Stop, World
from scimill.store.checksums import crc32c, file_checksum
from scimill.store.direct import AlignedFile, Bytes, allocate_file, use_direct
from scimill.store.output import RESUME, Output, check_absent
from scimill.store.readback import Stored, require_stored
from scimill.version import __version__

Describe = Callable[[str], str]
Finish = Callable[[tuple[Entry, ...]], DatasetManifest]


@dataclasses.dataclass(frozen=True)
class BlockBytes:
    """A block's bytes: `view` of the work buffer `buffer`, which is given back after the write."""

    span: Span
    view: Bytes
    parts: tuple[int, ...]
    buffer: Bytes


class Buffers:
    """The work buffers of a rank: one, or two if one block is made while another is written."""

    def __init__(self, block_size: int, count: int) -> None:
        self._free = [work_buffer(block_size) for _ in range(count)]
        self._writing: list[tuple[Future[None], Bytes]] = []

    def take(self) -> Bytes:
        """Return a free buffer, waiting for the oldest write if necessary; raise the error of a failed write."""
        if not self._free:
            future, buffer = self._writing.pop(0)
            future.result()
            self._free.append(buffer)
        return self._free.pop()

    def give_back_after(self, buffer: Bytes, future: "Future[None]") -> None:
        """Give a buffer back once a write is finished."""
        self._writing.append((future, buffer))

    def give_back(self, buffer: Bytes) -> None:
        """Give a buffer back."""
        self._free.append(buffer)

    def wait(self) -> None:
        """Wait for all writes."""
        while self._writing:
            future, buffer = self._writing.pop(0)
            future.result()
            self._free.append(buffer)


class DirectoryWriter:
    """A directory of allocated files, in which each rank writes its blocks. Made by `open_directory`.

    It satisfies `store.blocks.BlockWriter`; its rows are bytes.
    """

    def __init__(
        self, world: World, output: Output, plan: DatasetPlan, claim: Claim, finish: Finish, *, direct: bool
    ) -> None:
        self.plan, self._world, self._output, self._claim, self._finish = plan, world, output, claim, finish
        self.pending: NDArray[np.int64] = np.arange(plan.blocks)
        self._ledger = Ledger(output.part, plan.blocks)
        self._direct = direct
        self._file: tuple[int, AlignedFile] | None = None
        self._buffers = Buffers(plan.block_size, 2 if direct else 1)
        self._thread = ThreadPoolExecutor(1) if direct else None
        self._started, self._mine = time.monotonic(), list[int]()

    @property
    def rows(self) -> int:
        """Bytes of the dataset."""
        return self.plan.size

    def rows_done(self) -> int:
        """Bytes of all finished blocks."""
        done = int(np.count_nonzero(self._ledger.rows()["state"] == DONE))
        return min(self.plan.size, done * self.plan.block_size)

    def make(self, block: int) -> BlockBytes:
        """Make the bytes of a block."""
        span, buffer = self.plan.span(block), self._buffers.take()
        file = self.plan.files[span.number]
        file.fill(span.start, span.stop, buffer, MARGIN)
        parts = file.parts(span.start, span.stop, buffer, MARGIN)
        return BlockBytes(span, buffer[MARGIN : MARGIN + span.stop - span.start], parts, buffer)

    def write(self, block: int, data: BlockBytes, started: float) -> None:
        """Write a block: its bytes, then its row. A later call may raise the error."""
        del started
        self._mine.append(block)
        if self._thread is None:
            self._write(block, data)
            self._buffers.give_back(data.buffer)
        else:
            self._buffers.give_back_after(data.buffer, self._thread.submit(self._write, block, data))

    def _write(self, block: int, data: BlockBytes) -> None:
        path = self._path(data.span)
        with storage_errors(path, f"writing block {block}"):
            self._open(data.span).write(data.view, data.span.start)
            self._ledger.write(block, crc32c(data.view.data), data.parts)

    def _path(self, span: Span) -> Path:
        return self._output.part / self.plan.files[span.number].name

    def _open(self, span: Span) -> AlignedFile:
        """Open the file of a block and close the previous one; a rank's blocks are in the order of the files."""
        if self._file is None or self._file[0] != span.number:
            self._close()
            self._file = span.number, AlignedFile(self._path(span), direct=self._direct)
        return self._file[1]

    def _close(self) -> None:
        if self._file is not None:
            with storage_errors(self._output.part, "flushing a file to disk"):
                self._file[1].close()
            self._file = None

    def check_done(self, stop: Stop) -> None:
        """Find the blocks still to be written; check finished ones against their checksums. Collective."""
        rows = self._world.broadcast(self._ledger.rows() if self._world.is_root else None)
        assert rows is not None
        done = np.flatnonzero(rows["state"] == DONE)
        mine, unread = [], False
        progress = Progress(len(done), unit="blocks", what="verify", enabled=self._world.is_root)
        for number, block in enumerate(share(done, self._world.rank, self._world.size).tolist()):
            if stop.requested():
                unread = True
                break
            if not (is_done(block, rows[block]) and self._stored_checksum(block) == rows["crc32c"][block]):
                mine.append(block)
            if progress.due():
                progress.update(number * self._world.size)
        progress.close()
        if any(self._world.gather_all(unread)):
            reason = stop.finish()
            self._claim.release()
            self._world.fail(Stopped(f"stopped by {reason} while verifying finished blocks", remedy=RESUME))
        damaged = np.array(sorted(b for part in self._world.gather_all(mine) for b in part), dtype=np.int64)
        if damaged.size and self._world.is_root:
            say(f"{describe_count(damaged.size, 'block')} with a wrong checksum: recomputing")
        self.pending = np.union1d(np.flatnonzero(rows["state"] != DONE), damaged)

    def _stored_checksum(self, block: int) -> int:
        span = self.plan.span(block)
        with storage_errors(self._path(span), f"checking block {block}"):
            return file_checksum(self._path(span), span.start, span.stop)

    def flush(self) -> None:
        """Wait for all writes."""
        self._buffers.wait()

    def finish(self) -> bool:
        """If every block is done and was read back, write the manifest and give the directory its final name."""
        self.flush()
        if self._thread is not None:
            self._thread.shutdown()
        self._close()
        complete = sum(self._world.gather_all(len(self._mine))) == len(self.pending)
        try:
            if complete:
                self._require_stored()
                self._patch_all()
                self._world.on_root(self._complete)
        finally:
            self._claim.release()
        return complete

    def _require_stored(self) -> None:
        """Refuse to publish a dataset in which other hosts do not find what was written."""
        sync(self._ledger.path, forget=True)
        self._world.barrier()
        rows = self._ledger.rows()

        def unfinished(first: int, last: int) -> list[int]:
            return [block for block in range(first, last) if not is_done(block, rows[block])]

        def is_damaged(block: int) -> bool:
            return bool(self._stored_checksum(block) != rows["crc32c"][block])

        elapsed = time.monotonic() - self._started
        require_stored(self._world, self._output, Stored(self.plan.blocks, self._mine, elapsed, unfinished, is_damaged))

    def _patch_all(self) -> None:
        """Write what is known only now into all files, and read it back."""
        rows, numbers = self._ledger.rows(), np.arange(len(self.plan.files))
        self._mine = [
            block
            for number in share(numbers, self._world.rank, self._world.size).tolist()
            for block in self._patch(number, rows)
        ]
        if any(self._world.gather_all(self._mine)):
            self._require_stored()

    def _patch(self, number: int, rows: NDArray[np.void]) -> Iterator[int]:
        """Write the bytes of a file that are known only now, and their blocks' checksums; yield these blocks."""
        file, first = self.plan.files[number], int(self.plan.first_blocks[number])
        parts = rows["parts"][first : int(self.plan.first_blocks[number + 1])]
        path = self._output.part / file.name
        for offset, content in file.patches(self.plan.block_size, parts):
            with storage_errors(path, "writing the file's checksums"), path.open("r+b") as stream:
                for start, piece in _split_at_blocks(offset, content, self.plan.block_size):
                    stream.seek(start)
                    stream.write(piece)
                stream.flush()
                os.fsync(stream.fileno())
                for start, _ in _split_at_blocks(offset, content, self.plan.block_size):
                    block = first + start // self.plan.block_size
                    self._ledger.write(block, self._stored_checksum(block), tuple(rows["parts"][block].tolist()))
                    yield block

    def _complete(self) -> None:
        self._claim.confirm()
        complete(self._output, self.plan, self._finish)


def complete(output: Output, plan: DatasetPlan, finish: Finish) -> None:
    """Write the manifest, then give the directory its final name, replacing an old dataset."""
    part, path = output.part, output.path
    ledger = Ledger(part, plan.blocks)
    sync(ledger.path)
    manifest = finish(ledger.entries(plan))
    if not _has_manifest(part, manifest):
        manifest.write(part)
    PendingWrite.of(DatasetManifest.read(part), plan.blocks).write(part)  # a resumed run may have other flags
    replaced = path.with_name(path.name + ".replaced")
    with storage_errors(path, "replacing the old dataset"):
        if (path / MANIFEST).exists():
            path.rename(replaced)
    rename(part, path)
    shutil.rmtree(replaced, ignore_errors=True)


def _has_manifest(part: Path, manifest: DatasetManifest) -> bool:
    """Whether the manifest exists already, as in a finished dataset under repair."""
    try:
        stored = DatasetManifest.read(part)
    except ScimillError:
        return False
    return dataclasses.replace(stored, made=manifest.made) == manifest


def _split_at_blocks(offset: int, content: bytes, block_size: int) -> Iterator[tuple[int, bytes]]:
    """Split bytes at block boundaries."""
    while content:
        room = block_size - offset % block_size
        yield offset, content[:room]
        offset, content = offset + room, content[room:]


# ---- allocating -------------------------------------------------------------------------------------------------


def open_directory(
    world: World, output: Output, plan: DatasetPlan, pending: PendingWrite, describe_difference: Describe, stop: Stop,
    finish: Finish, *, direct: bool,
) -> DirectoryWriter | None:  # fmt: skip
    """Allocate a dataset, or open an unfinished one; collective. Return None if it is already complete.

    Parameters
    ----------
    world, output, plan : the ranks, the output, the content.
    pending : the record of this write, stored for ``--resume``.
    describe_difference : describes how a stored configuration differs; empty if it does not.
    stop : checked while finished blocks are verified.
    finish : makes the manifest from the files' entries.
    direct : whether to bypass the page cache if the file system supports it.

    Raises
    ------
    ConfigError : the existing dataset was started with a different configuration.
    StorageError : the output exists, is not a dataset, cannot be written, or the disk is too small.

    """
    claim = output.claim()
    if not world.on_root(prepare, output, plan, pending, describe_difference, claim):
        return None
    direct = world.on_root(partial(use_direct, output.part / FOLDER, wanted=direct))
    _allocate_files(world, output, plan, claim)
    writer = DirectoryWriter(world, output, plan, claim, finish, direct=direct)
    writer.check_done(stop)
    return writer


def prepare(
    output: Output, plan: DatasetPlan, pending: PendingWrite, describe_difference: Describe, claim: Claim, *,
    takes_space: bool = True,
) -> bool:  # fmt: skip
    """Check the output, and make its directory with an empty ledger if there is none; False if complete.

    Parameters
    ----------
    output, plan, pending, describe_difference : see `open_directory`.
    claim : the claim on the output; kept if there is something to write.
    takes_space : whether the files need disk space; clones do not.

    Raises
    ------
    ConfigError, StorageError : see `open_directory`.

    """
    check_place(output)
    with storage_errors(output.lock, "locking the output"):
        claim.acquire()
    try:
        needs_writing = _needs_writing(output, plan, pending, describe_difference)
        if needs_writing and takes_space:
            check_space(output.part, plan)
        if needs_writing and not output.part.exists():
            _make_directory(output, plan, pending)
    except ScimillError:
        claim.release()
        raise
    if not needs_writing:
        claim.release()
    return needs_writing


def check_place(output: Output) -> None:
    """Refuse an output that cannot become a directory, or holds something else."""
    path = output.path
    check_directory(output.lock)
    if path.exists() and not path.is_dir():
        raise StorageError("the output is a file", where=str(path), allowed="a directory; scimill creates it")
    if path.is_dir() and path.is_mount():
        raise StorageError("the output is a mount point", where=str(path), remedy="choose a directory inside it")
    with storage_errors(path, "reading the output directory"):
        if path.is_dir() and any(path.iterdir()) and not (path / MANIFEST).exists():
            raise StorageError("the output holds other data", where=str(path), remedy="choose another output")


def _needs_writing(output: Output, plan: DatasetPlan, pending: PendingWrite, describe_difference: Describe) -> bool:
    if output.resume and output.part.exists():
        stored = PendingWrite.read(output.part)
        _check_same_config(stored, pending, describe_difference, output.part)
    elif output.resume and (output.path / MANIFEST).exists():
        manifest = DatasetManifest.read(output.path)
        _check_same_config(PendingWrite.of(manifest, plan.blocks), pending, describe_difference, output.path)
        return False
    else:
        _clear_output(output)
    return True


def _clear_output(output: Output) -> None:
    """Remove an unfinished run if that is allowed; refuse to replace anything else."""
    if not output.overwrite:
        if (output.path / MANIFEST).exists() or output.part.exists():
            check_absent(output)
    elif output.part.exists():
        PendingWrite.read(output.part)
        with storage_errors(output.part, "removing the unfinished run"):
            shutil.rmtree(output.part)


def check_space(part: Path, plan: DatasetPlan) -> None:
    """Refuse a dataset larger than the free space plus what an unfinished run already occupies."""
    occupied = sum(path.stat().st_blocks * 512 for path in part.rglob("*") if path.is_file())
    largest = max(file.size for file in plan.files)
    check_free(part, plan.size - occupied)
    limit = os.pathconf(part.parent, "PC_FILESIZEBITS")
    if largest >= 1 << (limit - 1):
        raise StorageError(f"the file system cannot hold a file of {largest:,} bytes", where=str(part.parent))


def _make_directory(output: Output, plan: DatasetPlan, pending: PendingWrite) -> None:
    with storage_errors(output.new, "making the directory"):
        if output.new.exists():
            shutil.rmtree(output.new)
        (output.new / FOLDER).mkdir(parents=True)
        pending.write(output.new)
        Ledger(output.new, plan.blocks).create()
    rename(output.new, output.part)


def _check_same_config(stored: PendingWrite, pending: PendingWrite, describe_difference: Describe, path: Path) -> None:
    difference = describe_difference(stored.config)
    if stored.campaign != pending.campaign:
        difference = f"campaign was {stored.campaign}, is {pending.campaign}"
    elif not difference and stored.algorithm != pending.algorithm:
        difference = f"algorithm was {stored.algorithm} (scimill {stored.scimill_version}), is {pending.algorithm}"
    elif not difference and stored.blocks != pending.blocks:
        difference = f"number of blocks was {stored.blocks}, is {pending.blocks}"
    if difference:
        raise ConfigError(
            f"the dataset was started with a different configuration: {difference}", where=str(path),
            remedy="resume with the original configuration, or use --overwrite",
        )  # fmt: skip


def _allocate_files(world: World, output: Output, plan: DatasetPlan, claim: Claim) -> None:
    """Make all files at full size, each rank its share; if one rank fails, all fail together."""
    failure: ScimillError | None = None
    reserved = True
    try:
        if not (output.part / FOLDER).is_dir():
            raise StorageError(
                f"rank {world.rank} on host {socket.gethostname()} does not see the folder that rank 0 has made",
                where=str(output.part), remedy="write to a directory that all hosts share",
            )  # fmt: skip
        for number in share(np.arange(len(plan.files)), world.rank, world.size).tolist():
            reserved &= _allocate(output.part, plan.files[number])
    except ScimillError as error:
        failure = error
    found = [error for error in world.gather_all(failure) if error is not None]
    if found:
        claim.release()
        world.fail(found[0])
    if not all(world.gather_all(reserved)) and world.is_root:
        say("this file system cannot reserve space: if the disk fills up, the run fails while writing")


def _allocate(part: Path, file: DataFile) -> bool:
    path = part / file.name
    with storage_errors(path, "reserving space"):
        path.parent.mkdir(exist_ok=True)
        return allocate_file(path, file.size)


def make_manifest(
    workload: str, form: str, seed: int, plan: DatasetPlan, text: str, files: tuple[Entry, ...]
) -> DatasetManifest:
    """Make the manifest of a finished dataset, with the date, host and version that made it.

    Parameters
    ----------
    workload, form, seed : workload, format and seed.
    plan, text : content, and the configuration as YAML.
    files : entries of its files.

    """
    made: dict[str, str | int] = {
        "scimill_version": __version__,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "host": socket.gethostname(),
    }
    return DatasetManifest(
        workload, form, seed, CAMPAIGN.algorithm, plan.block_size, plan.size, plan.records, text, files, made
    )
