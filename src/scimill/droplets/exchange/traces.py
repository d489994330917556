"""Import traces of simulations: each row of the store is one step of one particle.

A trace is a dump of a simulation in the order of its time steps, often one file per rank, and a particle may move from
file to file. Rows of the store are sorted by particle, then by time: the state, air and status of a record, and the
state of the particle's next record as the result. A missing step has no row.

Memory is bounded: particles are divided into groups of at most `GROUP_RECORDS` records, and a rank holds one group. It
reads all files once per group. So files of any size can be imported, in a time that grows with their size times the
number of groups. A group depends on the files only, and rows on their particle only, so the bytes do not depend on the
ranks.
"""

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scimill.config import to_yaml
from scimill.droplets import CAMPAIGN, arguments, fields, origin
from scimill.droplets.exchange import impossible
from scimill.droplets.exchange.recognise import RECORD_BYTES, STATE, TRACE_RECORD
from scimill.droplets.kernels import weird
from scimill.droplets.params import DropletsImportConfig
from scimill.errors import InputError
from scimill.parallel.report import say
from scimill.parallel.world import World
from scimill.store.layout import Layout
from scimill.store.output import Output
from scimill.store.writer import BlockData

Array = NDArray[np.void]
Rows = dict[str, NDArray[Any]]

GROUP_RECORDS = 1 << 22
"""Most records of a group, unless a single particle has more; a rank then needs about 1.2 GB."""
CHUNK_RECORDS = 1 << 18  # records read at once, 9 MiB
REASONS = ("impossible", "repeated", "last of a particle", "followed by a gap", "failed")
"""Why a record begins no row; each record has one reason at most."""


class Groups(NamedTuple):
    """Groups of particles, and the rows that each gives."""

    first: list[int]
    """smallest particle of each group, ascending"""
    rows: list[int]
    lost: NDArray[np.int64]
    """records that begin no row, by `REASONS`"""
    impossible: NDArray[np.int64]
    """impossible records, by `impossible.CLASSES`"""


def import_traces(config: DropletsImportConfig, output: Output, world: World) -> bool:
    """Make a store from traces; collective. Return False if it was already complete.

    Raises
    ------
    InputError : a file is missing or damaged, or the traces have not one step.
    ScimillError : see `store.writer.open_writer`.
    """
    with world.together():
        particles, counts = count_particles(config, world)
        groups = count_rows(config, split_particles(particles, counts), world)
        layout = fields.imported_layout(
            max(1, sum(groups.rows)), config.block_size, tuple(impossible.CLASSES), is_trace=True
        )
        if not sum(groups.rows):
            raise InputError(
                f"the traces have no step: {describe_lost(groups.lost)}", where=config.files[0],
                remedy="give all files of the simulation, or a larger --largest-gap",
            )  # fmt: skip
    summary = _summary(counts, groups)
    text = to_yaml(config) + f"trace: {json.dumps(summary)}  # counted at import\n"
    maker = _BlockMaker(config, groups, layout)
    is_new = CAMPAIGN.fill(config, layout, maker, output, world, maker="import-data", unit="steps", text=text)
    if world.is_root:
        _report(summary, groups, config)
    return is_new


def _summary(counts: NDArray[np.int64], groups: Groups) -> dict[str, int]:
    lost = dict(zip(REASONS, groups.lost.tolist(), strict=True))
    impossible_ones = groups.impossible.tolist()
    by_class = {f"impossible {name}": n for name, n in zip(impossible.CLASSES, impossible_ones, strict=True) if n}
    return {"records": int(counts.sum()), "particles": len(counts), "steps": sum(groups.rows), **lost, **by_class}


def _report(summary: dict[str, int], groups: Groups, config: DropletsImportConfig) -> None:
    say(
        f"trace: {summary['records']:,} records of {summary['particles']:,} particles give {summary['steps']:,} steps; "
        f"records without a step: {describe_lost(groups.lost)}"
    )
    if found := impossible.describe(groups.impossible):
        say(f"impossible records, left out: {found}")
    if config.physics == origin.UNKNOWN:
        say("the physics that made the trace is unknown; state it with --preset, --config or its flags")


def describe_lost(counts: NDArray[np.int64]) -> str:
    """Describe how many records begin no step, and why."""
    return ", ".join(f"{number:,} {reason}" for number, reason in zip(counts.tolist(), REASONS, strict=True) if number)


# ---- reading ----------------------------------------------------------------------------------------------------


def read_chunks(files: tuple[str, ...], first: int = 0, last: int | None = None) -> Iterator[Array]:
    """Read the records from `first` to before `last` of all files in their order, a chunk at a time.

    Raises
    ------
    InputError : a file cannot be read, or is shorter than it was.
    """
    start = 0
    for path in map(Path, files):
        count = path.stat().st_size // RECORD_BYTES
        stop = count if last is None else min(count, last - start)
        for begin in range(max(0, first - start), stop, CHUNK_RECORDS):
            yield _read(path, begin, min(CHUNK_RECORDS, stop - begin))
        start += count


def _read(path: Path, first: int, count: int) -> Array:
    try:
        records: Array = np.fromfile(path, dtype=TRACE_RECORD, count=count, offset=first * RECORD_BYTES)
    except OSError as error:
        raise InputError.unreadable("file", error, path) from None
    if len(records) != count:
        raise InputError("the file was truncated while it was read", where=str(path))
    return records


def count_particles(config: DropletsImportConfig, world: World) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the particles in ascending order, and the number of records of each; the ranks share the files."""
    total = sum(Path(name).stat().st_size // RECORD_BYTES for name in config.files)
    first, last = (total * rank // world.size for rank in (world.rank, world.rank + 1))
    empty = np.zeros(0, dtype=np.int64)
    found, counts = empty, empty
    for chunk in read_chunks(config.files, first, last):
        found, counts = _merge([(found, counts), np.unique(chunk["particle"], return_counts=True)])
    return _merge(world.gather_all((found, counts)))


def _merge(parts: list[tuple[NDArray[Any], NDArray[Any]]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Add counts of particles."""
    particles = np.concatenate([part for part, _ in parts]).astype(np.int64)
    unique, where = np.unique(particles, return_inverse=True)
    counts = np.zeros(len(unique), dtype=np.int64)
    np.add.at(counts, where, np.concatenate([count for _, count in parts]))
    return unique, counts


def split_particles(particles: NDArray[np.int64], counts: NDArray[np.int64]) -> list[int]:
    """Divide particles into groups of at most `GROUP_RECORDS` records; return the first particle of each."""
    first, size = [int(particles[0])], 0
    for particle, count in zip(particles.tolist(), counts.tolist(), strict=True):
        if size and size + count > GROUP_RECORDS:
            first.append(particle)
            size = 0
        size += count
    return first


def count_rows(config: DropletsImportConfig, first: list[int], world: World) -> Groups:
    """Count the rows of each group, and what gives none; the ranks share the groups."""
    mine = []
    for group in range(world.rank, len(first), world.size):
        rows, lost, bad = make_rows(read_group(config.files, first, group), config.largest_gap)
        mine.append((len(rows["time"]), lost, bad))
    shared: list[Any] = [None] * len(first)
    for rank, part in enumerate(world.gather_all(mine)):
        shared[rank :: world.size] = part
    rows_of, lost_of, bad_of = zip(*shared, strict=True)
    return Groups(first, list(rows_of), np.sum(lost_of, axis=0), np.sum(bad_of, axis=0))


def read_group(files: tuple[str, ...], first: list[int], group: int) -> Array:
    """Read all records of a group's particles, in the order of the files."""
    low, high = first[group], first[group + 1] if group + 1 < len(first) else 2**31
    pieces = [part[(part["particle"] >= low) & (part["particle"] < high)] for part in read_chunks(files)]
    return np.concatenate(pieces)


# ---- rows -------------------------------------------------------------------------------------------------------


def make_rows(records: Array, largest_gap: float) -> tuple[Rows, NDArray[np.int64], NDArray[np.int64]]:
    """Turn records of some particles into steps.

    Parameters
    ----------
    records : in any order; of two records of a particle at the same time, the first counts.
    largest_gap : most usual steps (the median of the particle) between two records that make a row.

    Returns
    -------
    The rows by field, sorted by particle and time; the number of records that begin none, by `REASONS`; and the number
    of impossible ones, by `impossible.CLASSES`.
    """
    kinds = impossible.classify({name: records[name] for name in ("time", *STATE)}, is_trace=True)
    ordered, repeated = _sort(records[kinds == 0])
    same = np.append(ordered["particle"][1:] == ordered["particle"][:-1], np.zeros(min(1, len(ordered)), bool))
    dt = np.append(np.diff(ordered["time"].astype(np.float64)), np.zeros(min(1, len(ordered))))
    is_gap = same & (dt > largest_gap * _usual(ordered["particle"], dt, same))
    is_failed = same & ~is_gap & ((ordered["status"] & fields.FAILED) != 0)
    begins_row = same & ~is_gap & ~is_failed
    lost = np.array([np.count_nonzero(kinds), repeated, *map(np.count_nonzero, (~same, is_gap, is_failed))])
    return _rows(ordered, dt, begins_row), lost.astype(np.int64), impossible.count(kinds).astype(np.int64)


def _sort(records: Array) -> tuple[Array, int]:
    """Sort by particle and time; return the records without repeated ones, and the number of those."""
    ordered = records[np.lexsort((records["time"], records["particle"]))]  # stable: the first file's record comes first
    new = np.ones(len(ordered), dtype=bool)
    new[1:] = (ordered["particle"][1:] != ordered["particle"][:-1]) | (ordered["time"][1:] != ordered["time"][:-1])
    return ordered[new], int(np.count_nonzero(~new))


def _usual(particles: NDArray[np.int32], dt: NDArray[np.float64], same: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the median time step of each record's particle; inf if it has none."""
    usual = np.full(len(particles), np.inf)
    chosen = np.flatnonzero(same)
    if not chosen.size:
        return usual
    order = chosen[np.lexsort((dt[chosen], particles[chosen]))]
    _, first, which, count = np.unique(particles[order], return_index=True, return_inverse=True, return_counts=True)
    usual[order] = dt[order[first + (count - 1) // 2]][which]  # the lower of the two middle ones
    return usual


def _rows(ordered: Array, dt: NDArray[np.float64], begins_row: NDArray[np.bool_]) -> Rows:
    start = np.flatnonzero(begins_row)
    rows: Rows = {name: np.ascontiguousarray(ordered[name][start]) for name in (*STATE, "particle", "status")}
    continues = np.append(np.zeros(min(1, len(start)), bool), start[1:] == start[:-1] + 1)
    rows |= {
        "time": dt[start].astype(np.float32), "start_time": np.ascontiguousarray(ordered["time"][start]),
        "radius": ordered["initial_radius"][start + 1], "temperature": ordered["initial_temperature"][start + 1],
        # A failed step leaves its state in the trace, and the next row starts anew from there.
        "begins": (~continues).astype(np.uint8),
    }  # fmt: skip
    return rows


class _BlockMaker:
    """Makes the blocks of a trace's store; keeps the group that it has read last."""

    def __init__(self, config: DropletsImportConfig, groups: Groups, layout: Layout) -> None:
        self._layout, self._limits = layout, arguments.limits(config)
        self._starts = np.cumsum([0, *groups.rows])
        self._group = lru_cache(maxsize=1)(
            lambda group: make_rows(read_group(config.files, groups.first, group), config.largest_gap)[0]
        )

    def __call__(self, block: int) -> BlockData:
        """Make a block.

        Raises
        ------
        InputError : the files have changed since their records were counted.
        """
        span, parts = self._layout.span(block), []
        for group, (first, last) in enumerate(zip(self._starts, self._starts[1:], strict=False)):
            if first < span.stop and last > span.start:
                rows = self._group(group)
                if len(rows["time"]) != last - first:
                    raise InputError("the files of the trace were changed while they were read")
                parts.append({name: v[max(span.start - first, 0) : span.stop - first] for name, v in rows.items()})
        return self._block_data({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})

    def _block_data(self, rows: Rows) -> BlockData:
        count = len(rows["time"])
        status = np.zeros((count, 1), dtype=np.uint8)
        classes = weird.classify(rows["radius"][:, None], rows["temperature"][:, None], status, self._limits)[:, 0]
        low, high = origin.extremes({**rows, "weird": classes})
        ledger: dict[str, ArrayLike] = {
            "attempts": count, "weird_by_class": weird.count_classes(classes),
            "impossible": np.zeros(len(impossible.CLASSES), np.uint32), "lowest": low, "highest": high,
        }  # fmt: skip
        return BlockData({**rows, "weird": classes}, ledger=ledger)
