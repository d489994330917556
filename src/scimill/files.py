"""Files that outlive a crash: the checks before anything is written, the claim, syncing, renaming."""

import contextlib
import ctypes
import errno
import fcntl
import math
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from scimill.errors import ConfigError, StorageError
from scimill.parallel.report import human, say

_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP)
_NO_RESERVING = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)
_LIBC = ctypes.CDLL(None, use_errno=True)
_FULL = ("No space left", "no space left", "NO_SPACE", "quota exceeded", "MPI_ERR_QUOTA", "File too large")


@contextlib.contextmanager
def storage_errors(path: Path, doing: str) -> Iterator[None]:
    """Turn the operating system's and HDF5's refusals into ours."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        text = str(error)
        code = error.errno if isinstance(error, OSError) else None
        if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or any(sign in text for sign in _FULL) or _is_full(path):
            raise StorageError(
                f"the disk is full, while {doing}",
                where=str(path),
                remedy="make space, then run the same command again, with --resume if it has that",
            ) from None
        raise StorageError(f"{doing} failed: {text or type(error).__name__}", where=str(path)) from None


def _is_full(path: Path) -> bool:
    try:
        return _free(path.parent) < 1 << 16
    except OSError:
        return False


def _free(folder: Path) -> float:
    """Free bytes; infinitely many where the file system does not count them."""
    total, _, free = shutil.disk_usage(folder)
    return free if total else math.inf


class Claim:
    """The right to write an output, held by one process until it releases it or ends.

    It keeps a job that was submitted twice from writing the same file twice.

    Parameters
    ----------
    lock : the file to lock; never the output itself, which MPI-IO may lock too.

    """

    def __init__(self, lock: Path) -> None:
        self._path = lock
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
        os.ftruncate(descriptor, 0)
        with contextlib.suppress(OSError):  # a disk that is full does not keep a run from going on
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)

    def _refused(self) -> StorageError:
        remedy = "wait for it, or end it, then --resume"
        return StorageError(
            f"another run is writing this output: {self._owner()}", where=str(self._path), remedy=remedy
        )

    def _owner(self) -> str:
        """Name the run that has the right, as it has written into the lock."""
        with contextlib.suppress(OSError, UnicodeDecodeError):
            return self._path.read_text("utf-8") or "one that has just begun"
        return "one that has just ended"

    def release(self) -> None:
        """Give the right back, if this process has it."""
        if self._descriptor is not None:
            self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None


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


def check_target(path: Path, *, overwrite: bool) -> None:
    """Refuse an output that is there, unless it is to be replaced, or that could not be written."""
    check_directory(path)
    if path.exists() and not overwrite:
        raise StorageError("the output exists", where=str(path), remedy="name another, or give --overwrite")


def check_workbook(path: Path, flag: str) -> None:
    """Refuse an Excel workbook that could not be written at the end.

    Raises
    ------
    ConfigError : not an .xlsx; `flag` is that which names it.
    StorageError : its directory is missing or cannot be written.

    """
    _check_named(path, flag, "workbook", ".xlsx")


def check_picture(path: Path, flag: str) -> None:
    """Refuse what is no .png, as `check_workbook` does, so that a picture takes the place of nothing else."""
    _check_named(path, flag, "picture", ".png")


def _check_named(path: Path, flag: str, what: str, suffix: str) -> None:
    if path.suffix.lower() != suffix:
        raise ConfigError(f"the {what}'s name must end in {suffix}", where=f"flag {flag} {path}")
    check_directory(path)


def free_text(folder: Path) -> str:
    """Free space in words, for plans."""
    free = _free(folder)
    return "unknown: the file system does not count it" if free == math.inf else human(free)


def check_free(path: Path, needed: int) -> None:
    """Refuse to write more bytes than are free where a file goes."""
    free = _free(path.parent)
    if needed > free:
        raise StorageError(
            f"the disk is too small: {human(needed)} are needed, {human(free)} are free",
            where=str(path.parent),
            remedy="make space, write elsewhere, or ask for less",
        )


def reserve(descriptor: int, offset: int, length: int) -> bool:
    """Reserve the space of a part of a file, which grows to its end; return whether the file system could.

    What was written there stays; the rest reads as zeros. The C library's posix_fallocate is not used: where the
    system cannot reserve, it writes to every page.

    Raises
    ------
    OSError : the disk is full.

    """
    fallocate = getattr(_LIBC, "fallocate", None)  # Linux has it
    if fallocate is None:
        return False
    fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    while length and fallocate(descriptor, 0, offset, length) != 0:
        code = ctypes.get_errno()
        if code in _NO_RESERVING:
            return False
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))
    return True


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


@contextlib.contextmanager
def replacing(path: Path, what: str) -> Iterator[Path]:
    """Write a file so that a reader never sees half of it: yield the name to write, which then becomes `path`.

    Parameters
    ----------
    path : the file; one that is there is replaced.
    what : its kind, for the message where it cannot be written.

    Raises
    ------
    StorageError : it cannot be written.

    """
    part = path.with_name(path.name + ".part")
    try:
        with storage_errors(path, f"writing the {what}"):
            yield part
            sync(part)
            rename(part, path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
