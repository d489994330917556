"""Memory for the blocks of a store that is used again and again."""

import itertools
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from scimill.store.direct import aligned
from scimill.store.layout import Layout

Arrays = dict[str, NDArray[Any]]


def block_memory(layout: Layout) -> Callable[[int], Arrays]:
    """Return what gives arrays for a block of so many rows, by field; they hold until the next call but one.

    Fresh memory costs as much as filling it. Two blocks take turns, as the writer may still be writing the one before;
    each field begins at a page, so that it can be written past the page cache.
    """
    blocks = itertools.cycle([_arrays(layout), _arrays(layout)])
    return lambda count: {name: rows[:count] for name, rows in next(blocks).items()}


def _arrays(layout: Layout) -> Arrays:
    return {
        field.name: aligned(layout.block_rows * field.row_bytes).view(field.dtype).reshape(-1, *field.shape)
        for field in layout.fields
    }
