"""Correction models from wherever they are: a run, an exported file, a database."""

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

SPEC = "network"  # title under which an exported model has its spec


def load_network(path: Path) -> tuple[CorrectionNetwork, Mapping[str, Any]]:
    """Read a trained network.

    Parameters
    ----------
    path : a run directory, of which the best model is taken, or a model's file.

    Returns
    -------
    The network, and what its file says of where it comes from.

    Raises
    ------
    InputError : no model, damaged, or of another campaign.

    """
    file, content = read_model(path, CAMPAIGN.name)
    network = CorrectionNetwork(_spec(content["network"], str(file)))
    network.load_state_dict(content["state"])
    return network.eval(), content


@dataclasses.dataclass(frozen=True)
class Correction:
    """A correction model, opened for a run."""

    model: InferenceModel
    spec: CorrectionNetworkSpec
    identity: str
    """digest of what it computes with; of a database's model of where that comes from"""

    def close(self) -> None:
        """End what it has begun: a database's client."""
        if isinstance(self.model, RedisModel):
            self.model.close()


def open_correction(name: str, rank: int = 0) -> Correction:
    """Open a correction model for a run.

    Parameters
    ----------
    name : a run directory, its model.pt, a file of ``scimill turbulence export``, or redis://host:port/key.
    rank : whose tensors a database gets.

    Raises
    ------
    InputError : no model, damaged, or of another campaign.
    ConfigError : what it needs is not installed.
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
    """Return the spec of an exported model, from what it says of itself."""
    try:
        values = json.loads(about[SPEC])
    except (KeyError, ValueError):
        allowed = "one of scimill turbulence export"
        raise InputError("the model does not say what it was trained on", where=name, allowed=allowed) from None
    return _spec(values, name)


def _spec(values: Mapping[str, Any], where: str) -> CorrectionNetworkSpec:
    if not isinstance(values, Mapping) or values.get("campaign") != CAMPAIGN.name:
        campaign = values.get("campaign", "another kind") if isinstance(values, Mapping) else "another kind"
        raise InputError(f"a model of {campaign}", where=where, allowed="one of scimill turbulence train or export")
    try:
        return CorrectionNetworkSpec.from_dict(values)
    except (KeyError, TypeError):
        raise InputError("the model's description is not complete", where=where) from None


def check_format(output: str, form: str) -> None:
    """Refuse what cannot be put into a database."""
    if redis_model.is_address(output) and form != "torchscript":
        raise ConfigError("RedisAI executes TorchScript", where=f"--format {form}", allowed="torchscript")
