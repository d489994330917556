"""Load trained networks from files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scimill.droplets import CAMPAIGN
from scimill.droplets.learning.network import DropletNetwork, DropletNetworkSpec
from scimill.training.checkpoint import read_model


def load_model(path: Path) -> tuple[DropletNetwork, Mapping[str, Any]]:
    """Read a trained network.

    Parameters
    ----------
    path : a run directory (its best model is loaded), or a model file.

    Returns
    -------
    The network in float64, and the content of its file, including its origin.

    Raises
    ------
    InputError : not a model, damaged, or of another campaign.

    """
    _, content = read_model(path, CAMPAIGN.name)
    model = DropletNetwork(DropletNetworkSpec.from_dict(content["network"]))
    model.load_state_dict(content["state"])
    return model.double().eval(), content
