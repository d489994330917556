"""Scaling by clones: files that share their blocks with the input's until they are changed, where a file system can."""

import fcntl
import os
import shutil
from functools import partial
from pathlib import Path

from scimill.bench import directory
from scimill.bench.inputs.source import in_parallel
from scimill.bench.ledger import FOLDER, Ledger
from scimill.bench.plan import Plan
from scimill.errors import StorageError
from scimill.files import storage_errors
from scimill.parallel.world import World
from scimill.store.output import Output, check_absent

FICLONE = 0x40049409  # ioctl of Linux: _IOW(0x94, 9, int)


def clone_files(
    output: Output, planned: Plan, origins: dict[str, Path], finish: directory.Finish, world: World
) -> None:
    """Write a planned data set as clones, each rank its share of the files; collective.

    Parameters
    ----------
    origins : the file that each file is a clone of.
    finish : makes the manifest from the files' entries.

    Raises
    ------
    StorageError : the file system cannot clone, or the output exists or cannot be written.

    """
    world.on_root(_begin, output, planned)
    in_parallel(world, [partial(_clone, output.part, planned, number, origins) for number in range(len(planned.files))])
    world.on_root(directory.complete, output, planned, finish)


def _begin(output: Output, planned: Plan) -> None:
    """Make the directory, with an empty ledger."""
    directory.check_place(output)
    if not output.overwrite:
        check_absent(output)
    with storage_errors(output.part, "making the directory"):
        shutil.rmtree(output.part, ignore_errors=True)
        (output.part / FOLDER).mkdir(parents=True)
        Ledger(output.part, planned.blocks).create()


def _clone(part: Path, planned: Plan, number: int, origins: dict[str, Path]) -> None:
    """Clone one file, and read it for the checksums of its blocks."""
    file = planned.files[number]
    path, origin = part / file.name, origins[file.name]
    source, target = os.open(origin, os.O_RDONLY), os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        fcntl.ioctl(target, FICLONE, source)
        os.fsync(target)
    except OSError as error:
        raise StorageError(
            f"the file system cannot clone files ({error.strerror})", where=str(path),
            allowed="input and output on one XFS, Btrfs or other file system with reflinks", remedy="--mode copy",
        ) from None  # fmt: skip
    finally:
        os.close(source)
        os.close(target)
    ledger = Ledger(part, planned.blocks)
    for block in range(int(planned.first_blocks[number]), int(planned.first_blocks[number + 1])):
        span = planned.span(block)
        ledger.write(block, directory.stored_checksum(path, span.start, span.stop))
