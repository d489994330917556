"""kill -9 in each action on a database; tests/faults/atoms_campaign.py kills at many more lines."""

import numpy as np
import pytest

from faults.atoms_campaign import ACTIONS, Campaign

KILLS = 4  # per action


@pytest.mark.parametrize("name", ACTIONS)
def test_nothing_is_lost_or_duplicated(tmp_path, name):
    campaign = Campaign(tmp_path, name)
    assert campaign.lines > 100
    for line in np.random.default_rng(2).integers(1, campaign.lines + 1, KILLS).tolist():
        assert campaign.kill(line) == []
