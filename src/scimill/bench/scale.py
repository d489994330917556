"""Scaling a dataset: scan it, choose how often to take each piece, write the repeated ones changed."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, cast

from scimill import config as configuration
from scimill.bench import CAMPAIGN
from scimill.bench.dataset import directory
from scimill.bench.dataset.choice import choose, describe_difference, describe_scaled, fingerprint, make_changes
from scimill.bench.dataset.cloning import clone_files
from scimill.bench.dataset.ledger import PendingWrite
from scimill.bench.dataset.plan import DatasetPlan
from scimill.bench.formats import catalogue
from scimill.bench.formats.imseg_npy.read import CaseFiles
from scimill.bench.formats.source import ScannedDataset
from scimill.bench.generate import check_output
from scimill.bench.kernels.scaling import Picks
from scimill.bench.params import ScaleConfig, block_size_of
from scimill.campaign import describe_rows
from scimill.errors import ConfigError, InputError
from scimill.files import check_directory, check_free
from scimill.parallel.world import Stop, World
from scimill.store.blocks import run_blocks
from scimill.store.output import Output
from scimill.version import __version__

if TYPE_CHECKING:
    from scimill.bench.formats.hdf5.read import Store


def scale(config: ScaleConfig, input_: Path, output: Output, world: World) -> str | None:
    """Write a dataset of another size; collective. Return what was done, None where it was complete already.

    Raises
    ------
    InputError : the input has defects; all are reported first.
    Stopped : before the walltime or on a signal; run again with ``resume``.
    ScimillError : see `directory.open_directory`.

    """
    source = scan(config, input_, output, world)
    if source.format == "hdf5":
        from scimill.bench.scale_stores import scale_store  # here, as HDF5 takes memory that plain files do not need

        return scale_store(config, cast("Store", source), output, world)
    with world.together():
        planned, picks = make_plan(config, source)
    identity = fingerprint(source)
    text = f"{configuration.to_yaml(config)}input: {identity}\n"
    pending = PendingWrite("bench", CAMPAIGN.algorithm, __version__, text, planned.blocks)
    explain_difference = functools.partial(describe_difference, config, identity)
    finish = functools.partial(directory.make_manifest, config.workload, source.format, config.seed, planned, text)
    if isinstance(source, CaseFiles) and config.mode == "reflink":
        origins = source.origins(picks)
        is_made = clone_files(output, planned, pending, explain_difference, origins, finish, world)
    else:
        stop = Stop(world, config.walltime, config.walltime_margin)
        writer = directory.open_directory(
            world, output, planned, pending, explain_difference, stop, finish, direct=config.direct
        )
        is_made = writer is not None
        if writer is not None:
            run_blocks(world, writer, writer.make, stop, what="scale", unit="B")
    return describe_scaled(config, source, picks, planned.size) if is_made else None


def plan_text(config: ScaleConfig, input_: Path, output: Output, world: World) -> str:
    """What scaling would do, for ``--dry-run``; collective. The output's place and space are checked too."""
    source = scan(config, input_, output, world)
    if source.format == "hdf5":
        with world.together():
            picks = choose(config, source)
        size = source.total([taken.total for taken in picks])
        return describe_rows({"output": f"{output.path}: {describe_scaled(config, source, picks, size)}"})
    with world.together():
        planned, picks = make_plan(config, source)
    world.on_root(functools.partial(check_output, output, planned, takes_space=config.mode != "reflink"))
    names = [file.name for file in planned.files]
    return describe_rows({
        "input": f"{input_}: {config.workload}, {source.format}",
        "output": f"{output.path}: {describe_scaled(config, source, picks, planned.size)}",
        "files": f"{len(names):,}: {names[0]} to {names[-1]}",
    })  # fmt: skip


def scan(config: ScaleConfig, folder: Path, output: Output, world: World) -> ScannedDataset:
    """Scan an input, on all ranks; collective.

    Raises
    ------
    InputError : it is not a dataset of the workload, or has defects.

    """
    world.on_root(check_input, config, folder, output)
    if folder.is_file():
        from scimill.bench.formats.hdf5.read import scan_store

        return scan_store(folder, config.workload, world)
    form: str = config.format or world.on_root(recognise, config.workload, folder)
    source: ScannedDataset = catalogue.reader(config.workload, form).scan(folder, config.skip_damaged, world)
    return source


def check_input(config: ScaleConfig, folder: Path, output: Output) -> None:
    """Refuse an input that is missing, or is the output, and a disk that is too small, before anything is read."""
    if not folder.exists():
        raise InputError("no such dataset", where=str(folder))
    places = [place.resolve() for place in (output.path, output.part)]
    inside = [place for place in places if place == folder.resolve() or folder.resolve() in place.parents]
    if inside:
        raise ConfigError("the output is the input, or inside it", where=str(output.path), remedy="name another output")
    if folder.is_file():
        if config.mode == "reflink":
            raise ConfigError(
                "mode = reflink shares whole files; a store is one", where=str(folder), remedy="mode: copy"
            )
        check_directory(output.path)
    else:
        directory.check_place(output)
        if config.format == "hdf5":
            what = "a directory is not a store"
            raise ConfigError(what, where=str(folder), allowed="a file, if format = hdf5", remedy="leave --format out")
    if not output.part.exists() and config.mode != "reflink":
        check_free(output.path, config.size)


def recognise(workload: str, folder: Path) -> str:
    """Recognise the format of a dataset by its files.

    Raises
    ------
    InputError : not exactly one format.

    """
    formats = catalogue.readers(workload)
    found = [form for form, module in formats.items() if module.find(folder)]
    if len(found) != 1:
        what = f"files of more than one format: {', '.join(found)}" if found else f"no files of {workload}"
        allowed = "; ".join(f"{form}: {module.PATTERNS}" for form, module in formats.items())
        raise InputError(what, where=str(folder), allowed=allowed, remedy="name the format" if found else "")
    return found[0]


def make_plan(config: ScaleConfig, source: ScannedDataset) -> tuple[DatasetPlan, list[Picks]]:
    """Choose what the scaled dataset consists of.

    Raises
    ------
    ConfigError : the request is smaller than a record.

    """
    picks = choose(config, source)
    files = source.files(picks, make_changes(config))
    return DatasetPlan(tuple(files), block_size_of(config)), picks
