"""Scaling a dataset: scan it, choose how often to take each piece, and change the repeated ones."""

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
    """Write a dataset of another size; collective. Return a summary, or None if it was complete.

    Raises
    ------
    InputError : the input has defects, all of which were reported.
    Stopped : at the walltime or on a signal; rerun with ``resume``.
    ScimillError : see `directory.open_directory`.

    """
    source = scan(config, input_, output, world)
    if source.format == "hdf5":
        from scimill.bench.scale_stores import (
            scale_store,
        )  # imported here: HDF5 takes memory that plain files do not need

        return scale_store(config, cast("Store", source), output, world)
    with world.together():
        plan, picks = make_plan(config, source)
    identity = fingerprint(source)
    text = f"{configuration.to_yaml(config)}input: {identity}\n"
    pending = PendingWrite("bench", CAMPAIGN.algorithm, __version__, text, plan.blocks)
    explain_difference = functools.partial(describe_difference, config, identity)
    finish = functools.partial(directory.make_manifest, config.workload, source.format, config.seed, plan, text)
    if isinstance(source, CaseFiles) and config.mode == "reflink":
        origins = source.origins(picks)
        is_new = clone_files(output, plan, pending, explain_difference, origins, finish, world)
    else:
        stop = Stop(world, config.walltime, config.walltime_margin)
        writer = directory.open_directory(
            world, output, plan, pending, explain_difference, stop, finish, direct=config.direct
        )
        is_new = writer is not None
        if writer is not None:
            run_blocks(world, writer, writer.make, stop, what="scale", unit="B")
    return describe_scaled(config, source, picks, plan.size) if is_new else None


def describe_scaling(config: ScaleConfig, input_: Path, output: Output, world: World) -> str:
    """Check the output's path and space and describe the plan, for ``--dry-run``; collective."""
    source = scan(config, input_, output, world)
    if source.format == "hdf5":
        with world.together():
            picks = choose(config, source)
        size = source.total([part.total for part in picks])
        return describe_rows({"output": f"{output.path}: {describe_scaled(config, source, picks, size)}"})
    with world.together():
        plan, picks = make_plan(config, source)
    world.on_root(functools.partial(check_output, output, plan, takes_space=config.mode != "reflink"))
    names = [file.name for file in plan.files]
    return describe_rows({
        "input": f"{input_}: {config.workload}, {source.format}",
        "output": f"{output.path}: {describe_scaled(config, source, picks, plan.size)}",
        "files": f"{len(names):,}: {names[0]} to {names[-1]}",
    })  # fmt: skip


def scan(config: ScaleConfig, folder: Path, output: Output, world: World) -> ScannedDataset:
    """Scan an input on all ranks; collective.

    Raises
    ------
    InputError : it is not a dataset of the workload, or it has defects.

    """
    world.on_root(check_input, config, folder, output)
    if folder.is_file():
        from scimill.bench.formats.hdf5.read import scan_store

        return scan_store(folder, config.workload, world)
    form: str = config.format or world.on_root(recognise, config.workload, folder)
    source: ScannedDataset = catalogue.reader(config.workload, form).scan(folder, config.skip_damaged, world)
    return source


def check_input(config: ScaleConfig, folder: Path, output: Output) -> None:
    """Raise, before anything is read, if the input is missing or is the output, or the disk is too small."""
    if not folder.exists():
        raise InputError("no such dataset", where=str(folder))
    outputs = [path.resolve() for path in (output.path, output.part)]
    if any(path == folder.resolve() or folder.resolve() in path.parents for path in outputs):
        what = "the output is the input, or inside it"
        raise ConfigError(what, where=str(output.path), remedy="choose another output")
    if folder.is_file():
        if config.mode == "reflink":
            raise ConfigError(
                "mode = reflink shares whole files, and a store is one", where=str(folder), remedy="use mode: copy"
            )
        check_directory(output.path)
    else:
        directory.check_place(output)
        if config.format == "hdf5":
            what = "a directory is not a store"
            raise ConfigError(
                what, where=str(folder), allowed="an HDF5 file, with --format hdf5", remedy="leave out --format"
            )
    if not output.part.exists() and config.mode != "reflink":
        check_free(output.path, config.size)


def recognise(workload: str, folder: Path) -> str:
    """Recognise the format of a dataset from its files.

    Raises
    ------
    InputError : the files match no format, or several.

    """
    formats = catalogue.readers(workload)
    found = [form for form, module in formats.items() if module.find(folder)]
    if len(found) != 1:
        what = f"files of more than one format: {', '.join(found)}" if found else f"no files of {workload}"
        allowed = "; ".join(f"{form}: {module.PATTERNS}" for form, module in formats.items())
        raise InputError(what, where=str(folder), allowed=allowed, remedy="choose one with --format" if found else "")
    return found[0]


def make_plan(config: ScaleConfig, source: ScannedDataset) -> tuple[DatasetPlan, list[Picks]]:
    """Choose the pieces of the scaled dataset.

    Raises
    ------
    ConfigError : the requested size is smaller than a record.

    """
    picks = choose(config, source)
    files = source.files(picks, make_changes(config))
    return DatasetPlan(tuple(files), block_size_of(config)), picks
