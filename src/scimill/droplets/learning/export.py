"""Export trained networks to other programs."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scimill.droplets import origin
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
    model_path : a run directory or a model file.
    path : the file to write.
    form : "torchscript", "onnx" or "fortran".
    precision : "float64", or "float32" for a network that is twice as fast and differs by about 1e-5.
    zero : whether to set all weights to zero, to test the calling program.
    overwrite : whether to replace an existing file.

    Returns
    -------
    A description of the exported network.

    Raises
    ------
    ConfigError : the file name is not a valid name of a Fortran module.
    InputError : not a model.
    StorageError : the file exists, or cannot be written.

    """
    check_target(path, overwrite=overwrite)
    model, content = load_model(model_path)
    about = _about(content, zero)
    if zero:
        clear(model)
    if precision == "float32":
        model.float()
    _write(model, path, form, about)
    kind = f"{model.spec.network} network" + (" with zero weights" if zero else "")
    return f"{kind} as {form}, trained on {about['trained on']}"


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
    """Describe the origin of a model, by title."""
    store, position = content["store"], content["position"]
    stored = origin.read_stored(store["config"])
    made = "imported" if origin.is_imported(stored) else f"seed {store['seed']}"
    loss = position["best_loss"]
    return {
        "scimill": __version__,
        "network": json.dumps(content["network"]["hidden"]) + (", all weights zero" if zero else ""),
        "trained on": f"{store['rows']:,} droplets of {Path(store['path']).name}, {made}",
        "physics": origin.describe_physics(stored),
        "store": store["identity"],
        "epoch": str(position["best_epoch"]),
        "validation loss": f"{loss:.6g}" if math.isfinite(loss) else "none",
        "date": str(content["environment"]["date"]),
    }
