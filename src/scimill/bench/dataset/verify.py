"""Verifying a dataset: compare every byte of every file with the manifest and the ledger, on all ranks."""

import dataclasses
from pathlib import Path

import numpy as np

from scimill.bench.dataset.ledger import (
    FOLDER,
    LEDGER,
    MANIFEST,
    ROW,
    RUN,
    DatasetManifest,
    Ledger,
    PendingWrite,
    Rows,
    is_done,
    joined_checksum,
)
from scimill.bench.dataset.plan import DataFile, DatasetPlan, SizeOnly
from scimill.errors import InputError
from scimill.files import storage_errors
from scimill.parallel.partition import share
from scimill.parallel.report import Progress
from scimill.parallel.world import World
from scimill.store.checksums import file_checksum


@dataclasses.dataclass(frozen=True)
class DatasetReport:
    """Result of verifying a dataset.

    Parameters
    ----------
    manifest : the manifest.
    problems : one line for each difference from the manifest or the ledger.
    damaged : blocks with changed bytes or a changed row in the ledger.
    wrong_files : files that are missing or have the wrong size.
    unexpected_files : files that do not belong to the dataset.

    """

    manifest: DatasetManifest
    problems: tuple[str, ...]
    damaged: tuple[int, ...] = ()
    wrong_files: tuple[str, ...] = ()
    unexpected_files: tuple[str, ...] = ()


def verify(folder: Path, world: World) -> DatasetReport:
    """Check a whole dataset; collective.

    Raises
    ------
    InputError : it is not a finished dataset.
    StorageError : its manifest is damaged, so nothing else can be checked.

    """
    manifest = world.on_root(_read, folder)
    plan = plan_of(manifest)
    ledger = world.on_root(_read_ledger, folder, plan)
    wrong = world.on_root(_describe_wrong_files, folder, manifest)
    records = world.on_root(_describe_wrong_records, folder, manifest, plan)
    unexpected = world.on_root(_describe_unexpected_files, folder, manifest)
    problems = [*records, *wrong.values(), *unexpected.values(), *_describe_wrong_checksums(manifest, plan, ledger)]
    missing = {number for number, entry in enumerate(manifest.files) if not (folder / entry.name).is_file()}
    mine: list[tuple[int, str]] = []
    progress = Progress(plan.blocks, unit="blocks", what="verify", enabled=world.is_root)
    for block in share(np.arange(plan.blocks), world.rank, world.size).tolist():
        span = plan.span(block)
        if span.number not in missing and (damage := _describe_damage(folder, plan, ledger, block)):
            mine.append((block, f"{manifest.files[span.number].name}: bytes {span.start} to {span.stop} {damage}"))
        if progress.due():
            progress.update(block)
    progress.close()
    found = sorted(pair for part in world.gather_all(mine) for pair in part)
    damaged = tuple(block for block, _ in found)
    return DatasetReport(
        manifest, (*problems, *(problem for _, problem in found)), damaged, tuple(wrong), tuple(unexpected)
    )


def plan_of(manifest: DatasetManifest) -> DatasetPlan:
    """Return the files and blocks of a finished dataset as a plan that cannot make bytes."""
    return DatasetPlan(
        tuple(DataFile(e.name, e.records, (SizeOnly(e.size),)) for e in manifest.files), manifest.block_size
    )


def _read(folder: Path) -> DatasetManifest:
    if folder.is_file():
        remedy = f"to verify a store, run scimill verify {folder}"
        raise InputError("this is a file, not a dataset directory", where=str(folder), remedy=remedy)
    if not folder.is_dir():
        raise InputError("no such directory", where=str(folder), allowed="a dataset made by scimill bench")
    if folder.suffix == ".part":
        raise InputError("the dataset is unfinished", where=str(folder), remedy="rerun generate with --resume")
    return DatasetManifest.read(folder)


def _read_ledger(folder: Path, plan: DatasetPlan) -> Rows:
    """Read the ledger; return empty rows if it cannot be read."""
    try:
        return Ledger(folder, plan.blocks).rows()
    except OSError:
        return np.zeros(plan.blocks, dtype=ROW)


def _describe_wrong_records(folder: Path, manifest: DatasetManifest, plan: DatasetPlan) -> list[str]:
    """Describe a ledger that has more rows than blocks (missing rows count as damaged), and another run's record."""
    ledger, size = folder / FOLDER / LEDGER, plan.blocks * ROW.itemsize
    found = ledger.stat().st_size if ledger.is_file() else 0
    problems = [f"{FOLDER}/{LEDGER}: has {found} bytes, not {size}"] if found > size else []
    if (folder / FOLDER / RUN).exists() and not PendingWrite.of(manifest, plan.blocks).is_in(folder):
        problems.append(f"{FOLDER}/{RUN}: does not match the manifest")
    return problems


def _describe_wrong_files(folder: Path, manifest: DatasetManifest) -> dict[str, str]:
    """Describe files that are missing or have the wrong size, by name."""
    problems = {}
    for entry in manifest.files:
        path = folder / entry.name
        if not path.is_file():
            problems[entry.name] = f"{entry.name}: is missing"
        elif path.stat().st_size != entry.size:
            problems[entry.name] = f"{entry.name}: has {path.stat().st_size} bytes, not {entry.size}"
    return problems


def _describe_unexpected_files(folder: Path, manifest: DatasetManifest) -> dict[str, str]:
    """Describe files in the folder that do not belong to the dataset, by name."""
    known = {entry.name for entry in manifest.files} | {MANIFEST, FOLDER}
    unexpected = sorted(path.name for path in folder.iterdir() if path.name not in known)
    return {name: f"{name}: does not belong to the dataset" for name in unexpected}


def _describe_wrong_checksums(manifest: DatasetManifest, plan: DatasetPlan, rows: Rows) -> list[str]:
    return [
        f"{entry.name}: the checksums in the ledger and in the manifest differ"
        for number, entry in enumerate(manifest.files)
        if joined_checksum(plan, number, rows) != entry.crc32c
    ]


def _describe_damage(folder: Path, plan: DatasetPlan, ledger: Rows, block: int) -> str:
    """Describe how a block differs from what was written; empty if it does not."""
    if not is_done(block, ledger[block]):
        return "have a damaged row in the ledger"
    span = plan.span(block)
    path = folder / plan.files[span.number].name
    with storage_errors(path, "reading"):
        is_sound = file_checksum(path, span.start, span.stop) == ledger["crc32c"][block]
    return "" if is_sound else "do not match their checksum"
