"""Writing files in large aligned pieces, past the page cache where the file system takes that."""

import errno
import os
from pathlib import Path

import numpy as np

from scimill.bench.plan import MARGIN, Bytes
from scimill.files import reserve

PAGE = 4096  # bytes: address, offset and length of direct I/O are multiples of this; disks have blocks of 512 or 4096
_REFUSED = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)


def aligned_buffer(size: int) -> Bytes:
    """Return zeroed memory for a block of `size` bytes with a `MARGIN` on both sides, beginning at a page."""
    raw = np.zeros(size + 2 * MARGIN + PAGE, dtype=np.uint8)
    first = -raw.ctypes.data % PAGE
    return raw[first : first + size + 2 * MARGIN]


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


class File:
    """A laid-down file, open for writing blocks by one rank.

    Parameters
    ----------
    path : the file.
    direct : try to write past the page cache.

    Attributes
    ----------
    is_direct : whether it does.

    """

    def __init__(self, path: Path, *, direct: bool) -> None:
        self._cached = os.open(path, os.O_RDWR)
        self._direct: int | None = None
        if direct:
            try:
                self._direct = os.open(path, os.O_WRONLY | os.O_DIRECT)
            except OSError as error:
                if error.errno not in _REFUSED:
                    raise

    @property
    def is_direct(self) -> bool:
        """Whether it writes past the page cache."""
        return self._direct is not None

    def write(self, content: Bytes, offset: int) -> None:
        """Write all bytes; what is no whole page goes through the page cache."""
        pages = len(content) // PAGE * PAGE if offset % PAGE == 0 else 0
        done = 0
        if self._direct is not None and pages:
            try:
                done = _write_all(self._direct, content[:pages], offset)
            except OSError as error:
                if error.errno not in _REFUSED:
                    raise
                os.close(self._direct)  # it took the flag, but not the write
                self._direct = None
        _write_all(self._cached, content[done:], offset + done)

    def close(self) -> None:
        """Bring all to the disk and close."""
        os.fsync(self._cached)
        os.close(self._cached)
        if self._direct is not None:
            os.close(self._direct)


def _write_all(descriptor: int, content: Bytes, offset: int) -> int:
    view, done = content.data, 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done:], offset + done)
    return done


def takes_direct(folder: Path) -> bool:
    """Whether files of this folder can be written past the page cache; tried out with a file that is removed."""
    trial = folder / f".direct-{os.getpid()}"
    trial.touch()
    try:
        file = File(trial, direct=True)
        file.write(aligned_buffer(PAGE)[MARGIN : MARGIN + PAGE], 0)
        accepted = file.is_direct
        file.close()
        return accepted
    finally:
        trial.unlink(missing_ok=True)
