"""Load trained networks."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from scimill.sky import CAMPAIGN
from scimill.sky.learning.network import SkyNetwork, load_network
from scimill.training.checkpoint import read_model


class TrainedModel(NamedTuple):
    """Trained branches, the content of their file, and a checksum of the file."""

    model: SkyNetwork
    about: Mapping[str, Any]
    identity: str


def load_model(path: Path) -> TrainedModel:
    """Load trained branches from a run directory (its best model) or a model file.

    Raises
    ------
    InputError : the model does not exist, is damaged, or is of another campaign.

    """
    file, content = read_model(path, CAMPAIGN.name)
    identity = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    return TrainedModel(load_network(content["network"], content["state"]), content, identity)
