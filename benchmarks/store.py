"""Compare the store with raw pwrite and with plain h5py, on 1 and 2 ranks.

All three write the same arrays in blocks of the same size, each into its own file, which is created before the clock
starts: into the page cache, and again with fsync at the end. They take turns, and their medians are compared. The
script starts itself under mpirun, once for each MPI-IO component. It also times the ledger and the checksum alone.
"""

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import harness
import numpy as np
from h5py import File

from scimill import config as configuration
from scimill.config import Layer
from scimill.droplets import fields, generate
from scimill.droplets.params import DropletsGenerateConfig
from scimill.parallel.partition import share
from scimill.parallel.world import Stop, World, world
from scimill.store.checksums import bytes_checksum
from scimill.store.layout import Field, Layout
from scimill.store.output import Output
from scimill.store.provenance import Provenance
from scimill.store.writer import BlockData, Writer, open_writer

ROW_BYTES = 4
SHAPES = {
    # name: (fields, rows per block), rows of 4 bytes
    "droplets": (9, 1 << 16),
    "snapshots": (1, 1 << 21),
}
ENVIRONMENTS: dict[str, dict[str, str]] = {
    # name: environment variables; without any, Open MPI uses the component that scimill prefers
    "1 rank": {},
    "2 ranks": {},
    "2 ranks, ompio": {"OMPI_MCA_io": "ompio"},
}
GOALS_FOR = ("1 rank", "2 ranks")
SHARE_BLOCKS = 400  # blocks over which the parts of a write are timed


# ---- three ways to write ----------------------------------------------------------------------------------------


def layout_of(shape: str, mebibytes: int) -> Layout:
    """Return the layout of a store of float32 fields, of about so many MiB."""
    number, rows = SHAPES[shape]
    blocks = max(2, (mebibytes << 20) // (number * rows * ROW_BYTES))
    names = (Field(f"field_{i}", "float32", "1", "numbers") for i in range(number))
    return Layout(blocks * rows, rows, tuple(names))


def block_of(layout: Layout) -> BlockData:
    """Return the arrays of one block; all blocks reuse them, so that making data takes no time."""
    stream = np.random.default_rng(1)
    return BlockData({f.name: stream.random(layout.block_rows, dtype=np.float32) for f in layout.fields})


def open_store(ranks: World, path: Path, layout: Layout) -> Writer:
    """Create a store and open it."""
    writer = open_writer(ranks, Output(path), layout, Provenance("benchmark", 1, "", 0), lambda _: "", Stop(ranks))
    assert writer is not None
    return writer


def write_by_store(ranks: World, path: Path, layout: Layout, data: BlockData, sync: bool) -> float:
    """Write blocks as a campaign does."""
    writer = open_store(ranks, path, layout)
    mine = share(writer.pending, ranks.rank, ranks.size).tolist()

    def write() -> None:
        for block in mine:
            writer.write(block, data, time.monotonic())

    seconds = time_writing(ranks, write, path.with_name(path.name + ".part") if sync else None)
    close(writer)
    return seconds


def write_by_pwrite(ranks: World, path: Path, layout: Layout, data: BlockData, sync: bool) -> float:
    """Write the same bytes to the same places of a store with `os.pwrite` alone: the limit."""
    writer = open_store(ranks, path, layout)
    part = path.with_name(path.name + ".part")
    mine = share(writer.pending, ranks.rank, ranks.size).tolist()
    offsets = {field.name: writer._file[field.name].id.get_offset() for field in layout.fields}
    descriptor = os.open(part, os.O_RDWR)

    def write() -> None:
        for block in mine:
            for field in layout.fields:
                rows = data.fields[field.name]
                if os.pwrite(descriptor, rows.data, offsets[field.name] + block * rows.nbytes) != rows.nbytes:
                    raise OSError("a write was cut short")

    seconds = time_writing(ranks, write, part if sync else None)
    os.close(descriptor)
    close(writer)
    return seconds


def write_by_h5py(ranks: World, path: Path, layout: Layout, data: BlockData, sync: bool) -> float:
    """Write as the h5py documentation shows: contiguous datasets, independent writes."""
    driver = {"driver": "mpio", "comm": ranks.comm} if ranks.comm else {}
    with File(path, "w", **driver) as file:
        datasets = [file.create_dataset(field.name, (layout.rows,), dtype=field.dtype) for field in layout.fields]
        mine = share(np.arange(layout.blocks), ranks.rank, ranks.size).tolist()

        def write() -> None:
            for block in mine:
                for field, dataset in zip(layout.fields, datasets, strict=True):
                    dataset[layout.span(block)] = data.fields[field.name]

        return time_writing(ranks, write, path if sync else None)


WAYS: dict[str, Callable[..., float]] = {"store": write_by_store, "pwrite": write_by_pwrite, "h5py": write_by_h5py}


def time_writing(ranks: World, write: Callable[[], None], sync: Path | None) -> float:
    """Return the seconds until the slowest rank has written, and synced if `sync` names the file."""
    ranks.barrier()
    started = time.perf_counter()
    write()
    if sync:
        descriptor = os.open(sync, os.O_RDWR)
        os.fsync(descriptor)
        os.close(descriptor)
    return max(ranks.gather_all(time.perf_counter() - started))


def close(writer: Writer) -> None:
    """Close a store without making it durable; collective."""
    writer._file.close()
    writer._claim.release()


# ---- the parts of a write ---------------------------------------------------------------------------------------


def time_parts(ranks: World, path: Path, layout: Layout, data: BlockData) -> dict[str, float]:
    """Return the median seconds per block of `Writer.write`, of writing its data, and of its checksum.

    The rest of `Writer.write` is the ledger's row and the done mark.
    """
    writer = open_store(ranks, path, layout)
    seconds: dict[str, list[float]] = {"write": [], "data": [], "checksum": []}

    def time_(name: str, function: Callable[[], object]) -> None:
        started = time.perf_counter()
        function()
        seconds[name].append(time.perf_counter() - started)

    for block in share(writer.pending, ranks.rank, ranks.size).tolist()[:SHARE_BLOCKS]:
        writer.write(block, data, time.monotonic())  # allocates the pages before anything is timed
        time_("data", lambda: write_data_alone(writer, block, data))  # noqa: B023
        time_("checksum", lambda: checksum_alone(layout, data))
        time_("write", lambda: writer.write(block, data, time.monotonic()))  # noqa: B023
    close(writer)
    return {name: median(values) for name, values in seconds.items()}


def write_data_alone(writer: Writer, block: int, data: BlockData) -> None:
    """Write the data as `Writer` does, without checksum and ledger."""
    with without_checksums():
        writer._write_data(block, data)


@contextlib.contextmanager
def without_checksums() -> Any:
    """Stop `Writer` from computing checksums."""
    from scimill.store import writer as module

    original, module.bytes_checksum = module.bytes_checksum, lambda rows, value: value
    try:
        yield
    finally:
        module.bytes_checksum = original


def checksum_alone(layout: Layout, data: BlockData) -> int:
    """Compute the checksum of a block as `Writer` does."""
    value = 0
    for field in layout.fields:
        value = bytes_checksum(data.fields[field.name], value)
    return value


def droplet_block_seconds() -> float:
    """Return the median seconds that making a block of droplets of the default size takes."""
    config = configuration.build(DropletsGenerateConfig, [Layer("flags", {"count": 10 * (1 << 16)})])
    make = generate.block_maker(config, fields.generation_layout(config))
    seconds = []
    for block in range(6):
        started = time.perf_counter()
        make(block)
        seconds.append(time.perf_counter() - started)
    return median(seconds[1:])  # the first one loads the compiled kernel


# ---- measuring --------------------------------------------------------------------------------------------------


def measure(mebibytes: str, repeats: str, directory: str) -> None:
    """Measure on the ranks of this job; collective. Rank 0 prints the results as JSON."""
    ranks = world()
    found = measure_shapes(ranks, int(mebibytes), int(repeats), Path(directory))
    if ranks.is_root:
        print(json.dumps(found))


def measure_shapes(ranks: World, mebibytes: int, repeats: int, directory: Path) -> dict[str, Any]:
    folder = Path(ranks.on_root(tempfile.mkdtemp, "", "scimill-benchmark-", directory))
    found: dict[str, Any] = {}
    try:
        for shape in SHAPES:
            layout = layout_of(shape, mebibytes)
            data = block_of(layout)
            found[shape] = {
                "page cache": measure_rates(ranks, folder, layout, data, repeats, sync=False),
                "fsync": measure_rates(ranks, folder, layout, data, repeats, sync=True),
                "parts": time_parts(ranks, empty_folder(ranks, folder), layout, data),
            }
    finally:
        if ranks.is_root:
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()
    return found


def measure_rates(
    ranks: World, folder: Path, layout: Layout, data: BlockData, repeats: int, *, sync: bool
) -> dict[str, list[float]]:
    """Measure the MiB/s of each way in turns, A B C, A B C, …, after one turn that does not count."""
    mebibytes = layout.rows * len(layout.fields) * ROW_BYTES / 2**20
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for repeat in range(repeats + 1):
        for way, write in WAYS.items():
            seconds = write(ranks, empty_folder(ranks, folder), layout, data, sync)
            if repeat:
                found[way].append(mebibytes / seconds)
    return found


def empty_folder(ranks: World, folder: Path) -> Path:
    """Remove all files, so that every way starts with unallocated space; collective."""
    ranks.barrier()
    if ranks.is_root:
        for path in folder.iterdir():
            path.unlink()
    ranks.barrier()
    return folder / "store.h5"


def measure_apart(name: str, *words: object) -> dict[str, Any]:
    """Measure in a separate process or job."""
    printed = harness.run_part(*words, ranks=int(name.split()[0]), environment=ENVIRONMENTS[name])
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return found


def show(name: str, found: dict[str, Any]) -> None:
    """Print the results of one environment."""
    for shape, results in found.items():
        number, rows = SHAPES[shape]
        print(f"\n{name}, {shape}: {number} x {rows * ROW_BYTES / 1024:,.0f} KiB per block; median MiB/s")
        for medium in ("page cache", "fsync"):
            rate = {way: median(values) for way, values in results[medium].items()}
            numbers = "  ".join(f"{way} {value:>6,.0f}" for way, value in rate.items())
            to = "  ".join(f"{rate['store'] / rate[way]:.3f} of {way}" for way in ("pwrite", "h5py"))
            print(f"  {medium:<11} {numbers}   store {to}")
        part = results["parts"]
        ledger = max(0.0, part["write"] - part["data"] - part["checksum"])
        print(
            f"  writing a block takes {part['write'] * 1e6:,.0f} us: data {part['data'] * 1e6:,.0f}, "
            f"checksum {part['checksum'] * 1e6:,.0f}, ledger {ledger * 1e6:,.0f}"
        )


def overhead(part: dict[str, float]) -> float:
    """Return the seconds that ledger and checksum take when a block is written."""
    return part["write"] - part["data"]


def make_goals(results: dict[str, Any], made_in: float) -> list[harness.Goal]:
    """Return the goals for the store."""
    goals = []
    for name in GOALS_FOR:
        for shape, found in results[name].items():
            for medium in ("page cache", "fsync"):
                rate = {way: median(values) for way, values in found[medium].items()}
                ratio = rate["store"] / rate["pwrite"]
                goals.append(harness.Goal(f"{name}, {shape}, {medium}: store, share of raw pwrite", ratio, least=0.85))
    for name in GOALS_FOR:
        part = results[name]["droplets"]["parts"]
        share_ = overhead(part) / (made_in + part["write"])
        goals.append(harness.Goal(f"{name}: ledger and checksum, share of a block of droplets", share_, most=0.03))
    return goals


def main() -> int:
    """Measure and print; return 0 if every goal is met."""
    size = harness.Option("mebibytes", 1024, 48, "size of each file, MiB")
    directory = harness.Option("directory", Path(), Path(), "where to write")
    options = harness.parse(__doc__, size, harness.repeats(7), directory, needs=("mpirun",), part=measure)
    print(harness.describe_machine())
    results = {}
    for name in ENVIRONMENTS:
        results[name] = measure_apart(name, options.mebibytes, options.repeats, options.directory.resolve())
        show(name, results[name])
    made_in = droplet_block_seconds()
    for name in GOALS_FOR:
        part = results[name]["droplets"]["parts"]
        print(
            f"\n{name}: ledger and checksum take {overhead(part) / part['write']:.1%} of a loop that only writes, "
            f"and {overhead(part) / (made_in + part['write']):.2%} if making a block takes {made_in * 1e3:.0f} ms"
        )
    return harness.conclude(
        make_goals(results, made_in), {"environments": results, "droplet_block_seconds": made_in}, options.json
    )


if __name__ == "__main__":
    raise SystemExit(main())
