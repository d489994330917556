"""Sampling stores, on a disk or only planned: values of some blocks, shapes of all cases."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scimill.bench.formats.hdf5.read import workload_of
from scimill.bench.formats.hdf5.read_cases import cases_of
from scimill.bench.formats.hdf5.write import make_store_plan
from scimill.bench.formats.imseg_npy.cases import make_cases
from scimill.bench.params import PlanConfig
from scimill.store.layout import Layout
from scimill.store.reader import Reader

BLOCKS = 16  # most blocks in a sample
VALUES = 1 << 15  # most values of a field per block

Values = NDArray[Any]
Rows = Callable[[int, str], Values]
Shape = tuple[int, int, int]
SampledFields = tuple[NDArray[np.int64], dict[str, Values]]
"""Bytes of the records, and values by field; a field of several columns counts as one."""


def sample_store(path: Path, random: np.random.Generator) -> SampledFields:
    """Sample a finished store.

    Raises
    ------
    InputError : the file is not a store, or an unfinished one.
    StorageError : its structure is damaged.

    """
    with Reader.open(path) as reader:
        reader.require_complete()
        is_imseg = workload_of(reader.layout) == "imseg"
        shapes = [case.shape for case in cases_of(reader)] if is_imseg else []
        return _sample_blocks(reader.layout, reader.rows, shapes, random)


def sample_plan(config: PlanConfig, request: int, random: np.random.Generator) -> SampledFields:
    """Sample a planned store of `request` bytes of data; only the sampled blocks are generated."""
    plan = make_store_plan(config, request)
    block_data = lru_cache(maxsize=1)(plan.make)
    is_imseg = config.workload == "imseg"
    shapes = [case.shape for case in make_cases(config, request, header_bytes=0)] if is_imseg else []
    return _sample_blocks(plan.layout, lambda block, name: block_data(block).fields[name], shapes, random)


def _sample_blocks(layout: Layout, rows: Rows, shapes: Sequence[Shape], random: np.random.Generator) -> SampledFields:
    """Sample the values of some random blocks."""
    fields: dict[str, list[Values]] = {field.name: [] for field in layout.fields}
    for block in np.unique(random.integers(0, layout.blocks, BLOCKS)).tolist():
        for name, values in fields.items():
            values.append(_thin(rows(block, name), random))
    found = {name: np.concatenate(values) for name, values in fields.items()}
    row_bytes = sum(field.row_bytes for field in layout.fields)
    if not shapes:
        return np.array([row_bytes]), found
    edges = np.array(shapes, dtype=np.int64)
    return row_bytes * edges.prod(axis=1), {**found, "depth": edges[:, 0], "width": edges[:, 2]}


def _thin(rows: Values, random: np.random.Generator) -> Values:
    """Return a copy of at most `VALUES` of the values; their memory is reused."""
    values: Values = rows.reshape(-1)
    return values.copy() if values.size <= VALUES else random.choice(values, VALUES)
