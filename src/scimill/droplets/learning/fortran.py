"""Write the network as a self-contained Fortran 2008 module."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scimill.droplets.exchange.source_code import module_name, render, require_unused
from scimill.droplets.learning.formulas import FORMS, FORTRAN
from scimill.droplets.learning.network import DropletNetwork
from scimill.droplets.learning.sources import PACKAGE, FilledLayer, common_values, cut, filled_layers, formulas

PER_LINE = 4  # numbers per line; a line has at most 132 characters
PER_PART = 512  # numbers per statement; Fortran 2008 allows 255 continuation lines
WIDTH = 110  # of a wrapped statement, without its indentation


def make_module(model: DropletNetwork, path: Path, provenance: Mapping[str, str]) -> str:
    """Make the source code of the module.

    Parameters
    ----------
    model : the network.
    path : the file to write; the module has its name.
    provenance : origin of the model, by title.

    Raises
    ------
    ConfigError : the name is not allowed in Fortran, or is used inside the module.

    """
    module = module_name(path)
    values = common_values(model, provenance)
    kind = "real32" if values["single"] else "real64"
    text = render(PACKAGE, "network.f90.j2", FILTERS, {
        **values, **formulas(FORMS[model.spec.network], FORTRAN, "{}({})", 1), "module": module, "kind": kind,
        "layers": [_layer(layer) for layer in filled_layers(model)],
    })  # fmt: skip
    require_unused(module, text, path)
    return text


def _layer(layer: FilledLayer) -> dict[str, Any]:
    """Prepare a layer for the template; weight (inputs, outputs) is (outputs, inputs) in Fortran."""
    return {
        "number": layer.number, "inputs": layer.inputs, "outputs": layer.outputs,
        "columns": layer.columns, "rows": layer.rows,
        "weights": _parts(f"part{layer.number}", layer.weight),
        "biases": _parts(f"bias_part{layer.number}", layer.bias),
    }  # fmt: skip


def _parts(name: str, values: Any) -> list[dict[str, Any]]:
    """Split an array into statements that Fortran accepts."""
    parts = enumerate(cut(values.reshape(-1).tolist(), PER_PART), 1)
    return [{"name": f"{name}_{index}", "numbers": numbers} for index, numbers in parts]


def _real(value: float, kind: str = "wp") -> str:
    """Write a literal of 17 significant digits, enough to restore float64 exactly."""
    return f"{value:.16e}_{kind}"


def _rows(values: Sequence[float], kind: str) -> str:
    """Write the elements of an array constructor, several per line."""
    lines = [", ".join(_real(value, kind) for value in part) for part in cut(values, PER_LINE)]
    return ", &\n".join(f"    {line}" for line in lines)


def _wrapped(statement: str) -> str:
    return " &\n        ".join(textwrap.wrap(statement, WIDTH, break_long_words=False, break_on_hyphens=False))


def _text(text: str) -> str:
    """Write a string constant of any length."""
    return " // &\n".join(f'    "{part}"' for part in cut(text, 100))


FILTERS: Mapping[str, Callable[..., str]] = {"real": _real, "rows": _rows, "wrapped": _wrapped, "text": _text}
