"""Compare the CPU time of reading and comparing two I/O traces with a limit of 2 s.

The traces are CSV files of six columns with a million operations each, of a program that accesses 500 files in random
order. Reading one trace and comparing two are timed separately; the least CPU time of each counts.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import harness
import numpy as np

from scimill.bench.kernels.similarity import compare_traces, overall_similarity
from scimill.bench.traces.formats import read_trace

LIMIT = 2.0  # CPU s for a million operations
OPERATIONS = harness.Option("operations", 10**6, 10**5, "operations in each trace")


def write_trace(path: Path, operations: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    start = np.sort(random.integers(0, 10**12, operations))
    end = start + random.integers(1, 10**6, operations)
    kind = np.array(["OPENAT", "READ", "WRITE", "BIOR"])[random.integers(0, 4, operations)]
    offset, size = random.integers(0, 10**9, (2, operations))
    file = random.integers(0, 500, operations)
    columns = zip(*(column.tolist() for column in (start, end, kind, offset, size, file)), strict=True)
    rows = (f"{s},{e},{k},{o},{n},/data/{f}\n" for s, e, k, o, n, f in columns)
    path.write_text("start,end,type,offset,bytes,file\n" + "".join(rows))


def least(function: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        started = time.process_time()
        function()
        times.append(time.process_time() - started)
    return min(times)


def main() -> int:
    options = harness.parse(__doc__, OPERATIONS, harness.repeats(3))
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{seed}.csv" for seed in (1, 2)]
        for seed, path in enumerate(paths):
            write_trace(path, options.operations, seed)
        reading = least(lambda: read_trace(paths[0]), options.repeats)
        a, b = (read_trace(path) for path in paths)
    comparing = least(lambda: overall_similarity(list(compare_traces(a, b, True).values())), options.repeats)
    print(f"{harness.describe_machine()}; {options.operations:,} operations in each trace")
    print(f"reading one trace takes {reading:.2f} CPU s, comparing two {comparing:.2f} CPU s")
    same = overall_similarity(list(compare_traces(a, a, True).values()))
    goals = [
        harness.Goal("comparing two traces, CPU seconds", comparing, most=LIMIT),
        harness.Goal("reading both traces and comparing them, CPU seconds", 2 * reading + comparing, most=LIMIT),
        harness.Goal("similarity of a trace with itself", same, least=1.0),
    ]
    return harness.conclude(goals, {"reading": reading, "comparing": comparing}, options.json)


if __name__ == "__main__":
    sys.exit(main())
