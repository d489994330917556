"""Compare the memory of a rank with its limit, and time making the bytes without writing them.

Making: CPU time of one block in the middle of the largest file, made in one work buffer and not written. Memory: the
memory of a rank at the end of a run of 300 MB, from /proc/self/smaps_rollup, and its largest resident set, from
getrusage.
"""

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import harness

from scimill.bench import generate
from scimill.bench.dataset.plan import MARGIN, work_buffer
from scimill.bench.formats import catalogue
from scimill.bench.params import BenchGenerateConfig
from scimill.config import Layer, build, read_preset
from scimill.parallel.world import World, world
from scimill.store.output import Output

KINDS = (
    ("imseg", "npy", "original"), ("imseg", "npy", "realistic"), ("dlrm", "npz", "original"),
    ("dlrm", "bin", "original"), ("dlrm", "npy", "original"), ("dlrm", "text", "original"),
    ("dlrm", "text", "realistic"), ("bert", "tfrecord", "original"), ("bert", "tfrecord", "realistic"),
)  # fmt: skip
RUNS = ((1, "imseg", "npy"), (2, "imseg", "npy"), (1, "bert", "tfrecord"), (1, "dlrm", "hdf5"), (2, "dlrm", "hdf5"))
MEGABYTES = 300
MOST_RESIDENT = 150  # MB, the goal per rank


def configure(workload: str, form: str, preset: str) -> BenchGenerateConfig:
    values = {"workload": workload, "format": form, "size": MEGABYTES * 10**6}
    return build(BenchGenerateConfig, [read_preset("scimill.bench/presets", preset), Layer("benchmark", values)])


def making_rate(workload: str, form: str, preset: str, repeats: int) -> float:
    """Measure the MB per CPU second of making a block."""
    config = configure(workload, form, preset)
    plan = catalogue.make_plan(config, config.size, World(None))
    file, work = max(plan.files, key=lambda file: file.size), work_buffer(plan.block_size)
    start = file.size // 2 // plan.block_size * plan.block_size
    stop = min(start + plan.block_size, file.size)
    best = 0.0
    for _ in range(repeats * 20):
        started = time.process_time()
        file.fill(start, stop, work, MARGIN)
        best = max(best, (stop - start) / 1e6 / (time.process_time() - started))
    return best


def measure_memory(ranks: int, workload: str, form: str, folder: Path) -> dict[str, float]:
    """Measure the MB of a rank: resident, private, shared with other ranks, and largest resident set."""
    for _ in range(2):  # the first one compiles
        printed = harness.run_part(workload, form, folder / "set", ranks=ranks)
    found: dict[str, float] = json.loads(printed.splitlines()[-1])
    return found


def rank(workload: str, form: str, path: str) -> None:
    """Generate on the ranks of this job; rank 0 prints its memory."""
    ranks = world()
    generate.generate(configure(workload, form, "original"), Output(Path(path), overwrite=True), ranks)
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    private = kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    values = {"resident": kilobytes["Rss"], "own": private, "shared": kilobytes["Rss"] - private, "largest": largest}
    ranks.barrier()  # pages are shared only while the other ranks still run
    if ranks.is_root:
        print(json.dumps({name: value * 1024 / 1e6 for name, value in values.items()}))


def main() -> int:
    arguments = harness.parse(__doc__, harness.repeats(5), harness.DIRECTORY, needs=("mpirun",), part=rank)
    print(f"{harness.describe_machine()}\n\n{'making only, MB per CPU second':44}")
    rates = {" ".join(kind): making_rate(*kind, arguments.repeats) for kind in KINDS}
    for name, value in rates.items():
        print(f"{name:32}{value:12,.0f}")
    print(f"\n{'memory of a rank, MB':32}{'resident':>10}{'private':>10}{'shared':>10}{'largest':>10}")
    goals, found = [], {}
    for ranks, workload, form in RUNS:
        with tempfile.TemporaryDirectory(dir=arguments.directory) as folder:
            mb = found[f"{workload} {form}, {ranks} ranks"] = measure_memory(ranks, workload, form, Path(folder))
        name = f"{workload}, {form}, {ranks} rank{'s' * (ranks > 1)}"
        print(f"{name:32}" + "".join(f"{value:10.0f}" for value in mb.values()), flush=True)
        goals.append(harness.Goal(f"{name}: MB resident", mb["resident"], most=MOST_RESIDENT))
    return harness.conclude(goals, {"making": rates, "memory": found}, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
