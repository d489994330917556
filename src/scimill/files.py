"""Crash-safe files: checks before writing, syncing and renaming."""

import contextlib
import ctypes
import errno
import math
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from scimill.errors import ConfigError, StorageError
from scimill.parallel.report import human

_NO_SYNC = (errno.EINVAL, errno.ENOTSUP)
_NO_RESERVING = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)
_LIBC = ctypes.CDLL(None, use_errno=True)
_FULL = ("No space left", "no space left", "NO_SPACE", "File too large")
_QUOTA = ("quota exceeded", "Quota exceeded", "MPI_ERR_QUOTA")
_RESUME = "then run the same command again, with --resume if it has that flag"
_CAUSES = {
    errno.ENOSPC: ("the disk is full", f"free some space, {_RESUME}"),
    errno.EFBIG: ("the disk is full, or files may not be so large", f"free some space or raise the limit, {_RESUME}"),
    errno.EDQUOT: ("your quota on this disk is used up", f"remove some of your files, {_RESUME}"),
    errno.EIO: ("the disk or its server reports an input/output error", f"check it with scimill doctor, {_RESUME}"),
    errno.ESTALE: ("the server no longer knows the file", f"see whether another run replaced it, {_RESUME}"),
}


@contextlib.contextmanager
def storage_errors(path: Path, doing: str) -> Iterator[None]:
    """Convert errors of the operating system and HDF5 into `StorageError`."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        text = str(error)
        if cause := _CAUSES.get(_cause(error, path) or 0):
            raise StorageError(f"{cause[0]} while {doing}", where=str(path), remedy=cause[1]) from None
        raise StorageError(f"{doing} failed: {text or type(error).__name__}", where=str(path)) from None


def _cause(error: Exception, path: Path) -> int | None:
    """Return the error's number; MPI and HDF5 pass on only a text, and some only that something failed."""
    code = error.errno if isinstance(error, OSError) else None
    if code is not None and code != errno.EIO:
        return code
    for signs, meaning in ((_FULL, errno.ENOSPC), (_QUOTA, errno.EDQUOT)):
        if any(sign in str(error) for sign in signs):
            return meaning
    return _try_to_write(path) or code


def _try_to_write(path: Path) -> int | None:
    """Return the number of the error that writing beside a file gives; None if it works."""
    trial = path.with_name(f"{path.name}.trial-{os.getpid()}")
    try:
        descriptor = os.open(trial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.pwrite(descriptor, bytes(1 << 16), 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
            trial.unlink(missing_ok=True)
    except OSError as error:
        return error.errno
    return None


def _free(folder: Path) -> float:
    """Return the free bytes; infinity if the file system does not report them."""
    total, _, free = shutil.disk_usage(folder)
    return free if total else math.inf


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
    try:
        free = _free(folder)
    except OSError as error:
        return f"unknown: {(error.strerror or 'no answer').lower()}"
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
    fallocate = _LIBC.fallocate
    fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    while length and fallocate(descriptor, 0, offset, length) != 0:
        code = ctypes.get_errno()
        if code in _NO_RESERVING:
            return False
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))
    return True


def sync(path: Path, *, forget: bool = False) -> None:
    """Flush to the disk what this host has written; drop it from the host's cache if `forget` is set."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
        if forget:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
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


def keep_mode(old: Path, new: Path) -> None:
    """Give a new file the permissions of the file that it will replace, if there is one."""
    with contextlib.suppress(FileNotFoundError):
        new.chmod(stat.S_IMODE(old.stat().st_mode))


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
            keep_mode(path, part)
            sync(part)
            rename(part, path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
