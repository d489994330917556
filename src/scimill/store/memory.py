"""Reusable memory for the blocks of a store."""

import itertools
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from scimill.store.direct import aligned
from scimill.store.layout import Layout

Arrays = dict[str, NDArray[Any]]


def block_memory(layout: Layout) -> Callable[[int], Arrays]:
    """Return a function that gives arrays by field for a number of rows, valid until the second next call.

    Allocating memory costs as much as filling it. Two sets alternate, because the writer may still be writing the last
    block. Each field begins at a page, so that it can be written past the page cache.
    """
    blocks = itertools.cycle([_arrays(layout), _arrays(layout)])
    return lambda count: {name: rows[:count] for name, rows in next(blocks).items()}


def _arrays(layout: Layout) -> Arrays:
    return {
        field.name: aligned(layout.block_rows * field.row_bytes).view(field.dtype).reshape(-1, *field.shape)
        for field in layout.fields
    }
