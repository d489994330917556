"""Rows of dlrm: the distributions of their values, and columns of rows as bytes."""

from collections.abc import Callable
from functools import cache, partial

import numpy as np

from scimill.bench import CAMPAIGN
from scimill.bench.dataset.plan import FixedLengthRecords
from scimill.bench.kernels import clicks
from scimill.bench.kernels.clicks import CATEGORIES, INTEGERS, Distribution, Tile
from scimill.bench.kernels.counter import stream_key
from scimill.bench.params import PlanConfig
from scimill.store.direct import Bytes

ROWS = 20  # random stream
TILE_ROWS = 64  # 30 KB for all columns, which fit in the L1 cache
LABEL, DENSE, SPARSE = (0, 1), (1, 1 + INTEGERS), (1 + INTEGERS, 1 + INTEGERS + CATEGORIES)
"""Columns [begin, end) of a row."""
ALL = (0, SPARSE[1])
NAMES = ("label", *(f"int_{i}" for i in range(INTEGERS)), *(f"cat_{i}" for i in range(CATEGORIES)))
"""Names of the columns in tables."""


@cache
def distribution(ids: str, missing: float, *, is_text: bool = False) -> Distribution:
    """Return the distribution of values; text has its own range of integers and 32-bit hashes as categories."""
    text_range = clicks.TEXT_RANGE if ids == "uniform" else clicks.RARE_RANGE
    integers = text_range if is_text else clicks.INTEGER_RANGE
    categories = [2**32] * CATEGORIES if is_text and ids == "uniform" else clicks.COUNTS
    ranges = np.array([2, *[integers] * INTEGERS, *categories], dtype=np.uint64)
    return Distribution(ranges, ids == "skewed", np.uint64(round(missing * 65536)))


@cache
def key(seed: int) -> np.uint64:
    """Key of the random stream of the rows."""
    return stream_key(seed, CAMPAIGN.number, ROWS)


def columns(config: PlanConfig, dtype: str, span: tuple[int, int], first: int, count: int) -> FixedLengthRecords:
    """Return a segment of `count` rows, starting at row `first`, with the columns of a span; row by row."""
    width, item = span[1] - span[0], np.dtype(dtype).itemsize
    return FixedLengthRecords(count * width * item, width * item, encoder(config, dtype, span, first))


def encoder(config: PlanConfig, dtype: str, span: tuple[int, int], first: int) -> Callable[[Bytes, int, int], None]:
    """Return the function that makes the rows of a segment that starts at row `first`; see `FixedLengthRecords`."""
    return partial(_encode, key(config.seed), distribution(config.ids, config.missing), dtype, span, first)


def _encode(
    stream: np.uint64, values: Distribution, dtype: str, span: tuple[int, int], first: int,
    out: Bytes, begin: int, count: int,
) -> None:  # fmt: skip
    if values.is_skewed or values.missing:
        clicks.fill_rows(out.view(dtype).reshape(count, span[1] - span[0]), stream, first + begin, span[0], values)
    elif np.dtype(dtype) == np.int32 and span[0] % 2 == span[1] % 2 == 0:
        clicks.uniform_pairs(out.view(np.uint64), stream, first + begin, _tile(span, tuple(values.ranges), True))
    else:
        clicks.uniform_values(out.view(dtype), stream, first + begin, _tile(span, tuple(values.ranges), False))


@cache
def _tile(span: tuple[int, int], ranges: tuple[np.uint64, ...], in_pairs: bool) -> Tile:
    return clicks.tile(np.array(ranges[slice(*span)]), span[0], TILE_ROWS, in_pairs=in_pairs)
