"""Write the network as a self-contained C11 file."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from scimill.droplets.exchange.source_code import render
from scimill.droplets.learning.formulas import FORMS, INPUT_NAMES, C
from scimill.droplets.learning.network import DropletNetwork
from scimill.droplets.learning.sources import PACKAGE, common_values, cut, filled_layers, formulas
from scimill.errors import ConfigError

PER_LINE = 4  # numbers per line
NAME = re.compile(r"[a-z]\w{0,44}", re.ASCII | re.IGNORECASE)  # Fortran allows 63 characters, with the longest suffix


def make_source(model: DropletNetwork, path: Path, provenance: Mapping[str, str]) -> str:
    """Make the source code.

    Parameters
    ----------
    model : the network.
    path : the file to write; the names of all functions start with its name.
    provenance : origin of the model, by title.

    Raises
    ------
    ConfigError : the name is not allowed.

    """
    name = path.stem.replace("-", "_")
    if not NAME.fullmatch(name):
        allowed = "at most 45 letters, digits and _, starting with a letter"
        what = f"'{name}' cannot start the names of functions in C"
        raise ConfigError(what, where=str(path), allowed=allowed, remedy="choose another file name")
    values = common_values(model, provenance)
    return render(PACKAGE, "network.c.j2", FILTERS, {
        **values, **formulas(FORMS[model.spec.network], C, "{}[{}]", 0), "name": name,
        "layer_real": "float" if values["single"] else "double",
        "positions": {given: place for place, given in enumerate(INPUT_NAMES)},
        "layers": filled_layers(model),
    })  # fmt: skip


def _real(value: float) -> str:
    """Write a literal of 17 significant digits, enough to restore float64 exactly."""
    return f"{value:.16e}"


def _braced(values: Sequence[float]) -> str:
    """Write the elements of an array, several per line."""
    lines = [", ".join(_real(float(value)) for value in part) for part in cut(values, PER_LINE)]
    return "{\n    " + ",\n    ".join(lines) + "}"


def _nested(rows: Sequence[Sequence[float]]) -> str:
    return "{\n    " + ",\n    ".join(_braced(row) for row in rows) + "}"


def _text(text: str) -> str:
    """Write a string constant of any length."""
    return "\n".join(f'    "{part}"' for part in cut(text, 100))


FILTERS: Mapping[str, Callable[..., str]] = {"real": _real, "braced": _braced, "nested": _nested, "text": _text}
