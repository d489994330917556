"""Trained corrections for other programs, and for databases."""

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
DYNAMIC_AXES = (0, 2, 3)  # axes of any length: states, x, y


def export(model_path: Path, output: str, form: str, *, zero: bool, overwrite: bool) -> str:
    """Write a network for another program.

    The input of what is written, (n, 3, x + 2 radius, y + 2 radius), has halos of the receptive radius; the output is
    (n, 2, x, y), not yet limited to the band. So one file serves slabs of any size.

    Parameters
    ----------
    model_path : a run directory or a model's file.
    output : the file to write, or redis://host:port/key.
    form : "torchscript" or "onnx".
    zero : whether to write a network without weights, for tests of the wiring.
    overwrite : whether to replace a file that is there.

    Returns
    -------
    What it is, in words.

    Raises
    ------
    InputError : no model, or no database.
    StorageError : it exists, or cannot be written.
    ConfigError : a database, but no TorchScript.

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
    return f"{form} of a {kind} of radius {model.spec.radius} ({about['trained on']})"


def _write(model: CorrectionNetwork, output: str, form: str, about: Mapping[str, str]) -> None:
    if is_address(output):
        with RedisModel(output) as database:
            database.store(torchscript(model, example(model), about), about)
    elif form == "torchscript":
        to_torchscript(model, example(model), Path(output), about)
    else:
        to_onnx(model, example(model), Path(output), about, NAMES, DYNAMIC_AXES)


def _about(content: Mapping[str, Any], *, zero: bool) -> dict[str, str]:
    """Where a model comes from, by title; its spec is what a run checks it by."""
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
