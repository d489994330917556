"""What the exports to Fortran and C have in common: the numbers of a network, its formulas, and pieces of text."""

import ast
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray

from scimill.droplets.learning.formulas import (
    FORMS,
    INPUT_NAMES,
    MODEL_INPUTS,
    OUTPUT_NAMES,
    Form,
    Language,
    Steps,
    differentiate,
    parse,
    used,
)
from scimill.droplets.learning.network import RANGE_ROUNDING, DropletNetwork, scaling, weights
from scimill.droplets.origin import UNKNOWN
from scimill.version import __version__

LANES = 16  # droplets computed together; the fastest of 8 to 64
BLOCK = 4  # values of one layer computed together; the widths of layers are filled up to a multiple
UNROLLED = 8  # inputs of a layer that are added up in one statement
ENOUGH = 1000  # droplets that are worth starting threads: 0.2 ms of work
SQUARINGS = {"float64": 7, "float32": 5}  # of exp(x / 2**n); with the series in the templates, 1e-15 and 1e-8
Assignments = list[tuple[str, str]]
Slopes = Mapping[str, Mapping[str, str]]  # name of each derivative that is not 0, by step and variable


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
    centre, half_width = scaling(model)
    form = FORMS[model.spec.network]
    known = {name: float(value) for name, value in model.known.items()}
    parts = [parse(form.steps), parse(form.finish)]
    wanted = [used(part) for part in parts]
    by_derivatives = [used(derived) for derived, _ in _derivatives(form)]
    results = {*form.features, *form.carried}
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
        "constants": [(name, value) for name, value in known.items() if name in set().union(*wanted)],
        "centre": centre, "scale": [1 / width for width in half_width],
        "wanted": [wanted[0] | results, wanted[1]],
        "wanted_by_derivatives": [by_derivatives[0] | results, by_derivatives[1]],
        "uses_arsinh": "arsinh" in wanted[0], "uses_step": "step" in set().union(*by_derivatives),
        "carried": form.carried,
    }  # fmt: skip


def formulas(form: Form, language: Language, element: str, first: int) -> dict[str, Any]:
    """Return the formulas of a form in a language, for templates.

    Parameters
    ----------
    form, language : what to write.
    element : format of an element of an array, with a place for its name and for its index, such as "{}({})".
    first : first index of arrays.

    """
    (derived, slopes), (finishing, ends) = _derivatives(form)
    arrays = {"f": form.features, "c": form.carried}
    outcome = ("new_radius", "new_temperature")
    origins = {"x": INPUT_NAMES, "c": form.carried, "o": OUTPUT_NAMES}

    def results(index: str) -> Assignments:
        """Assign features and carried steps; `index` has a place for the index."""
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
            for given, slope in _slopes(slopes, name, INPUT_NAMES, first)
        ]

    def derived_outcome(index: str) -> Assignments:
        """Assign the derivatives of the outcome that are not 0; `index` has places for origin and output."""
        return [
            (element.format(f"y{array}", index % (given, place)), language.write(slope))
            for array, names in origins.items()
            for place, name in enumerate(outcome, first)
            for given, slope in _slopes(ends, name, names, first)
        ]

    return {
        "steps": _written(parse(form.steps), language), "derived_steps": _written(derived, language),
        "finish": _written(parse(form.finish), language), "derived_finish": _written(finishing, language),
        "results": results, "derived_results": derived_results, "derived_outcome": derived_outcome,
        "names": lambda found: ", ".join(name for name, _ in found),
    }  # fmt: skip


def _derivatives(form: Form) -> tuple[tuple[Steps, Slopes], tuple[Steps, Slopes]]:
    """Return steps and finish with their derivatives."""
    steps = differentiate(parse(form.steps), INPUT_NAMES)
    return steps, differentiate(parse(form.finish), (*INPUT_NAMES, *form.carried, *OUTPUT_NAMES))


def _slopes(slopes: Slopes, name: str, names: Sequence[str], first: int) -> Iterator[tuple[int, ast.expr]]:
    """Return the derivatives of a step or input that are not 0, with the index of the variable."""
    for place, given in enumerate(names, first):
        if given in slopes[name]:
            yield place, ast.Name(slopes[name][given]) if slopes[name][given] else ast.Constant(1)


def _written(steps: Steps, language: Language) -> Assignments:
    return [(name, language.write(expression)) for name, expression in steps]


def render(template: str, filters: Mapping[str, Callable[..., str]], values: Mapping[str, Any]) -> str:
    """Fill a template in with values, by a language's filters."""
    loader = jinja2.PackageLoader("scimill.droplets.learning", "templates")
    layout: Any = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    environment = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, **layout)
    environment.filters |= filters
    return environment.get_template(template).render(values)


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
