"""CRC-32C of data and of ledger rows."""

from collections.abc import Mapping

import numpy as np
from crc32c import crc32c
from numpy.typing import ArrayLike, NDArray

from scimill.store.layout import Layout


def bytes_checksum(rows: NDArray[np.generic], value: int) -> int:
    """Continue the checksum `value` over an array's bytes."""
    return int(crc32c(rows.reshape(-1).view(np.uint8).data, value)) if rows.size else value


def row_checksum(layout: Layout, block: int, row: Mapping[str, ArrayLike]) -> int:
    """Checksum of a ledger row: the block's number, then every column but this one."""
    value = int(crc32c(np.int64(block).tobytes()))
    for column in layout.columns:
        if column.name != "row_crc32c":
            value = int(crc32c(np.asarray(row[column.name], dtype=column.dtype).tobytes(), value))
    return value
