"""Trained networks from their files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scimill.errors import InputError
from scimill.sky.network import SkyNetwork, load_network
from scimill.sky.params import CAMPAIGN_NAME
from scimill.training.checkpoint import MODEL, read_tensors


def load_model(path: Path) -> tuple[SkyNetwork, Mapping[str, Any]]:
    """Read trained branches from a run directory, of which the best model is taken, or a model's file.

    Raises
    ------
    InputError : no model, damaged, or of another campaign.

    """
    file = path / MODEL if path.is_dir() else path
    content = read_tensors(file, "model")
    campaign = content["network"]["campaign"]
    if campaign != CAMPAIGN_NAME:
        raise InputError(f"a model of {campaign}", where=str(file), allowed="one of scimill sky train")
    return load_network(content["network"], content["state"]), content
