"""Compare verifying a store with reading and checksumming its bytes; the cost of reading back with a run of a minute.

The store lies in the page cache, which is the worst case for the processor time of `verify`. Both take turns, on one
rank; their medians are compared. Reading back is timed at the end of a run that pretends to have taken a minute.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import harness
import numpy as np

from scimill.parallel.world import Stop, World
from scimill.store.checksums import crc32c
from scimill.store.layout import Field, Layout
from scimill.store.output import Output
from scimill.store.provenance import Provenance
from scimill.store.verify import verify
from scimill.store.writer import BlockData, Writer, open_writer

ALONE = World(None)
FIELDS = 9
ROW_BYTES = 4
BLOCK_ROWS = {"blocks of 65 536 rows": 1 << 16, "blocks of 1 000 rows": 1000}
RUN = 60.0  # s
PIECE = 1 << 22  # bytes


def write_store(path: Path, block_rows: int, mebibytes: int) -> Writer:
    """Write a store of float32 fields like those of droplets; it is left open."""
    blocks = max(2, (mebibytes << 20) // (FIELDS * block_rows * ROW_BYTES))
    fields = tuple(Field(f"field_{i}", "float32", "1", "numbers", valid=(0.0, 1.0)) for i in range(FIELDS))
    layout = Layout(blocks * block_rows, block_rows, fields)
    writer = open_writer(ALONE, Output(path), layout, Provenance("benchmark", 1, "", 0), lambda _: "", Stop(ALONE))
    assert writer is not None
    stream = np.random.default_rng(1)
    data = BlockData({field.name: stream.random(block_rows, dtype=np.float32) for field in fields})
    for block in range(blocks):
        writer.write(block, data, time.monotonic())
    return writer


def read_and_checksum(path: Path) -> int:
    """Compute the CRC-32C of a file: the least that `verify` has to do."""
    value = 0
    with path.open("rb", buffering=0) as file:
        while piece := file.read(PIECE):
            value = crc32c(piece, value)
    return int(value)


def time_(function: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def measure(path: Path, block_rows: int, mebibytes: int, repeats: int) -> dict[str, float]:
    """Return the median seconds of both ways to read, and of reading back."""
    writer = write_store(path, block_rows, mebibytes)
    writer.flush()
    writer._close()
    writer._started = time.monotonic() - RUN
    read_back = time_(writer._require_stored)
    writer._publish()
    writer._claim.release()
    read_and_checksum(path)  # into the page cache
    seconds: dict[str, list[float]] = {"verify": [], "read": []}
    for _ in range(repeats):
        seconds["verify"].append(time_(lambda: verify(path, ALONE)))
        seconds["read"].append(time_(lambda: read_and_checksum(path)))
    path.unlink()
    return {name: median(values) for name, values in seconds.items()} | {"read_back": read_back}


def main() -> int:
    """Measure and print; return 0 if every goal is met."""
    size = harness.Option("mebibytes", 512, 48, "size of each store, MiB")
    directory = harness.Option("directory", Path(), Path(), "where to write")
    options = harness.parse(__doc__, size, harness.repeats(7), directory)
    print(harness.describe_machine())
    results, goals = {}, []
    with tempfile.TemporaryDirectory(prefix="scimill-benchmark-", dir=options.directory) as folder:
        for name, rows in BLOCK_ROWS.items():
            found = measure(Path(folder) / "store.h5", rows, options.mebibytes, options.repeats)
            results[name] = found
            print(f"{name}: " + ", ".join(f"{key} {value:.3f} s" for key, value in found.items()))
            goals.append(harness.Goal(f"{name}: verify, times reading", found["verify"] / found["read"], most=1.5))
            share = found["read_back"] / RUN
            goals.append(harness.Goal(f"{name}: reading back, share of a run of a minute", share, most=0.01))
    return harness.conclude(goals, results, options.json)


if __name__ == "__main__":
    raise SystemExit(main())
