"""The .npy triplets of DLRMv2 (torchrec): dense, sparse and labels of each file."""

from scimill.bench.dataset.plan import DataFile, Fixed, Plan, fit_count, shares
from scimill.bench.formats import dlrm
from scimill.bench.formats.imseg_npy.write import header
from scimill.bench.params import Plannable, block_size_of
from scimill.parallel.world import World

ARRAYS = (("dense", "<f4", dlrm.DENSE), ("sparse", "<i4", dlrm.SPARSE), ("labels", "<i4", dlrm.LABEL))


def plan(config: Plannable, request: int, world: World) -> Plan:
    """Plan ``day_0_dense.npy`` (float32), ``day_0_sparse.npy`` and ``day_0_labels.npy`` (int32) and so on."""
    del world
    most = config.rows_per_file

    def total(rows: int) -> int:
        """Bytes of so many rows; a header has the same length for any number."""
        return rows * 160 + -(-rows // most) * sum(len(header((most, 1), dtype)) for _, dtype, _ in ARRAYS)

    rows = fit_count(total, request, config.fit, "row", 160)
    files = [
        _file(config, number, name, dtype, span, part)
        for number, part in enumerate(shares(rows, most))
        for name, dtype, span in ARRAYS
    ]
    return Plan(tuple(files), block_size_of(config))


def _file(config: Plannable, number: int, name: str, dtype: str, span: tuple[int, int], rows: int) -> DataFile:
    content = dlrm.columns(config, dtype, span, number * config.rows_per_file, rows)
    start = Fixed(header((rows, span[1] - span[0]), dtype))
    return DataFile(f"day_{number}_{name}.npy", rows if name == "labels" else 0, (start, content))
