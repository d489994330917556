"""Scaling a data set: scan it, take its pieces so many times, write them changed."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from scimill import __version__
from scimill import config as configuration
from scimill.bench import CAMPAIGN
from scimill.bench.dataset import directory
from scimill.bench.dataset.cloning import clone_files
from scimill.bench.dataset.ledger import Begun
from scimill.bench.dataset.pieces import Change, Changes
from scimill.bench.dataset.plan import Plan, fit_count, too_small
from scimill.bench.formats import catalogue
from scimill.bench.formats.imseg_npy.read import Volumes
from scimill.bench.formats.source import Source
from scimill.bench.generate import check_output, table
from scimill.bench.kernels.counter import low_half, stream_key, word
from scimill.bench.kernels.perturbation import happens
from scimill.bench.kernels.scaling import Picks, pick
from scimill.bench.params import ScaleConfig, block_size_of
from scimill.errors import ConfigError, InputError
from scimill.files import check_directory, check_free
from scimill.parallel.streams import block_stream
from scimill.parallel.world import Stop, World
from scimill.store.blocks import run_blocks
from scimill.store.checksums import crc32c
from scimill.store.output import Output

if TYPE_CHECKING:
    from scimill.bench.formats.hdf5.read import Store

STREAM = 90  # of the choice and the changes of the first part; that of the next one is one higher
PIECES = 2**40  # more than a part has: words of a stream per time that all are taken


def scale(config: ScaleConfig, input_: Path, output: Output, world: World) -> str | None:
    """Write a data set of another size; collective. Return what was done, None where it was complete already.

    Raises
    ------
    InputError : the input has defects, which are told beforehand.
    Stopped : before the walltime or on a signal; run again with ``resume``.
    ScimillError : see `directory.open_directory`.

    """
    source = scan(config, input_, output, world)
    if source.format == "hdf5":
        from scimill.bench.scale_stores import scale_store  # here, as HDF5 takes memory that plain files do not need

        return scale_store(config, cast("Store", source), output, world)
    with world.together():
        planned, picks = plan(config, source)
    identity = fingerprint(source)
    text = f"{configuration.to_yaml(config)}input: {identity}\n"
    begun = Begun("bench", CAMPAIGN.algorithm, __version__, text, planned.blocks)
    explain_difference = functools.partial(explain, config, identity)
    finish = functools.partial(directory.manifest, config.workload, source.format, config.seed, planned, text)
    if isinstance(source, Volumes) and config.mode == "reflink":
        origins = source.origins(picks)
        is_made = clone_files(output, planned, begun, explain_difference, origins, finish, world)
    else:
        stop = Stop(world, config.walltime, config.walltime_margin)
        writer = directory.open_directory(
            world, output, planned, begun, explain_difference, stop, finish, direct=config.direct
        )
        is_made = writer is not None
        if writer is not None:
            run_blocks(world, writer, writer.make, stop, what="scale", unit="B")
    return told(config, source, picks, planned.size) if is_made else None


def plan_text(config: ScaleConfig, input_: Path, output: Output, world: World) -> str:
    """What scaling would do, for ``--dry-run``; collective. The output's place and space are checked too."""
    source = scan(config, input_, output, world)
    if source.format == "hdf5":
        with world.together():
            picks = choose(config, source)
        size = source.total([taken.total for taken in picks])
        return table({"output": f"{output.path}: {told(config, source, picks, size)}"})
    with world.together():
        planned, picks = plan(config, source)
    world.on_root(functools.partial(check_output, output, planned, takes_space=config.mode != "reflink"))
    names = [file.name for file in planned.files]
    return table({
        "input": f"{input_}: {config.workload}, {source.format}",
        "output": f"{output.path}: {told(config, source, picks, planned.size)}",
        "files": f"{len(names):,}: {names[0]} to {names[-1]}",
    })  # fmt: skip


def scan(config: ScaleConfig, folder: Path, output: Output, world: World) -> Source:
    """Look at an input, on all ranks; collective.

    Raises
    ------
    InputError : it is no data set of the workload, or has defects.

    """
    world.on_root(check_input, config, folder, output)
    if folder.is_file():
        from scimill.bench.formats.hdf5 import read as stores

        return stores.scan(folder, config.workload, world)
    form: str = config.format or world.on_root(recognise, config.workload, folder)
    source: Source = catalogue.reader(config.workload, form).scan(folder, config.skip_damaged, world)
    return source


def check_input(config: ScaleConfig, folder: Path, output: Output) -> None:
    """Refuse an input that is missing, or is the output, and a disk that is too small, before anything is read."""
    if not folder.exists():
        raise InputError("no such data set", where=str(folder))
    places = [place.resolve() for place in (output.path, output.part)]
    inside = [place for place in places if place == folder.resolve() or folder.resolve() in place.parents]
    if inside:
        raise ConfigError("the output is the input, or in it", where=str(output.path), remedy="name another output")
    if folder.is_file():
        if config.mode == "reflink":
            raise ConfigError(
                "mode = reflink shares whole files; a store is one", where=str(folder), remedy="mode: copy"
            )
        check_directory(output.path)
    else:
        directory.check_place(output)
        if config.format == "hdf5":
            what = "a directory is no store"
            raise ConfigError(what, where=str(folder), allowed="a file, if format = hdf5", remedy="leave --format out")
    if not output.part.exists() and config.mode != "reflink":
        check_free(output.path, config.size)


def recognise(workload: str, folder: Path) -> str:
    """Tell the format of a data set by its files.

    Raises
    ------
    InputError : none that is known.

    """
    formats = catalogue.readers(workload)
    found = [form for form, module in formats.items() if module.find(folder)]
    if len(found) != 1:
        what = f"files of more than one format: {', '.join(found)}" if found else f"no files of {workload}"
        allowed = "; ".join(f"{form}: {module.PATTERNS}" for form, module in formats.items())
        raise InputError(what, where=str(folder), allowed=allowed, remedy="name the format" if found else "")
    return found[0]


def plan(config: ScaleConfig, source: Source) -> tuple[Plan, list[Picks]]:
    """Choose what the scaled data set consists of.

    Raises
    ------
    ConfigError : the request is smaller than a record.

    """
    picks = choose(config, source)
    files = source.files(picks, changes(config))
    return Plan(tuple(files), block_size_of(config)), picks


def choose(config: ScaleConfig, source: Source) -> list[Picks]:
    """Choose pieces of each part: all but the first in proportion, the first, which trains, to meet the request."""
    request = config.size
    others = source.parts[1:]
    ratio = request / source.total([part.size for part in source.parts])
    rest = [pick_share(config, source, 1 + number, ratio) for number in range(len(others))]
    sizes = [picks.total for picks in rest]
    if source.unit > 1:
        least = source.total([1, *sizes])
        if request < least:
            raise too_small(request, least, source.record)
        count = fit_count(lambda n: source.total([n, *sizes]), request, config.fit, source.record, source.unit)
    else:
        count = request - source.total([0, *sizes])
    first = pick_part(config, source, 0, max(0, count), config.fit) if count > 0 else None
    if first is None or not len(first.piece):
        raise too_small(request, source.total([smallest(source), *sizes]), source.record)
    return [first, *rest]


def pick_share(config: ScaleConfig, source: Source, part: int, ratio: float) -> Picks:
    """Choose pieces of a part in proportion, at least one record."""
    whole = source.parts[part]
    request = max(1, round(whole.size * (ratio if whole.grows else min(1.0, ratio))))
    picks = pick_part(config, source, part, request, "nearest")
    return picks if len(picks.piece) else pick_part(config, source, part, request, "at-least")


def smallest(source: Source) -> int:
    """Size of the first record of the first piece, as an example of one."""
    return int(source.lengths(0, 0)[0])


def pick_part(config: ScaleConfig, source: Source, part: int, request: int, fit: str) -> Picks:
    """Choose pieces of one part."""
    random = block_stream(config.seed, CAMPAIGN.number, STREAM + part)
    shuffled = config.mode == "permute"
    return pick(source.parts[part].pieces, request, fit, shuffled, random, functools.partial(source.lengths, part))


def changes(config: ScaleConfig) -> Changes:
    """Return the function that tells how a pick is changed."""
    keys: dict[int, np.uint64] = {}

    def change(part: int, picks: Picks, index: int) -> Change:
        times = int(picks.times[index])
        if times == 0 or config.mode in ("copy", "reflink"):
            return Change()
        key = keys.setdefault(part, stream_key(config.seed, CAMPAIGN.number, STREAM + part))
        with np.errstate(over="ignore"):  # words wrap around
            random = np.uint64(word(key, np.uint64(times * PIECES + int(picks.piece[index]))))
            is_copied = happens(low_half(np.uint64(word(random, np.uint64(0)))), config.duplicates)
        if is_copied:
            return Change()
        return Change(random | np.uint64(2), config.mode == "permute", config.noise, config.compressible)

    return change


def fingerprint(source: Source) -> str:
    """Tell an input from another, or from itself when it has been changed: names, sizes and times of its files."""
    crc = 0
    for part in source.parts:
        for path in part.files:
            status = path.stat()
            crc = crc32c(f"{path.name} {status.st_size} {status.st_mtime_ns}".encode(), crc)
    return f"{crc:08x}"


def explain(config: ScaleConfig, identity: str, stored: str) -> str:
    """Compare a stored configuration and input with these; see `config.explainer`."""
    was = configuration.parse_yaml(stored, "the stored configuration").values.get("input")
    if str(was) != identity:
        return "the input is another one, or has been changed"
    return configuration.explainer(config)(stored)


def duplicate_share(config: ScaleConfig, picks: Sequence[Picks]) -> float:
    """Share of the bytes whose records stand elsewhere in the data set too, unchanged."""
    change = changes(config)
    copied = 0
    for part, taken in enumerate(picks):
        again = np.flatnonzero(taken.times)
        if config.mode == "perturb":  # a set of many pieces is only looked through where some are copies
            again = again if config.duplicates else again[:0]
            again = np.array([i for i in again.tolist() if change(part, taken, i).is_copy], dtype=np.int64)
        copied += int(taken.size[again].sum())
    return copied / sum(taken.total for taken in picks)


def told(config: ScaleConfig, source: Source, picks: Sequence[Picks], size: int) -> str:
    """What was made, in words."""
    before = source.total([part.size for part in source.parts])
    records = sum(int(taken.records.sum()) for taken in picks)
    text = f"{records:,} records, {size:,} bytes ({size / before:.4g} times the input)"
    text += f", {duplicate_share(config, picks):.2%} duplicates"
    if len(picks) > 1:
        each = zip(source.parts, picks, strict=True)
        text += "; " + ", ".join(f"{part.name} {_share(taken, picks)}" for part, taken in each)
    return text


def _share(taken: Picks, picks: Sequence[Picks]) -> str:
    return f"{taken.total / sum(each.total for each in picks):.2%}"
