"""Samples of stores, of a file on a disk or of a planned one: values of some blocks, shapes of all cases."""

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

BLOCKS = 16  # most blocks of a sample
VALUES = 1 << 15  # of a field in a block

Values = NDArray[Any]
Rows = Callable[[int, str], Values]
Shape = tuple[int, int, int]
SampledFields = tuple[NDArray[np.int64], dict[str, Values]]
"""Bytes of the records, values by field; a field of several columns counts as a whole."""


def on_disk(path: Path, random: np.random.Generator) -> SampledFields:
    """Sample a finished store.

    Raises
    ------
    InputError : no store, or an unfinished one.
    StorageError : its structure is damaged.

    """
    with Reader.open(path) as reader:
        reader.require_complete()
        is_imseg = workload_of(reader.layout) == "imseg"
        shapes = [case.shape for case in cases_of(reader)] if is_imseg else []
        return _sample_blocks(reader.layout, reader.rows, shapes, random)


def planned(config: PlanConfig, request: int, random: np.random.Generator) -> SampledFields:
    """Sample a store that would have `request` bytes of data, of which only these blocks are made."""
    plan = make_store_plan(config, request)
    block_data = lru_cache(maxsize=1)(plan.make)
    is_imseg = config.workload == "imseg"
    shapes = [case.shape for case in make_cases(config, request, header_bytes=0)] if is_imseg else []
    return _sample_blocks(plan.layout, lambda block, name: block_data(block).fields[name], shapes, random)


def _sample_blocks(layout: Layout, rows: Rows, shapes: Sequence[Shape], random: np.random.Generator) -> SampledFields:
    """Sample some blocks, one after the other."""
    fields: dict[str, list[Values]] = {field.name: [] for field in layout.fields}
    for block in np.unique(random.integers(0, layout.blocks, BLOCKS)).tolist():
        for name, values in fields.items():
            values.append(_thinned(rows(block, name), random))
    found = {name: np.concatenate(values) for name, values in fields.items()}
    row_bytes = sum(field.row_bytes for field in layout.fields)
    if not shapes:
        return np.array([row_bytes]), found
    edges = np.array(shapes, dtype=np.int64)
    return row_bytes * edges.prod(axis=1), {**found, "depth": edges[:, 0], "width": edges[:, 2]}


def _thinned(rows: Values, random: np.random.Generator) -> Values:
    """Some values of some rows, which are in memory that is used again."""
    values: Values = rows.reshape(-1)
    return values.copy() if values.size <= VALUES else random.choice(values, VALUES)
