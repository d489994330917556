"""Writer of the dlrm trainer's binary format: rows of 40 little-endian int32, no header."""

import dataclasses
import io

import numpy as np
from numpy.typing import NDArray

from scimill.bench.dataset.plan import DataFile, DatasetPlan, KnownBytes, fit_count
from scimill.bench.formats import dlrm
from scimill.bench.kernels.clicks import COUNTS
from scimill.bench.params import PlanConfig, block_size_of
from scimill.parallel.world import World

ROW_BYTES = 160


def companion_file(name: str, key: str, values: NDArray[np.generic]) -> DataFile:
    """Make a small .npz file of one array, as the trainer expects it."""
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **{key: values})
    return DataFile(name, 0, (KnownBytes(file.getvalue()),))


def feature_counts_file() -> DataFile:
    """Make the file that holds the number of values of each category."""
    return companion_file("day_fea_count.npz", "counts", np.array(COUNTS, dtype=np.int32))


def make_plan(config: PlanConfig, request: int, world: World) -> DatasetPlan:
    """Plan ``<stem>_train.bin``, ``<stem>_test.bin`` and the file of value counts; or only ``preprocessed.bin``."""
    del world
    files = make_files(config, request)
    return DatasetPlan(files, block_size_of(config))


def make_files(config: PlanConfig, request: int) -> tuple[DataFile, ...]:
    """Make files of the requested total size."""
    if config.binary_name == "preprocessed":
        rows = fit_count(lambda rows: rows * ROW_BYTES, request, config.fit, "row", ROW_BYTES)
        return (_file(config, "preprocessed.bin", 0, rows),)
    counts = feature_counts_file()

    def total(training_rows: int) -> int:
        """Bytes with these rows for training and one for the test file."""
        return (training_rows + 1) * ROW_BYTES + counts.size

    rows = fit_count(total, request, config.fit, "row each for training and test", ROW_BYTES) + 1
    test = max(1, int(rows * config.evaluation_share))
    stem = config.binary_name
    train = _file(config, f"{stem}_train.bin", 0, rows - test)
    held_out = dataclasses.replace(_file(config, f"{stem}_test.bin", rows - test, test), is_held_out=True)
    return (train, held_out, counts)


def _file(config: PlanConfig, name: str, first: int, rows: int) -> DataFile:
    return DataFile(name, rows, (dlrm.columns(config, "<i4", dlrm.ALL, first, rows),))
