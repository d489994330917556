"""Scaling by clones: files that share their blocks on disk with the input until either is changed."""

import errno
import fcntl
import os
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from scimill.bench.dataset import directory
from scimill.bench.dataset.ledger import Ledger, PendingWrite
from scimill.bench.dataset.plan import DatasetPlan
from scimill.bench.formats.source import run_in_parallel
from scimill.errors import ScimillError, StorageError
from scimill.files import storage_errors
from scimill.parallel.world import World
from scimill.store.checksums import file_checksum
from scimill.store.output import Output

FICLONE = 0x40049409  # Linux ioctl: _IOW(0x94, 9, int)
NO_CLONES = (errno.ENOTSUP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS)


def clone_files(
    output: Output, plan: DatasetPlan, pending: PendingWrite, describe_difference: directory.Describe,
    origins: Mapping[str, Path], finish: directory.Finish, world: World,
) -> bool:  # fmt: skip
    """Write a planned dataset as clones; each rank clones its share of the files; collective.

    Resuming starts from the beginning: cloning takes no time, and every file must be read anyway.

    Parameters
    ----------
    output, plan, pending, describe_difference, finish, world : see `directory.open_directory`.
    origins : source of each clone, by the clone's name.

    Returns
    -------
    bool, False if the dataset was already complete.

    Raises
    ------
    ConfigError : the existing dataset was started with a different configuration.
    StorageError : the file system cannot clone, or the output exists or cannot be written.

    """
    claim = output.claim()
    prepare = partial(directory.prepare, takes_space=False)
    if not world.on_root(prepare, output, plan, pending, describe_difference, claim):
        return False
    try:
        _clone_all(output.part, plan, origins, world)
        world.on_root(directory.complete, output, plan, finish)
    finally:
        claim.release()
    return True


def _clone_all(part: Path, plan: DatasetPlan, origins: Mapping[str, Path], world: World) -> None:
    """Clone all files; leave nothing behind if that fails."""
    try:
        run_in_parallel(world, [partial(_clone, part, plan, number, origins) for number in range(len(plan.files))])
    except ScimillError:
        if world.is_root:
            shutil.rmtree(part, ignore_errors=True)
        raise


def _clone(part: Path, plan: DatasetPlan, number: int, origins: Mapping[str, Path]) -> None:
    """Clone one file, and read it to checksum its blocks."""
    file = plan.files[number]
    path = part / file.name
    with origins[file.name].open("rb") as origin, storage_errors(path, "cloning a file"):
        with path.open("wb") as target:
            _share_blocks(origin.fileno(), target.fileno(), path)
        ledger = Ledger(part, plan.blocks)
        for block in range(int(plan.first_blocks[number]), int(plan.first_blocks[number + 1])):
            span = plan.span(block)
            ledger.write(block, file_checksum(path, span.start, span.stop))


def _share_blocks(source: int, target: int, path: Path) -> None:
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError as error:
        if error.errno not in NO_CLONES:
            raise
        raise StorageError(
            f"the file system cannot clone files ({error.strerror})", where=str(path),
            allowed="input and output on the same file system with reflinks, e.g. XFS or Btrfs",
            remedy="use --mode copy",
        ) from None  # fmt: skip
    os.fsync(target)
