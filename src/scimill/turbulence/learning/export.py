"""Export of trained corrections to other programs and databases."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scimill.files import check_target
from scimill.training.export import to_onnx, to_torchscript, torchscript
from scimill.turbulence.learning.models import SPEC, check_format, load_network
from scimill.turbulence.learning.network import CorrectionNetwork, clear, example
from scimill.turbulence.learning.redis_model import RedisModel, is_address
from scimill.version import __version__

NAMES = ("state", "correction")
FREE_AXES = {0: "states", 2: "x", 3: "y"}  # of any length


def export(model_path: Path, output: str, form: str, *, zero: bool, overwrite: bool) -> str:
    """Export a network for another program.

    The input of the exported network, (n, 3, x + 2 radius, y + 2 radius), has halos as wide as the receptive radius, so
    one file works for slabs of any size. The output is (n, 2, x, y), not yet limited to the band.

    Parameters
    ----------
    model_path : a run directory or model file.
    output : the file to write, or redis://host:port/key.
    form : "torchscript" or "onnx".
    zero : whether to set all weights to zero, to test a coupling.
    overwrite : whether to replace an existing file.

    Returns
    -------
    A description of the exported network.

    Raises
    ------
    InputError : the model or the database is missing.
    StorageError : the output exists or cannot be written.
    ConfigError : the output is a database, and the format is not TorchScript.

    """
    check_format(output, form)
    if not is_address(output):
        check_target(Path(output), overwrite=overwrite)
    model, content = load_network(model_path)
    about = _about(content, zero=zero)
    if zero:
        clear(model)
    _write(model, output, form, about)
    kind = "zero network" if zero else "network"
    return f"{kind} as {form}, receptive radius {model.spec.radius}, trained on {about['trained on']}"


def _write(model: CorrectionNetwork, output: str, form: str, about: Mapping[str, str]) -> None:
    if is_address(output):
        with RedisModel(output) as database:
            database.store(torchscript(model, example(model), about), about)
    elif form == "torchscript":
        to_torchscript(model, example(model), Path(output), about)
    else:
        to_onnx(model, example(model), Path(output), about, NAMES, FREE_AXES)


def _about(content: Mapping[str, Any], *, zero: bool) -> dict[str, str]:
    """Describe the origin of a model, by title; runs check the model by its spec."""
    store, position = content["store"], content["position"]
    loss = position["best_loss"]
    return {
        "scimill": __version__,
        SPEC: json.dumps(content["network"]),
        "weights": "all zero" if zero else "trained",
        "trained on": f"{store['rows']:,} pairs of {Path(store['path']).name}, seed {store['seed']}",
        "store": store["identity"],
        "epoch": str(position["best_epoch"]),
        "validation loss": f"{loss:.6g}" if math.isfinite(loss) else "none",
        "date": str(content["environment"]["date"]),
    }
