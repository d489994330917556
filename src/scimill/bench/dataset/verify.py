"""Verifying a data set: every byte of every file against its manifest and ledger, the blocks shared by all ranks."""

import dataclasses
from pathlib import Path

import numpy as np

from scimill.bench.dataset.directory import stored_checksum
from scimill.bench.dataset.ledger import FOLDER, MANIFEST, ROW, Ledger, Manifest, Rows, file_checksum, is_done
from scimill.bench.dataset.plan import DataFile, Plan
from scimill.errors import InputError
from scimill.files import storage_errors
from scimill.parallel.partition import share
from scimill.parallel.report import Progress
from scimill.parallel.world import World


@dataclasses.dataclass(frozen=True)
class Hollow:
    """A segment of which only the size is known."""

    size: int

    def fill(self, start: int, stop: int, work: object, at: int) -> None:
        """Nothing can be made of it."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Report:
    """What verifying has found. `problems` holds one line each, in the order of the files."""

    manifest: Manifest
    problems: tuple[str, ...]


def verify(folder: Path, world: World) -> Report:
    """Check a whole data set; collective.

    Raises
    ------
    InputError : it is no finished data set.
    StorageError : its manifest is damaged, so that the rest cannot be told.

    """
    manifest = world.on_root(_read, folder)
    plan = Plan(tuple(DataFile(e.name, e.records, (Hollow(e.size),)) for e in manifest.files), manifest.block_size)
    ledger, problems = world.on_root(_check_outside, folder, manifest, plan)
    missing = {number for number, entry in enumerate(manifest.files) if not (folder / entry.name).is_file()}
    mine: list[tuple[int, str]] = []
    progress = Progress(plan.blocks, unit="blocks", what="verify", enabled=world.is_root)
    for block in share(np.arange(plan.blocks), world.rank, world.size).tolist():
        span = plan.span(block)
        if span.number not in missing and (damage := _damage(folder, plan, ledger, block)):
            mine.append((block, f"{manifest.files[span.number].name}: bytes {span.start} to {span.stop} {damage}"))
        if progress.due():
            progress.update(block)
    progress.close()
    found = sorted(pair for part in world.gather_all(mine) for pair in part)
    return Report(manifest, (*problems, *(problem for _, problem in found)))


def _read(folder: Path) -> Manifest:
    if folder.is_file():
        raise InputError("a file, not a data set", where=str(folder), remedy=f"of a store: scimill verify {folder}")
    if not folder.is_dir():
        raise InputError("no such directory", where=str(folder), allowed="a data set of scimill bench")
    if folder.suffix == ".part":
        raise InputError("the data set is unfinished", where=str(folder), remedy="generate with --resume")
    return Manifest.read(folder)


def _check_outside(folder: Path, manifest: Manifest, plan: Plan) -> tuple[Rows, list[str]]:
    """Return the ledger, and what is wrong with files as a whole: missing, too many, of another length or checksum."""
    try:
        rows = Ledger(folder, plan.blocks).rows()
    except OSError:
        rows = np.zeros(plan.blocks, dtype=ROW)
    return rows, [*_wrong_files(folder, manifest), *_wrong_sums(manifest, plan, rows)]


def _wrong_files(folder: Path, manifest: Manifest) -> list[str]:
    problems = []
    for entry in manifest.files:
        path = folder / entry.name
        if not path.is_file():
            problems.append(f"{entry.name}: is missing")
        elif path.stat().st_size != entry.size:
            problems.append(f"{entry.name}: has {path.stat().st_size} bytes, not {entry.size}")
    known = {entry.name for entry in manifest.files} | {MANIFEST, FOLDER}
    strange = sorted(path.name for path in folder.iterdir() if path.name not in known)
    return [*problems, *(f"{name}: does not belong to the data set" for name in strange)]


def _wrong_sums(manifest: Manifest, plan: Plan, rows: Rows) -> list[str]:
    return [
        f"{entry.name}: the ledger's checksums do not give that of the manifest"
        for number, entry in enumerate(manifest.files)
        if file_checksum(plan, number, rows) != entry.crc32c
    ]


def _damage(folder: Path, plan: Plan, ledger: Rows, block: int) -> str:
    """Say how a block differs from what was written, in words; empty where it does not."""
    if not is_done(block, ledger[block]):
        return "have a damaged row in the ledger"
    span = plan.span(block)
    path = folder / plan.files[span.number].name
    with storage_errors(path, "reading"):
        is_sound = stored_checksum(path, span.start, span.stop) == ledger["crc32c"][block]
    return "" if is_sound else "do not match their checksum"
