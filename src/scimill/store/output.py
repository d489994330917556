"""The place where a store goes: its names, what may be there already, and copies of it."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

from scimill.errors import StorageError
from scimill.files import Claim, check_directory, check_free, rename, storage_errors, sync
from scimill.store.layout import Layout
from scimill.store.seal import SEAL_BYTES

RESUME = "run again with --resume"
STRUCTURE_BYTES = 1 << 20  # generous estimate of what is no data, for the check of free space


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
    direct: bool = False
    """write fields past the page cache, while the next block is made, where the file system takes that"""

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
        claim = Claim(output.lock)
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


def check_space(path: Path, layout: Layout) -> None:
    """Refuse a store that is larger than the space which is free for it; tables are taken to be sparse."""
    needed = layout.data_bytes - layout.table_bytes
    if path.exists():
        check_free(path, needed - path.stat().st_blocks * 512)
    else:
        check_free(path, needed + SEAL_BYTES + STRUCTURE_BYTES)


def check_absent(output: Output) -> None:
    """Refuse an output that exists, finished or not."""
    if output.path.exists():
        raise StorageError("the output exists", where=str(output.path), remedy="name another, or give --overwrite")
    if output.part.exists():
        remedy = "give --resume to go on with it, or --overwrite to begin anew"
        raise StorageError("an unfinished run has left its output", where=str(output.part), remedy=remedy)
