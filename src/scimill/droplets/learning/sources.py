"""What the exports to Fortran and C have in common: the numbers of a network, its formulas, and pieces of text."""

import ast
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scimill.droplets.learning.formulas import FORMS, INPUT_NAMES, Form, Language, Steps, differentiate, steps_of, used
from scimill.droplets.learning.network import (
    LARGEST_EXPONENT,
    MODEL_INPUTS,
    RANGE_ROUNDING,
    SHARPNESS,
    SMALLEST_SOLUTE,
    SPREAD,
    DropletNetwork,
    constants,
    scaling,
    weights,
)
from scimill.droplets.origin import UNKNOWN
from scimill.version import __version__

PACKAGE = "scimill.droplets.learning"  # of the templates
LANES = 16  # droplets computed together; faster than 32
BLOCK = 4  # values of one layer computed together; the widths of layers are filled up to a multiple
UNROLLED = 8  # inputs of a layer that are added up in one statement
ENOUGH = 1000  # droplets that are worth starting threads: 0.2 ms of work
SQUARINGS = {"float64": 7, "float32": 5}  # of exp(x / 2**n); with the series in the templates, 1e-15 and 1e-8
LIMITS = {
    "sharpness": SHARPNESS, "spread": SPREAD, "largest_exponent": LARGEST_EXPONENT, "smallest_solute": SMALLEST_SOLUTE,
}  # fmt: skip
Assignments = list[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class FilledLayer:
    """A layer of a network, with zeros in the last rows and columns."""

    number: int
    inputs: int
    outputs: int
    weight: NDArray[Any]
    """(inputs, outputs) of the filled layer"""
    bias: NDArray[Any]

    @property
    def columns(self) -> int:
        """Inputs of the filled layer."""
        return int(self.weight.shape[0])

    @property
    def rows(self) -> int:
        """Outputs of the filled layer."""
        return int(self.weight.shape[1])


def filled_layers(model: DropletNetwork) -> list[FilledLayer]:
    """Return the layers; all widths but the number of outputs are multiples of BLOCK.

    Every activation maps 0 to 0, so the additional values stay 0.
    """
    found = weights(model)
    return [
        _filled(number, weight, bias, is_last=number == len(found)) for number, (weight, bias) in enumerate(found, 1)
    ]


def _filled(number: int, weight: NDArray[Any], bias: NDArray[Any], *, is_last: bool) -> FilledLayer:
    outputs, inputs = weight.shape
    rows = 0 if is_last else -outputs % BLOCK
    wide = np.pad(weight.T, ((0, -inputs % BLOCK), (0, rows)))
    return FilledLayer(number, inputs, outputs, wide, np.pad(bias, (0, rows)))


def common_values(model: DropletNetwork, provenance: Mapping[str, str]) -> dict[str, Any]:
    """Return the values that the templates of all languages need."""
    layers = filled_layers(model)
    centre, half_width, (radius_unit, temperature_unit) = scaling(model)
    known = {
        **constants(model.spec), **LIMITS, "middle_log_radius": centre[0], "middle_temperature": centre[1],
    }  # fmt: skip
    form = FORMS[model.spec.network]
    wanted, wanted_by_derivatives = used(steps_of(form)), used(differentiate(steps_of(form))[0])
    precision = str(layers[0].weight.dtype)
    return {
        "spec": model.spec, "version": __version__, "single": precision == "float32",
        "squarings": SQUARINGS[precision], "lanes": LANES, "block": BLOCK, "unrolled": UNROLLED, "enough": ENOUGH,
        "ranges": list(zip(MODEL_INPUTS, model.spec.ranges, strict=True)), "rounding": RANGE_ROUNDING,
        "limits": list(zip(INPUT_NAMES, MODEL_INPUTS, strict=True)),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "provenance": [comment(f"{title}: {text}") for title, text in provenance.items()],
        "origin": one_line("; ".join(f"{title}: {text}" for title, text in provenance.items())),
        "is_physics_known": not provenance.get("physics", "").startswith(UNKNOWN),
        "constants": [(name, value) for name, value in known.items() if name in wanted],
        "centre": centre, "scale": [1 / width for width in half_width],
        "units": [radius_unit * math.log(10.0), temperature_unit],
        "wanted": wanted | {*form.features, *form.base, *form.gate},
        "uses_arsinh": "arsinh" in wanted, "uses_step": "step" in wanted_by_derivatives,
    }  # fmt: skip


def formulas(form: Form, language: Language, element: str, first: int) -> dict[str, Any]:
    """Return the formulas of a form in a language, for templates.

    Parameters
    ----------
    form, language : what to write.
    element : format of an element of an array, with a place for its name and for its index, such as "{}({})".
    first : first index of arrays.

    """
    steps = steps_of(form)
    derived, slopes = differentiate(steps)
    arrays = {"f": form.features, "b": form.base, "g": form.gate}

    def results(index: str) -> Assignments:
        """Assign features, base and gate; `index` has a place for the index."""
        return [
            (element.format(array, index % place), name)
            for array, names in arrays.items()
            for place, name in enumerate(names, first)
        ]

    def derived_results(index: str) -> Assignments:
        """Assign the derivatives that are not 0; `index` has places for input and feature."""
        return [
            (element.format(f"d{array}", index % (given, place)), language.write(slope))
            for array, names in arrays.items()
            for place, name in enumerate(names, first)
            for given, slope in _slopes(slopes, name, first)
        ]

    return {
        "steps": _written(steps, language), "derived_steps": _written(derived, language), "results": results,
        "derived_results": derived_results, "names": lambda found: ", ".join(name for name, _ in found),
    }  # fmt: skip


def _slopes(slopes: Mapping[str, Mapping[str, str]], name: str, first: int) -> Iterator[tuple[int, ast.expr]]:
    """Return the derivatives of a step or input that are not 0, with the index of the input."""
    for place, given in enumerate(INPUT_NAMES, first):
        if given in slopes[name]:
            yield place, ast.Name(slopes[name][given]) if slopes[name][given] else ast.Constant(1)


def _written(steps: Steps, language: Language) -> Assignments:
    return [(name, language.write(expression)) for name, expression in steps]


def cut(values: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Cut a sequence into parts of at most `size` elements."""
    for first in range(0, len(values), size):
        yield values[first : first + size]


def one_line(text: str) -> str:
    """Make one line of ASCII without double quotes and backslashes, which have a meaning in strings."""
    return " ".join(text.split()).encode("ascii", "replace").decode().replace('"', "'").replace("\\", "/")


def comment(text: str) -> str:
    """Truncate a comment to fit into Fortran's 132 columns; it ends no comment of C."""
    return one_line(text).replace("*/", "* /")[:118]
