"""Crash-safe files: checks before writing, the claim on an output, syncing and renaming."""

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
    """Convert errors of the operating system and HDF5 into `StorageError`."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        text = str(error)
        code = error.errno if isinstance(error, OSError) else None
        if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or any(sign in text for sign in _FULL) or _is_full(path):
            raise StorageError(
                f"the disk is full while {doing}",
                where=str(path),
                remedy="free some space, then run the same command again, with --resume if it has that flag",
            ) from None
        raise StorageError(f"{doing} failed: {text or type(error).__name__}", where=str(path)) from None


def _is_full(path: Path) -> bool:
    try:
        return _free(path.parent) < 1 << 16
    except OSError:
        return False


def _free(folder: Path) -> float:
    """Return the free bytes; infinity if the file system does not report them."""
    total, _, free = shutil.disk_usage(folder)
    return free if total else math.inf


class Claim:
    """The exclusive right to write an output, held by a process until it releases it or exits.

    It prevents a job that was submitted twice from writing the same file twice.

    Parameters
    ----------
    lock : the file to lock; never the output itself, which MPI-IO may lock too.

    """

    def __init__(self, lock: Path) -> None:
        self._path = lock
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the claim.

        Raises
        ------
        StorageError : another run holds it.
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
            os.close(descriptor)  # the other run removed its lock and ended after we had opened it
            raise self._refused()
        self._descriptor = descriptor
        os.ftruncate(descriptor, 0)
        with contextlib.suppress(OSError):  # a full disk must not prevent a run from resuming
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)

    def _refused(self) -> StorageError:
        remedy = "wait until it ends or stop it, then use --resume"
        return StorageError(
            f"another run is writing this output: {self._owner()}", where=str(self._path), remedy=remedy
        )

    def _owner(self) -> str:
        """Describe the run that holds the claim, as it wrote into the lock."""
        with contextlib.suppress(OSError, UnicodeDecodeError):
            return self._path.read_text("utf-8") or "one that has just started"
        return "one that has just ended"

    def release(self) -> None:
        """Release the claim, if this process holds it."""
        if self._descriptor is not None:
            self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None


OVERWRITE = "choose another name, or use --overwrite"


def check_directory(path: Path) -> None:
    """Refuse an output whose directory is missing or cannot be written, before any work is done."""
    folder = path.parent
    with storage_errors(path, "checking the output"):
        if path.is_dir():
            raise StorageError("the output is a directory", where=str(path), allowed="a file name, such as droplets.h5")
        if not folder.is_dir():
            raise StorageError("the output's directory does not exist", where=str(folder), remedy=f"mkdir -p {folder}")
        if not os.access(folder, os.W_OK | os.X_OK) or os.statvfs(folder).f_flag & os.ST_RDONLY:
            raise StorageError("the output's directory cannot be written", where=str(folder))


def check_target(path: Path, *, overwrite: bool) -> None:
    """Refuse an output that exists, unless `overwrite` is set, or that cannot be written."""
    check_directory(path)
    if path.exists() and not overwrite:
        raise StorageError("the output already exists", where=str(path), remedy=OVERWRITE)


def check_workbook(path: Path, flag: str) -> None:
    """Refuse an Excel workbook that could not be written when the run ends.

    Raises
    ------
    ConfigError : its name, given by `flag`, does not end in .xlsx.
    StorageError : its directory is missing or cannot be written.

    """
    _check_named(path, flag, "workbook", ".xlsx")


def check_picture(path: Path, flag: str) -> None:
    """Refuse a name that does not end in .png, so a picture never overwrites another file."""
    _check_named(path, flag, "picture", ".png")


def _check_named(path: Path, flag: str, what: str, suffix: str) -> None:
    if path.suffix.lower() != suffix:
        raise ConfigError(f"the {what}'s name must end in {suffix}", where=f"flag {flag} {path}")
    check_directory(path)


def describe_free_space(folder: Path) -> str:
    """Describe the free space, for plans."""
    free = _free(folder)
    return "unknown: the file system does not report it" if free == math.inf else human(free)


def check_free(path: Path, needed: int) -> None:
    """Refuse to write more bytes than are free on a file's file system."""
    free = _free(path.parent)
    if needed > free:
        raise StorageError(
            f"not enough disk space: {human(needed)} needed, {human(free)} free",
            where=str(path.parent),
            remedy="free some space, write elsewhere, or request less data",
        )


def reserve(descriptor: int, offset: int, length: int) -> bool:
    """Reserve space for a part of a file, extending the file if needed; return whether that worked.

    Existing bytes stay; the rest reads as zeros. The C library's posix_fallocate is not used: if the file system cannot
    reserve space, it writes to every page.

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
    """Flush to the disk what this host has written."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename(source: Path, target: Path) -> None:
    """Rename a file durably.

    Raises
    ------
    StorageError : it cannot be renamed.
    """
    with storage_errors(target, "renaming the file"):
        source.replace(target)
        descriptor = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in _NO_SYNC:  # some file systems cannot sync directories
                raise
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def replacing(path: Path, what: str) -> Iterator[Path]:
    """Write a file atomically: yield a temporary name to write to, then rename it to `path`.

    Parameters
    ----------
    path : the file; an existing one is replaced.
    what : its kind, for the error message.

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
