"""Random streams belong to a seed, a campaign and a block, and to nothing else."""

import numpy as np

from scimill.parallel.streams import block_stream, campaign_stream


def test_each_seed_campaign_and_block_has_a_stream_of_its_own() -> None:
    makers = [lambda c=c, s=s: campaign_stream(s, c) for c in (1, 2) for s in (1, 2)]
    makers += [lambda c=c, s=s, b=b: block_stream(s, c, b) for c in (1, 2) for s in (1, 2) for b in (0, 1)]
    drawn = [make().random(8).tolist() for make in makers]
    assert drawn == [make().random(8).tolist() for make in makers]
    assert len(np.unique(drawn)) == 8 * len(makers)
