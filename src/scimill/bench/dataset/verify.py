"""Verifying a dataset: every byte of every file against its manifest and ledger, the blocks shared by all ranks."""

import dataclasses
from pathlib import Path

import numpy as np

from scimill.bench.dataset.directory import stored_checksum
from scimill.bench.dataset.ledger import FOLDER, MANIFEST, ROW, DatasetManifest, Ledger, Rows, file_checksum, is_done
from scimill.bench.dataset.plan import DataFile, DatasetPlan, SizeOnly
from scimill.errors import InputError
from scimill.files import storage_errors
from scimill.parallel.partition import share
from scimill.parallel.report import Progress
from scimill.parallel.world import World


@dataclasses.dataclass(frozen=True)
class DatasetReport:
    """What verifying has found. `problems` holds one line each, in the order of the files.

    Parameters
    ----------
    manifest, problems : the manifest, and what differs from it.
    damaged : blocks whose bytes or rows in the ledger are not those that were written.
    wrong : files that are missing or of another size.
    strange : what does not belong to the dataset.

    """

    manifest: DatasetManifest
    problems: tuple[str, ...]
    damaged: tuple[int, ...] = ()
    wrong: tuple[str, ...] = ()
    strange: tuple[str, ...] = ()


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
    wrong, strange = world.on_root(_wrong_files, folder, manifest), world.on_root(_strange_files, folder, manifest)
    problems = [*wrong.values(), *strange.values(), *_wrong_sums(manifest, plan, ledger)]
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
        manifest, (*problems, *(problem for _, problem in found)), damaged, tuple(wrong), tuple(strange)
    )


def plan_of(manifest: DatasetManifest) -> DatasetPlan:
    """Return the blocks of a finished dataset; its bytes cannot be made of this."""
    return DatasetPlan(
        tuple(DataFile(e.name, e.records, (SizeOnly(e.size),)) for e in manifest.files), manifest.block_size
    )


def _read(folder: Path) -> DatasetManifest:
    if folder.is_file():
        raise InputError("a file, not a dataset", where=str(folder), remedy=f"of a store: scimill verify {folder}")
    if not folder.is_dir():
        raise InputError("no such directory", where=str(folder), allowed="a dataset of scimill bench")
    if folder.suffix == ".part":
        raise InputError("the dataset is unfinished", where=str(folder), remedy="generate with --resume")
    return DatasetManifest.read(folder)


def _read_ledger(folder: Path, plan: DatasetPlan) -> Rows:
    """Return the ledger; empty rows where it cannot be read."""
    try:
        return Ledger(folder, plan.blocks).rows()
    except OSError:
        return np.zeros(plan.blocks, dtype=ROW)


def _wrong_files(folder: Path, manifest: DatasetManifest) -> dict[str, str]:
    """Return what is wrong with files as a whole, by name: missing, or of another length."""
    problems = {}
    for entry in manifest.files:
        path = folder / entry.name
        if not path.is_file():
            problems[entry.name] = f"{entry.name}: is missing"
        elif path.stat().st_size != entry.size:
            problems[entry.name] = f"{entry.name}: has {path.stat().st_size} bytes, not {entry.size}"
    return problems


def _strange_files(folder: Path, manifest: DatasetManifest) -> dict[str, str]:
    """Return what lies in the folder and does not belong there, by name."""
    known = {entry.name for entry in manifest.files} | {MANIFEST, FOLDER}
    strange = sorted(path.name for path in folder.iterdir() if path.name not in known)
    return {name: f"{name}: does not belong to the dataset" for name in strange}


def _wrong_sums(manifest: DatasetManifest, plan: DatasetPlan, rows: Rows) -> list[str]:
    return [
        f"{entry.name}: the ledger's checksums do not give that of the manifest"
        for number, entry in enumerate(manifest.files)
        if file_checksum(plan, number, rows) != entry.crc32c
    ]


def _describe_damage(folder: Path, plan: DatasetPlan, ledger: Rows, block: int) -> str:
    """Describe how a block differs from what was written; empty where it does not."""
    if not is_done(block, ledger[block]):
        return "have a damaged row in the ledger"
    span = plan.span(block)
    path = folder / plan.files[span.number].name
    with storage_errors(path, "reading"):
        is_sound = stored_checksum(path, span.start, span.stop) == ledger["crc32c"][block]
    return "" if is_sound else "do not match their checksum"
