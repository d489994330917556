"""Make one small dataset of every workload and format. Usage: benching.py FOLDER; under mpirun, on all ranks.

benching.py slices       print the SHA-256 of a slice of every file instead, with kernels compiled or not
"""

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np

from scimill.bench import generate
from scimill.bench.dataset.plan import MARGIN
from scimill.bench.formats import catalogue
from scimill.bench.params import FORMATS, BenchGenerateConfig
from scimill.config import Layer, build
from scimill.parallel.world import World, launch, world
from scimill.store.output import Output

SMALL = {"depth_range": "128:130", "width_range": "128:132", "instances_range": "60:90", "rows_per_file": 3000}
SIZES = {"imseg": "11MB", "bert": "700kB", "dlrm": "2MB"}
REALISTIC = {"labels": "blobs", "sequences": "sentences", "ids": "skewed", "missing": 0.1}
DISTRIBUTIONS: dict[str, dict[str, Any]] = {"original": {}, "realistic": REALISTIC}
CASES = [
    (distribution, workload, form)
    for distribution in DISTRIBUTIONS
    for workload, formats in FORMATS.items()
    for form in formats
]


def configure(distribution: str, workload: str, form: str) -> BenchGenerateConfig:
    values = {"workload": workload, "format": form, "size": SIZES[workload], "block_size": 2**17, "direct": False}
    return build(BenchGenerateConfig, [Layer("test", {**SMALL, **DISTRIBUTIONS[distribution], **values})])


def main() -> int:
    if sys.argv[1] == "slices":
        print("\n".join(slices()))
        return 0
    for case in CASES:
        folder = Path(sys.argv[1]) / "-".join(case)
        generate.generate(configure(*case), Output(folder.with_suffix(".h5" if case[2] == "hdf5" else "")), world())
    return 0


def slices() -> list[str]:
    """Return SHA-256s of 4 KB in the middle of the first two files of every case."""
    found = []
    for case in CASES:
        if case[2] == "hdf5":
            continue
        config = configure(*case)
        size = 100_000 if config.workload == "bert" else config.size if config.workload == "imseg" else 60_000
        for file in catalogue.make_plan(config, size, World(None)).files[:2]:
            start = min(file.size // 2 // 8 * 8, file.size)
            stop = min(file.size, start + 4000)
            work = np.zeros(4000 + 2 * MARGIN, dtype=np.uint8)
            file.fill(start, stop, work, MARGIN)
            content = work[MARGIN : MARGIN + stop - start].tobytes()
            found.append(f"{'-'.join(case)} {file.name} {hashlib.sha256(content).hexdigest()}")
    return found


if __name__ == "__main__":
    launch(main)
