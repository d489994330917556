"""Writing files in large aligned pieces, past the page cache where the file system takes that."""

import errno
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scimill.files import reserve, storage_errors
from scimill.parallel.report import say

Bytes = NDArray[np.uint8]

PAGE = 4096  # bytes: address, offset and length of direct I/O are multiples of this; disks have blocks of 512 or 4096
_REFUSED = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)


def aligned(size: int) -> Bytes:
    """Return `size` bytes of zeroed memory that begin at a page."""
    raw = np.zeros(size + PAGE, dtype=np.uint8)
    first = -raw.ctypes.data % PAGE
    return raw[first : first + size]


def lay_down(path: Path, size: int) -> bool:
    """Make a file of this size, and reserve its space; return whether the file system could reserve it.

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
    """A file of which whole pages are written past the page cache, by one rank. Made by `open_pages`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @staticmethod
    def takes(content: Bytes, offset: int) -> bool:
        """Whether bytes are whole pages, in memory and in the file."""
        return bool((content.ctypes.data | content.size | offset) % PAGE == 0)

    def write(self, content: Bytes, offset: int) -> None:
        """Write all bytes, which must be whole pages."""
        _write_all(self._descriptor, content, offset)

    def close(self) -> None:
        """Close; fsync is still needed, for what the file system and the disk keep to themselves."""
        os.close(self._descriptor)


def open_pages(path: Path) -> Pages | None:
    """Open a file for writing past the page cache; None where the file system does not take that."""
    try:
        return Pages(os.open(path, os.O_WRONLY | os.O_DIRECT))
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
    return None


class AlignedFile:
    """A laid-down file, open for writing blocks by one rank.

    Parameters
    ----------
    path : the file.
    direct : try to write past the page cache.

    """

    def __init__(self, path: Path, *, direct: bool) -> None:
        self._cached = os.open(path, os.O_RDWR)
        self._pages = open_pages(path) if direct else None

    def write(self, content: Bytes, offset: int) -> None:
        """Write all bytes; what is no whole page goes through the page cache."""
        whole = len(content) // PAGE * PAGE
        done = 0
        if self._pages is not None and self._pages.takes(content[:whole], offset):
            self._pages.write(content[:whole], offset)
            done = whole
        _write_all(self._cached, content[done:], offset + done)

    def close(self) -> None:
        """Bring all to the disk and close."""
        os.fsync(self._cached)
        os.close(self._cached)
        if self._pages is not None:
            self._pages.close()


def _write_all(descriptor: int, content: Bytes, offset: int) -> None:
    view, done = content.data, 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done:], offset + done)


def use_direct(folder: Path, *, wanted: bool) -> bool:
    """Whether to write files of this folder past the page cache: where that is wanted, and the file system takes it.

    Raises
    ------
    StorageError : no file can be written there.

    """
    if not wanted:
        return False
    with storage_errors(folder, "trying direct I/O"):
        taken = _takes_direct(folder)
    if not taken:
        say("this file system takes no direct I/O: writing through the page cache")
    return taken


def _takes_direct(folder: Path) -> bool:
    """Try it out with a file that is removed at once; some file systems take the flag, but no write."""
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
        if error.errno in _REFUSED:
            return False
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):  # what is resumed has its space
            raise
    finally:
        pages.close()
    return True
