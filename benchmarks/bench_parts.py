"""What making benchmark data costs in parts: the bytes alone, and the memory of a rank.

    python benchmarks/bench_parts.py [--repeats N] [--directory DIRECTORY] [--json FILE]

Making: CPU time of a block of the middle of the largest file, into one work buffer, nothing written. Memory: a rank at
the end of a run of 300 MB, as /proc/self/smaps_rollup has it, and its largest resident set, as getrusage has it.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from goals import Goal, conclude, machine

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
MOST_RESIDENT = 150  # MB, the goal for a rank


def configure(workload: str, form: str, preset: str) -> BenchGenerateConfig:
    values = {"workload": workload, "format": form, "size": MEGABYTES * 10**6}
    return build(BenchGenerateConfig, [read_preset("scimill.bench/presets", preset), Layer("benchmark", values)])


def making(workload: str, form: str, preset: str, repeats: int) -> float:
    """MB per CPU second of making a block."""
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


def memory(ranks: int, workload: str, form: str, folder: Path) -> dict[str, float]:
    """MB of a rank: resident, its own, shared with others, and the largest resident set."""
    command = [sys.executable, __file__, "--rank", workload, form, str(folder / "set")]
    launcher = ["mpirun", "-n", str(ranks)] if ranks > 1 else []
    for _ in range(2):  # the first one compiles
        told = subprocess.run([*launcher, *command], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    found: dict[str, float] = json.loads(told.stdout.splitlines()[-1])
    return found


def rank(workload: str, form: str, path: Path) -> None:
    """Generate as one of the ranks; rank 0 prints its memory."""
    ranks = world()
    generate.generate(configure(workload, form, "original"), Output(path, overwrite=True), ranks)
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    own = kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    values = {"resident": kilobytes["Rss"], "own": own, "shared": kilobytes["Rss"] - own, "largest": largest}
    ranks.barrier()  # what all ranks use is shared as long as all of them are there
    if ranks.is_root:
        print(json.dumps({name: value * 1024 / 1e6 for name, value in values.items()}))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rank", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank:
        rank(arguments.rank[0], arguments.rank[1], Path(arguments.rank[2]))
        return 0
    print(f"{machine()}\n\n{'making alone, MB per CPU second':44}")
    rates = {" ".join(kind): making(*kind, arguments.repeats) for kind in KINDS}
    for name, value in rates.items():
        print(f"{name:32}{value:12,.0f}")
    print(f"\n{'MB of memory of a rank':32}{'resident':>10}{'its own':>10}{'shared':>10}{'largest':>10}")
    goals, found = [], {}
    for ranks, workload, form in RUNS:
        with tempfile.TemporaryDirectory(dir=arguments.directory) as folder:
            mb = found[f"{workload} {form}, {ranks} ranks"] = memory(ranks, workload, form, Path(folder))
        name = f"{workload}, {form}, {ranks} rank{'s' * (ranks > 1)}"
        print(f"{name:32}" + "".join(f"{value:10.0f}" for value in mb.values()), flush=True)
        goals.append(Goal(f"{name}: MB resident", mb["resident"], most=MOST_RESIDENT))
    return conclude(goals, {"making": rates, "memory": found}, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
