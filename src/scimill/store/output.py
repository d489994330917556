"""Where a store is written: its names, checks for existing files, and copies."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

from scimill.claim import Claim
from scimill.errors import StorageError
from scimill.files import OVERWRITE, check_directory, check_free, keep_mode, rename, storage_errors, sync
from scimill.store.layout import Layout
from scimill.store.seal import SEAL_BYTES

RESUME = "run the same command again with --resume"
STRUCTURE_BYTES = 1 << 20  # generous estimate of HDF5's structure, for the check of free space


@dataclasses.dataclass(frozen=True)
class Output:
    """Path of an output, and what to do with an existing one."""

    path: Path
    resume: bool = False
    overwrite: bool = False
    hints: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """MPI-IO hints, used by every rank"""
    alignment: int = 4096
    """offsets of large datasets are multiples of this, bytes"""
    direct: bool = False
    """write fields past the page cache while the next block is made, if the file system supports it"""
    break_lock: bool = False
    """take the output over from another host that does not answer"""
    read_back_all: bool = False
    """read all data back before the output gets its name, not a sample"""

    @cached_property
    def part(self) -> Path:
        """The file's name until it is complete."""
        return self.path.with_name(self.path.name + ".part")

    @cached_property
    def new(self) -> Path:
        """The file's name until its structure is complete."""
        return self.path.with_name(self.path.name + ".part.new")

    @cached_property
    def lock(self) -> Path:
        """The file that is locked while a run writes; never the output itself, which MPI-IO may lock too."""
        return self.path.with_name(self.path.name + ".lock")

    def claim(self) -> Claim:
        """Return the claim on this output, not yet acquired."""
        return Claim(self.lock, break_lock=self.break_lock)


@contextlib.contextmanager
def copying(source: Path, output: Output, needed: int) -> Iterator[Path]:
    """Write a copy of a store: yield a temporary name to write to, renamed if all goes well.

    Parameters
    ----------
    source : the store to copy.
    output : where to copy it; `overwrite` also replaces an unfinished output.
    needed : maximum size of the copy, bytes.

    Raises
    ------
    StorageError : the output exists, is the source, is being written, or cannot be written.
    """
    with storage_errors(output.part, "writing the copy"):
        check_directory(output.path)
        if source.resolve() in (output.path.resolve(), output.part.resolve()):
            raise StorageError("the output is the source", where=str(output.path), remedy="choose another output")
        claim = output.claim()
        claim.acquire()
        try:
            if not output.overwrite:
                check_absent(output)
            check_free(output.path, needed)
            yield output.part
            keep_mode(output.path, output.part)
            sync(output.part)
            claim.confirm()
            rename(output.part, output.path)
        finally:
            claim.release()


def check_space(path: Path, layout: Layout) -> None:
    """Refuse a store that needs more than the free space; tables are assumed to be sparse."""
    needed = layout.data_bytes - layout.table_bytes
    if path.exists():
        check_free(path, needed - path.stat().st_blocks * 512)
    else:
        check_free(path, needed + SEAL_BYTES + STRUCTURE_BYTES)


def check_absent(output: Output) -> None:
    """Refuse an output that exists, finished or not."""
    if output.path.exists():
        raise StorageError("the output already exists", where=str(output.path), remedy=OVERWRITE)
    if output.part.exists():
        remedy = "use --resume to continue it, or --overwrite to start over"
        raise StorageError("an unfinished output exists", where=str(output.part), remedy=remedy)
