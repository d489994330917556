"""Random streams. They belong to (seed, campaign, block), so the bytes do not depend on the number of ranks."""

import numpy as np


def block_stream(seed: int, campaign: int, block: int) -> np.random.Generator:
    """Return the stream of one block; streams of different blocks are independent (Philox, Salmon et al. 2011)."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(campaign, block))))


def campaign_stream(seed: int, campaign: int) -> np.random.Generator:
    """Return the stream for data that all blocks of a campaign share."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(campaign,))))
