"""The .npy triplets of DLRMv2 (torchrec): one file each for dense features, sparse features and labels."""

from collections.abc import Iterable

from scimill.bench.dataset.plan import DataFile, DatasetPlan, FileSegment, KnownBytes, fit_count, records_per_file
from scimill.bench.formats import dlrm
from scimill.bench.formats.npy import npy_header
from scimill.bench.params import PlanConfig, block_size_of
from scimill.parallel.world import World

ARRAYS = (("dense", "<f4", dlrm.DENSE), ("sparse", "<i4", dlrm.SPARSE), ("labels", "<i4", dlrm.LABEL))


def make_plan(config: PlanConfig, request: int, world: World) -> DatasetPlan:
    """Plan ``day_0_dense.npy`` (float32), ``day_0_sparse.npy``, ``day_0_labels.npy`` (both int32), …."""
    del world
    most = config.rows_per_file

    def total(rows: int) -> int:
        """Bytes of a dataset of `rows` rows; the length of a header does not depend on the number of rows."""
        return rows * 160 + -(-rows // most) * sum(len(npy_header((most, 1), dtype)) for _, dtype, _ in ARRAYS)

    rows = fit_count(total, request, config.fit, "row", 160)
    files: list[DataFile] = []
    for number, part in enumerate(records_per_file(rows, most)):
        contents = [dlrm.columns(config, dtype, span, number * most, part) for _, dtype, span in ARRAYS]
        files += npy_files(number, part, contents)
    return DatasetPlan(tuple(files), block_size_of(config))


def npy_files(number: int, rows: int, contents: Iterable[FileSegment]) -> list[DataFile]:
    """Make the files of one triplet from their contents; the labels file counts the rows as its records."""
    files = []
    for (name, dtype, span), content in zip(ARRAYS, contents, strict=True):
        start = KnownBytes(npy_header((rows, span[1] - span[0]), dtype))
        files.append(DataFile(f"day_{number}_{name}.npy", rows if name == "labels" else 0, (start, content)))
    return files
