"""Correction models from a run directory, an exported file or a database."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scimill.errors import ConfigError, InputError
from scimill.training.checkpoint import read_model
from scimill.training.files import MODEL
from scimill.training.inference import InferenceModel, TorchModel, is_torchscript, open_model
from scimill.turbulence import CAMPAIGN
from scimill.turbulence.learning import redis_model
from scimill.turbulence.learning.network import CorrectionNetwork, CorrectionNetworkSpec
from scimill.turbulence.learning.redis_model import RedisModel

SPEC = "network"  # title of the spec in an exported model


def load_network(path: Path) -> tuple[CorrectionNetwork, Mapping[str, Any]]:
    """Read a trained network.

    Parameters
    ----------
    path : a run directory, whose best model is read, or a model file.

    Returns
    -------
    The network, and the content of its file.

    Raises
    ------
    InputError : missing, not a model, damaged, or of another campaign.

    """
    file, content = read_model(path, CAMPAIGN.name)
    network = CorrectionNetwork(_spec(content["network"], str(file)))
    network.load_state_dict(content["state"])
    return network.eval(), content


@dataclasses.dataclass(frozen=True)
class Correction:
    """A correction model that is open for a run."""

    model: InferenceModel
    spec: CorrectionNetworkSpec
    identity: str
    """SHA-256 of the model file; for a model in a database, of the description of its origin"""

    def close(self) -> None:
        """Close the client of a database, if there is one."""
        if isinstance(self.model, RedisModel):
            self.model.close()


def open_correction(name: str, rank: int = 0) -> Correction:
    """Open a correction model for a run.

    Parameters
    ----------
    name : a run directory, its model.pt, a file written by ``scimill turbulence export``, or redis://host:port/key.
    rank : the rank, which names its tensors in a database.

    Raises
    ------
    InputError : missing, not a model, damaged, or of another campaign.
    ConfigError : a package that it needs is not installed.
    """
    if redis_model.is_address(name):
        database = RedisModel(name, rank).open()
        return Correction(database, read_spec(database.about, name), _digest(json.dumps(database.about).encode()))
    path = Path(name)
    if _is_run(path):
        network, _ = load_network(path)
        file = path / MODEL if path.is_dir() else path
        return Correction(TorchModel(network, {}), network.spec, _digest(file.read_bytes()))
    model = open_model(path)
    return Correction(model, read_spec(model.about, name), _digest(path.read_bytes()))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _is_run(path: Path) -> bool:
    return path.is_dir() or (path.suffix == ".pt" and not is_torchscript(path))


def read_spec(about: Mapping[str, str], name: str) -> CorrectionNetworkSpec:
    """Return the spec of an exported model from its description."""
    try:
        values = json.loads(about[SPEC])
    except (KeyError, ValueError):
        allowed = "a model written by scimill turbulence export"
        raise InputError("the model has no record of its training conditions", where=name, allowed=allowed) from None
    return _spec(values, name)


def _spec(values: Mapping[str, Any], where: str) -> CorrectionNetworkSpec:
    if not isinstance(values, Mapping) or values.get("campaign") != CAMPAIGN.name:
        campaign = values.get("campaign", "unknown") if isinstance(values, Mapping) else "unknown"
        allowed = "a model written by scimill turbulence train or export"
        raise InputError(f"this is not a turbulence model; its campaign is {campaign}", where=where, allowed=allowed)
    try:
        return CorrectionNetworkSpec.from_dict(values)
    except (KeyError, TypeError):
        raise InputError("the description of the model is incomplete", where=where) from None


def check_format(output: str, form: str) -> None:
    """Refuse a format that a database cannot run."""
    if redis_model.is_address(output) and form != "torchscript":
        raise ConfigError(f"RedisAI cannot run {form} models", where="flag --format", allowed="torchscript")
