"""The place where an output goes: its names, the checks before anything is written, its lock, its renaming."""

import contextlib
import dataclasses
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from scimill.errors import StorageError
from scimill.parallel.report import human, say
from scimill.store.hdf5 import storage_errors
from scimill.store.layout import Layout
from scimill.store.seal import SEAL_BYTES

STRUCTURE_BYTES = 1 << 20  # generous estimate of what is no data, for the check of free space
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP)


@dataclasses.dataclass(frozen=True)
class Output:
    """Where a file goes, and what to do with what is there."""

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

    @property
    def lock(self) -> Path:
        """The file that is locked while a run writes; never the output itself, which MPI-IO may lock too."""
        return self.path.with_name(self.path.name + ".lock")


class Claim:
    """The right to write an output, held by one process until it releases it or ends.

    It keeps a job that was submitted twice from writing the same file twice.
    """

    def __init__(self, output: Output) -> None:
        self._path = output.lock
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the right.

        Raises
        ------
        StorageError : another run has it.
        """
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise self._refused() from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            say(f"this file system has no locks: make sure that no other run writes {self._path}")
        if not self._path.exists() or not os.path.samestat(self._path.stat(), os.fstat(descriptor)):
            os.close(descriptor)  # the other run has ended, and removed its lock, since we opened it
            raise self._refused()
        self._descriptor = descriptor

    def _refused(self) -> StorageError:
        remedy = "wait for it, or end it, then --resume"
        return StorageError("another run is writing this output", where=str(self._path), remedy=remedy)

    def release(self) -> None:
        """Give the right back, if this process has it."""
        if self._descriptor is not None:
            self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None


@contextlib.contextmanager
def copying(source: Path, output: Output, needed: int) -> Iterator[Path]:
    """Write a copy of a store: yield the name to write, which becomes the output's when all has gone well.

    Parameters
    ----------
    source : what is copied.
    output : where to; an unfinished run of that name is only replaced where `overwrite` is given.
    needed : bytes that the copy takes at most.

    Raises
    ------
    StorageError : the output exists, is the source, is being written, or cannot be written.
    """
    with storage_errors(output.part, "writing the copy"):
        check_directory(output.path)
        if source.resolve() in (output.path.resolve(), output.part.resolve()):
            raise StorageError("the output is the source", where=str(output.path), remedy="name another output")
        claim = Claim(output)
        claim.acquire()
        try:
            if not output.overwrite:
                check_absent(output)
            check_free(output.path, needed)
            yield output.part
            sync(output.part)
            rename(output.part, output.path)
        finally:
            claim.release()


def check_directory(path: Path) -> None:
    """Refuse an output whose directory is missing or cannot be written, before any work is done."""
    folder = path.parent
    with storage_errors(path, "looking at the output"):
        if path.is_dir():
            raise StorageError("the output is a directory", where=str(path), allowed="a file name, such as droplets.h5")
        if not folder.is_dir():
            raise StorageError("the output's directory does not exist", where=str(folder), remedy=f"mkdir -p {folder}")
        if not os.access(folder, os.W_OK | os.X_OK) or os.statvfs(folder).f_flag & os.ST_RDONLY:
            raise StorageError("the output's directory cannot be written", where=str(folder))


def check_space(path: Path, layout: Layout) -> None:
    """Refuse a store that is larger than the space which is free for it; tables are taken to be sparse."""
    there = path.stat().st_blocks * 512 if path.exists() else 0
    check_free(path, layout.data_bytes - layout.table_bytes + SEAL_BYTES + STRUCTURE_BYTES - there)


def check_free(path: Path, needed: int) -> None:
    """Refuse to write more bytes than are free where a file goes."""
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise StorageError(
            f"the disk is too small: {human(needed)} are needed, {human(free)} are free",
            where=str(path.parent),
            remedy="make space, write elsewhere, or ask for less",
        )


def check_absent(output: Output) -> None:
    """Refuse an output that exists, finished or not."""
    if output.path.exists():
        raise StorageError("the output exists", where=str(output.path), remedy="name another, or give --overwrite")
    if output.part.exists():
        remedy = "give --resume to go on with it, or --overwrite to begin anew"
        raise StorageError("an unfinished run has left its output", where=str(output.part), remedy=remedy)


def sync(path: Path) -> None:
    """Bring what this host has written to the disk."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename(source: Path, target: Path) -> None:
    """Rename durably.

    Raises
    ------
    StorageError : refused.
    """
    with storage_errors(target, "renaming the file"):
        source.replace(target)
        descriptor = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in _NO_SYNC:  # some file systems know no fsync of directories
                raise
        finally:
            os.close(descriptor)
