"""Write files in large aligned pieces, past the page cache if the file system supports it."""

import errno
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scimill.files import reserve, storage_errors
from scimill.parallel.report import say

Bytes = NDArray[np.uint8]

PAGE = 4096  # bytes; direct I/O needs addresses, offsets and lengths in multiples of the disk's block, 512 or 4096
_UNSUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)


def aligned(size: int) -> Bytes:
    """Return `size` bytes of zeroed memory, aligned to a page."""
    raw = np.zeros(size + PAGE, dtype=np.uint8)
    first = -raw.ctypes.data % PAGE
    return raw[first : first + size]


def allocate_file(path: Path, size: int) -> bool:
    """Make a file of this size and reserve its space; return whether reserving worked.

    Raises
    ------
    OSError : the disk is full, or the file cannot be written.

    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        reserved = reserve(descriptor, 0, size)
        os.ftruncate(descriptor, size)
        return reserved
    finally:
        os.close(descriptor)


class Pages:
    """A file whose whole pages one rank writes past the page cache. Made by `open_pages`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @staticmethod
    def accepts(content: Bytes, offset: int) -> bool:
        """Return whether bytes are whole pages, in memory and in the file."""
        return bool((content.ctypes.data | content.size | offset) % PAGE == 0)

    def write(self, content: Bytes, offset: int) -> None:
        """Write all bytes, which must be whole pages."""
        _write_all(self._descriptor, content, offset)

    def close(self) -> None:
        """Close; fsync is still needed for the caches of the file system and the disk."""
        os.close(self._descriptor)


def open_pages(path: Path) -> Pages | None:
    """Open a file for writing past the page cache; None if the file system does not support that."""
    try:
        return Pages(os.open(path, os.O_WRONLY | os.O_DIRECT))
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    return None


class AlignedFile:
    """An existing file of full size, open for writing blocks by one rank.

    Parameters
    ----------
    path : the file.
    direct : try to write past the page cache.

    """

    def __init__(self, path: Path, *, direct: bool) -> None:
        self._cached = os.open(path, os.O_RDWR)
        self._pages = open_pages(path) if direct else None

    def write(self, content: Bytes, offset: int) -> None:
        """Write all bytes; incomplete pages go through the page cache."""
        whole = len(content) // PAGE * PAGE
        done = 0
        if self._pages is not None and self._pages.accepts(content[:whole], offset):
            self._pages.write(content[:whole], offset)
            done = whole
        _write_all(self._cached, content[done:], offset + done)

    def close(self) -> None:
        """Flush everything to the disk and close."""
        os.fsync(self._cached)
        os.posix_fadvise(self._cached, 0, 0, os.POSIX_FADV_DONTNEED)  # what is read back shall come from the storage
        os.close(self._cached)
        if self._pages is not None:
            self._pages.close()


def _write_all(descriptor: int, content: Bytes, offset: int) -> None:
    view, done = content.data, 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done:], offset + done)


def use_direct(folder: Path, *, wanted: bool) -> bool:
    """Return whether direct I/O is wanted and the file system of this folder supports it.

    Raises
    ------
    StorageError : a file cannot be written there.

    """
    if not wanted:
        return False
    with storage_errors(folder, "trying direct I/O"):
        is_supported = _supports_direct(folder)
    if not is_supported:
        say("this file system does not support direct I/O: writing through the page cache")
    return is_supported


def _supports_direct(folder: Path) -> bool:
    """Try direct I/O on a temporary file; some file systems accept the flag but no write."""
    trial = folder / f".direct-{os.getpid()}"
    trial.touch()
    try:
        pages = open_pages(trial)
    finally:
        trial.unlink(missing_ok=True)
    if pages is None:
        return False
    try:
        pages.write(aligned(PAGE), 0)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return False
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):  # a resumed output already has its space
            raise
    finally:
        pages.close()
    return True
