"""Kill -9 a process that generates a small dataset at random instants, resume it, and compare with a full run.

Usage: bench_killer.py FOLDER WORKLOAD FORMAT KILLS SEED; prints a line per kill: blocks done, then "same" or "other".
The process forks, so that its children start with compiled kernels.
"""

import hashlib
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np

from mpi import dataset_hashes, done_blocks
from parallel.bench.benching import DISTRIBUTIONS, SMALL
from scimill.bench import generate
from scimill.bench.dataset.ledger import DONE, ROW
from scimill.bench.params import BenchGenerateConfig
from scimill.config import Layer, build
from scimill.parallel.world import World
from scimill.store.output import Output

SIZE = {"imseg": "11MB", "bert": "12MB", "dlrm": "12MB"}


def configure(workload: str, form: str) -> BenchGenerateConfig:
    block_size = 2**18 if form == "hdf5" else 2**16  # in smaller blocks, the rows of a store do not fill whole pages
    values = {"workload": workload, "format": form, "size": SIZE[workload], "block_size": block_size}
    return build(BenchGenerateConfig, [Layer("test", {**SMALL, **DISTRIBUTIONS["realistic"], **values})])


def hashes(folder: Path) -> dict[str, str]:
    if folder.is_file():
        return dataset_hashes(folder)
    files = [path for path in folder.iterdir() if path.is_file() and path.name != "manifest.json"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}


def blocks_done(output: Output) -> int:
    """Return the number of finished blocks; -1 if the dataset is not begun or already complete."""
    if output.part.is_file():
        try:
            return len(done_blocks(output.part))
        except OSError:  # it was renamed in the meantime
            return -1
    ledger = output.part / ".scimill/ledger"
    return int(np.count_nonzero(np.fromfile(ledger, dtype=ROW)["state"] == DONE)) if ledger.exists() else -1


def blocks_of(path: Path) -> int:
    """Return the number of blocks of a complete dataset."""
    return len(done_blocks(path) if path.is_file() else np.fromfile(path / ".scimill/ledger", dtype=ROW))


def kill_after(config: BenchGenerateConfig, output: Output, blocks: int, seconds: float) -> None:
    """Generate in a child process; kill it some seconds after a number of blocks are done."""
    child = os.fork()
    if child == 0:
        generate.generate(config, output, World(None))
        os._exit(0)
    while blocks_done(output) < blocks and not output.path.exists():
        pass
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def main() -> None:
    folder, workload, form, kills, seed = Path(sys.argv[1]), *sys.argv[2:4], int(sys.argv[4]), int(sys.argv[5])
    config, draw = configure(workload, form), random.Random(seed)
    generate.generate(config, Output(folder / "warm"), World(None))
    started = time.monotonic()
    generate.generate(config, Output(folder / "whole"), World(None))
    whole, lasts = hashes(folder / "whole"), time.monotonic() - started
    count = blocks_of(folder / "whole")
    for number in range(kills):
        output = Output(folder / f"killed-{number}", resume=True)
        kill_after(config, output, draw.randint(-1, count), draw.uniform(0, 2 * lasts / count))
        done = blocks_done(output)
        assert output.path.exists() != output.part.exists() or done == -1
        generate.generate(config, output, World(None))
        print(done, "same" if hashes(output.path) == whole else "other", flush=True)


if __name__ == "__main__":
    main()
