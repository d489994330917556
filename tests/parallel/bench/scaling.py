"""Scale one small dataset of every workload and format. Usage: scaling.py INPUTS OUTPUTS; all ranks work together.

An input is INPUTS/NAME, or INPUTS/NAME.h5, for every NAME of `SIZES`.
"""

import sys
from pathlib import Path

from scimill.bench.params import ScaleConfig
from scimill.bench.scale import scale
from scimill.config import Layer, build
from scimill.parallel.world import launch, world
from scimill.store.output import Output

SIZES = {
    "bert-tfrecord": "5MB", "bert-hdf5": "2MB", "dlrm-bin": "3MB", "dlrm-text": "3MB", "dlrm-npz": "3MB",
    "dlrm-npy": "3MB", "dlrm-parquet": "3MB", "dlrm-hdf5": "2MB", "imseg-npy": "33MB", "imseg-hdf5": "43MB",
}  # fmt: skip
"""Size by workload and format: a multiple of the input's size, but not a whole one."""


def place(folder: Path, name: str) -> Path:
    """Return the path of a dataset."""
    return folder / (f"{name}.h5" if name.endswith("hdf5") else name)


def main() -> int:
    inputs, outputs = (Path(word) for word in sys.argv[1:])
    for name, size in SIZES.items():
        values = {"workload": name.split("-")[0], "size": size, "block_size": 2**17, "direct": False}
        config = build(ScaleConfig, [Layer("test", values)])
        scale(config, place(inputs, name), Output(place(outputs, name)), world())
    return 0


if __name__ == "__main__":
    launch(main)
