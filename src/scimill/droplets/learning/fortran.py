"""Write the network as a self-contained Fortran 2008 module."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from scimill.droplets.learning.network import (
    LARGEST_EXPONENT,
    MODEL_INPUTS,
    SHARPNESS,
    SMALLEST_SOLUTE,
    SPREAD,
    DropletNetwork,
    constants,
    scaling,
    weights,
)
from scimill.droplets.origin import UNKNOWN
from scimill.errors import ConfigError
from scimill.version import __version__

PER_LINE = 4  # numbers per line; a line has at most 132 characters
PER_PART = 512  # numbers per statement; Fortran 2008 allows 255 continuation lines
LIMITS = {
    "sharpness": SHARPNESS, "spread": SPREAD, "largest_exponent": LARGEST_EXPONENT, "smallest_solute": SMALLEST_SOLUTE,
}  # fmt: skip
NAME = re.compile(r"[a-z]\w{0,62}", re.ASCII | re.IGNORECASE)


def make_module(model: DropletNetwork, path: Path, module: str, provenance: Mapping[str, str]) -> str:
    """Make the source code of the module.

    Parameters
    ----------
    model : the network.
    path : the file to write, for messages.
    module : name of the module.
    provenance : origin of the model, by title.

    Raises
    ------
    ConfigError : the name is not allowed in Fortran, or is used inside the module.

    """
    if not NAME.fullmatch(module):
        allowed = "at most 63 letters, digits and _, starting with a letter"
        what = f"'{module}' is not a valid name of a Fortran module"
        raise ConfigError(what, where=str(path), allowed=allowed, remedy="choose another file name")
    layers = weights(model)
    centre, half_width, units = scaling(model)
    text = _environment().get_template("network.f90.j2").render(
        spec=model.spec,
        version=__version__,
        module=module,
        kind="real64" if layers[0][0].dtype == np.float64 else "real32",
        provenance=[_comment(f"{title}: {text}") for title, text in provenance.items()],
        origin=_ascii("; ".join(f"{title}: {text}" for title, text in provenance.items())),
        is_physics_known=not provenance.get("physics", "").startswith(UNKNOWN),
        ranges=list(zip(MODEL_INPUTS, model.spec.ranges, strict=True)),
        parameters=sum(weight.size + bias.size for weight, bias in layers),
        constants=[*constants(model.spec).items(), *LIMITS.items()],
        centre=centre, half_width=half_width, units=units,
        layers=[_layer(number, *layer) for number, layer in enumerate(layers, 1)],
    )  # fmt: skip
    code = re.sub(r'!.*|".*"', "", text)
    if len(re.findall(rf"\b{module}\b", code, re.IGNORECASE)) > 2:  # first and last line of the module
        what = f"the name {module} is already used inside the module"
        raise ConfigError(what, where=str(path), remedy="choose another file name")
    return text


def _layer(number: int, weight: Any, bias: Any) -> dict[str, Any]:
    """Prepare a layer for the template; weight (outputs, inputs) is (inputs, outputs) in Fortran."""
    outputs, inputs = weight.shape
    return {
        "number": number, "inputs": inputs, "outputs": outputs,
        "weights": _parts(f"part{number}", weight), "biases": _parts(f"bias_part{number}", bias),
    }  # fmt: skip


def _parts(name: str, values: Any) -> list[dict[str, Any]]:
    """Split an array into statements that Fortran accepts."""
    parts = enumerate(_cut(values.reshape(-1).tolist(), PER_PART), 1)
    return [{"name": f"{name}_{index}", "numbers": numbers} for index, numbers in parts]


def _environment() -> jinja2.Environment:
    loader = jinja2.PackageLoader("scimill.droplets.learning", "templates")
    layout: Any = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    environment = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, **layout)
    environment.filters |= {"real": _real, "rows": _rows, "folded": _folded, "text": _text}
    return environment


def _real(value: float, kind: str = "wp") -> str:
    """Write a literal of 17 significant digits, enough to restore float64 exactly."""
    return f"{value:.16e}_{kind}"


def _rows(values: Sequence[float], kind: str) -> str:
    """Write the elements of an array constructor, several per line."""
    lines = [", ".join(_real(value, kind) for value in part) for part in _cut(values, PER_LINE)]
    return ", &\n".join(f"    {line}" for line in lines)


def _cut(values: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for first in range(0, len(values), size):
        yield values[first : first + size]


def _folded(names: str) -> str:
    return ", &\n    ".join(", ".join(part) for part in _cut(names.split(", "), 8))


def _ascii(text: str) -> str:
    """Make one line of ASCII without double quotes, which end a Fortran string."""
    return " ".join(text.split()).encode("ascii", "replace").decode().replace('"', "'")


def _comment(text: str) -> str:
    """Truncate a comment to fit into Fortran's 132 columns."""
    return _ascii(text)[:118]


def _text(text: str) -> str:
    """Write a string constant of any length."""
    return " // &\n".join(f'    "{part}"' for part in _cut(text, 100))
