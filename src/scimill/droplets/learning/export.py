"""Trained networks for other programs."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scimill.droplets.learning import fortran
from scimill.droplets.learning.models import load_model
from scimill.droplets.learning.network import DropletNetwork, clear, example
from scimill.files import check_target, replacing
from scimill.training.export import to_onnx, to_torchscript
from scimill.version import __version__

SUFFIXES = {"torchscript": ".pt", "onnx": ".onnx", "fortran": ".f90"}
NAMES = ("droplets", "outcome")


def export(model_path: Path, path: Path, form: str, *, precision: str, zero: bool, overwrite: bool) -> str:
    """Write a network for another program.

    Parameters
    ----------
    model_path : a run directory or a model's file.
    path : the file to write.
    form : "torchscript", "onnx" or "fortran".
    precision : "float64", or "float32" for a network that is twice as fast and differs by some 1e-5.
    zero : whether to write a network without weights, for tests of the wiring.
    overwrite : whether to replace a file that is there.

    Returns
    -------
    What it is, in words.

    Raises
    ------
    InputError : no model.
    StorageError : it exists, or cannot be written.

    """
    check_target(path, overwrite=overwrite)
    model, content = load_model(model_path)
    about = _about(content, zero)
    if zero:
        clear(model)
    if precision == "float32":
        model.float()
    _write(model, path, form, about)
    return f"{form} of a {'zero ' if zero else ''}network {model.spec.network} ({about['trained on']})"


def _write(model: DropletNetwork, path: Path, form: str, about: Mapping[str, str]) -> None:
    if form == "torchscript":
        to_torchscript(model, example(model), path, about)
    elif form == "onnx":
        to_onnx(model, example(model), path, about, NAMES)
    else:
        text = fortran.make_module(model, path, path.stem.replace("-", "_"), about)
        with replacing(path, "module") as part:
            part.write_text(text, "ascii")


def _about(content: Mapping[str, Any], zero: bool) -> dict[str, str]:
    """Where a model comes from, by title."""
    store, position = content["store"], content["position"]
    loss = position["best_loss"]
    return {
        "scimill": __version__,
        "network": json.dumps(content["network"]["hidden"]) + (", all weights zero" if zero else ""),
        "trained on": f"{store['rows']:,} droplets of {Path(store['path']).name}, seed {store['seed']}",
        "store": store["identity"],
        "epoch": str(position["best_epoch"]),
        "validation loss": f"{loss:.6g}" if math.isfinite(loss) else "none",
        "date": str(content["environment"]["date"]),
    }
