"""Export trained networks to other programs."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scimill.droplets import origin
from scimill.droplets.learning import c_source, fortran
from scimill.droplets.learning.models import load_model
from scimill.droplets.learning.network import AnyPrecision, DropletNetwork, WithRange, cast, clear, example
from scimill.errors import ConfigError
from scimill.files import check_target, replacing
from scimill.training.export import compile_script, to_onnx, to_torchscript, trace
from scimill.version import __version__

SUFFIXES = {"torchscript": ".pt", "onnx": ".onnx", "fortran": ".f90", "c": ".c"}
NAMES = ("droplets", "outcome", "in_range")
AXES = {0: "droplets"}


def export(model_path: Path, path: Path, form: str, *, precision: str, zero: bool, overwrite: bool) -> str:
    """Write a network for another program.

    Parameters
    ----------
    model_path : a run directory or a model file.
    path : the file to write.
    form : "torchscript", "onnx", "fortran" or "c".
    precision : "float64", or "float32" for a network that is twice as fast and differs by about 1e-5. With ONNX, also
        the precision of inputs and outputs; all other formats take both.
    zero : whether to set all weights to zero, to test the calling program.
    overwrite : whether to replace an existing file.

    Returns
    -------
    A description of the exported network.

    Raises
    ------
    ConfigError : the file name is not a valid name of a Fortran module or of functions in C.
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
    _write(model, path, form, precision, about)
    kind = f"{model.spec.network} network" + (" with zero weights" if zero else "")
    return f"{kind} as {form}, trained on {about['trained on']}"


def choose_format(path: Path, form: str | None) -> str:
    """Return the format that a user asked for, or that follows from the name of the file.

    Raises
    ------
    ConfigError : no format is given, and none follows from the name.

    """
    if form:
        return form
    for known, suffix in SUFFIXES.items():
        if path.suffix.lower() == suffix:
            return known
    raise ConfigError(
        "the format does not follow from the name of the file", where=str(path),
        allowed=f"names ending in {', '.join(SUFFIXES.values())}", remedy=f"add --format: {', '.join(SUFFIXES)}",
    )  # fmt: skip


def _write(model: DropletNetwork, path: Path, form: str, precision: str, about: Mapping[str, str]) -> None:
    if form == "torchscript":
        script = compile_script(AnyPrecision(trace(WithRange(model), example(model))))
        to_torchscript(script, example(model), path, about)
    elif form == "onnx":
        droplets = cast(example(model), precision)
        to_onnx(WithRange(model), droplets, path, about, NAMES, AXES)
    else:
        make = fortran.make_module if form == "fortran" else c_source.make_source
        text = make(model, path, about)
        with replacing(path, "source code") as part:
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
