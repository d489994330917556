"""Which rank does which blocks."""

import numpy as np
from numpy.typing import NDArray


def share(blocks: NDArray[np.int64], rank: int, size: int) -> NDArray[np.int64]:
    """Blocks of one rank: every size-th, so that cheap and dear regions of a campaign even out over the ranks."""
    return blocks[rank::size]
