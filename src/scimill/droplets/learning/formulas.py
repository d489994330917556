"""Features, base and gate of a network as text, and their derivatives, for export to other languages.

A `Form` is what an exported network computes around its layers. Its steps are assignments in the part of Python's
syntax that Fortran and C share. `differentiate` adds the derivative of each step by each input, so nobody has to write
derivatives. `scimill.droplets.learning.network` computes the same with PyTorch; a test compares.
"""

import ast
import copy
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from scimill.droplets.learning.network import MODEL_INPUTS

INPUT_NAMES = tuple(name.removeprefix("initial_") for name in MODEL_INPUTS)
"""names of the inputs in the formulas and in the exports"""
RADIUS, TEMPERATURE, SALINITY, AIR_TEMPERATURE, HUMIDITY, AIR_DENSITY, TIME = INPUT_NAMES


@dataclasses.dataclass(frozen=True)
class Form:
    """The parts of a network other than its layers.

    The layers take (feature - centre) / half width. With their outputs o, the network predicts

        new radius = base radius * 10 ** (unit of log10 r * gate * o)
        new temperature = base temperature + unit of T * gate * o
    """

    steps: str
    """assignments, one per line; they use the inputs, the constants of the network, earlier steps, + - * / and the
    functions exp, log, arsinh, max and min; no minus sign may follow * or /, which Fortran forbids"""
    features: tuple[str, ...]
    """the step or input that is each feature"""
    base: tuple[str, str]
    """the steps that are radius (m) and temperature (K) before the correction"""
    gate: tuple[str, str]
    """the steps that multiply the layers' outputs"""


PLAIN = Form(
    """
    log_radius = log(radius) / ln10
    log_salinity = log(salinity) / ln10
    base_radius = exp(ln10 * middle_log_radius)
    base_temperature = middle_temperature
    gate = 1
    """,
    ("log_radius", TEMPERATURE, "log_salinity", AIR_TEMPERATURE, HUMIDITY, AIR_DENSITY, TIME),
    ("base_radius", "base_temperature"),
    ("gate", "gate"),
)

RESIDUAL = Form(
    """
    celsius = air_temperature - zero_celsius
    shifted = saturation_offset + celsius
    saturation = saturation_pressure * exp(saturation_slope * celsius / shifted)
    vapour = growth * saturation / air_temperature
    release = latent * vapour / air_temperature * (clapeyron / air_temperature - 1)
    conducted = conduction * air_density
    relaxation = conducted + release
    square = radius * radius
    elapsed = time / square
    scaled_time = 2 * vapour * conducted / relaxation * elapsed
    solute = max(salinity * solute_per_salinity * raoult, smallest_solute) / (square * radius)
    curvature = kelvin / (radius * temperature)
    lifted = max(curvature - solute, -largest_exponent)
    exponent = min(lifted, largest_exponent)
    surface = exp(exponent)
    log_radius = log(radius) / ln10
    difference = temperature - air_temperature
    log_solute = log(solute) / ln10
    log_time = log(scaled_time) / ln10
    stretched = sharpness * scaled_time
    excess_of_water = stretched * (relative_humidity - 1)
    excess = stretched * (relative_humidity - surface)
    drift_of_water = arsinh(excess_of_water) / spread
    drift = arsinh(excess) / spread
    decay = exp(-(relaxation * elapsed))
    base_temperature = air_temperature + difference * decay
    gate = 1
    """,
    ("log_radius", "difference", "log_solute", AIR_TEMPERATURE, HUMIDITY, AIR_DENSITY, "log_time", "drift_of_water",
     "drift"),
    (RADIUS, "base_temperature"),
    ("gate", "gate"),
)  # fmt: skip
FORMS: Mapping[str, Form] = {"plain": PLAIN, "residual": RESIDUAL}

Steps = list[tuple[str, ast.expr]]  # name and expression
ZERO, ONE = ast.Constant(0), ast.Constant(1)


def steps_of(form: Form) -> Steps:
    """Parse the steps of a form into names and expressions."""
    lines = ast.parse("\n".join(line.strip() for line in form.steps.strip().splitlines())).body
    return [(line.targets[0].id, line.value) for line in lines]  # type: ignore[attr-defined]


def differentiate(steps: Steps) -> tuple[Steps, dict[str, dict[str, str]]]:
    """Add the derivatives by the inputs to the steps.

    Returns
    -------
    The steps, each followed by its derivatives, and the name of each derivative that is not zero, by step and input.

    """
    found: Steps = []
    slopes: dict[str, dict[str, str]] = {name: {name: ""} for name in INPUT_NAMES}
    known: dict[str, str] = {}
    for name, expression in steps:
        found.append((name, expression))
        known[ast.dump(expression)] = name
        slopes[name] = {}
        for given in INPUT_NAMES:
            total = _Named(known).visit(_total(expression, given, slopes))
            if not _is(total, 0):
                slopes[name][given] = f"{name}_by_{given}"
                found.append((f"{name}_by_{given}", total))
    return found, slopes


class _Named(ast.NodeTransformer):
    """Replaces expressions that a step has already computed by the name of the step."""

    def __init__(self, known: Mapping[str, str]) -> None:
        self._known = known

    def visit(self, node: ast.AST) -> Any:
        """Replace an expression, or parts of it."""
        name = None if isinstance(node, ast.Constant) else self._known.get(ast.dump(node))
        return ast.Name(name) if name else self.generic_visit(copy.copy(node))


def _total(expression: ast.expr, given: str, slopes: Mapping[str, Mapping[str, str]]) -> ast.expr:
    """Differentiate an expression by an input, through the earlier steps that it uses."""
    total: ast.expr = ZERO
    for variable in sorted(set(_variables(expression))):
        slope = slopes.get(variable, {}).get(given)
        if slope is not None:
            total = _plus(total, _times(_partial(expression, variable), ast.Name(slope) if slope else ONE))
    return total


def used(steps: Steps) -> set[str]:
    """Return the names of variables and functions in the expressions of steps."""
    return {node.id for _, expression in steps for node in ast.walk(expression) if isinstance(node, ast.Name)}


def _variables(expression: ast.expr) -> Iterator[str]:
    functions = {id(node.func) for node in ast.walk(expression) if isinstance(node, ast.Call)}
    return (node.id for node in ast.walk(expression) if isinstance(node, ast.Name) and id(node) not in functions)


def _partial(node: ast.expr, variable: str) -> ast.expr:
    """Differentiate an expression by one of the variables in it."""
    match node:
        case ast.Name(id=name):
            return ONE if name == variable else ZERO
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _negative(_partial(operand, variable))
        case ast.BinOp(left=left, op=op, right=right):
            return _of_operation(op, left, right, _partial(left, variable), _partial(right, variable))
        case ast.Call(func=ast.Name(id=function), args=arguments):
            return _of_call(node, function, arguments, [_partial(argument, variable) for argument in arguments])
    return ZERO


def _of_operation(op: ast.operator, left: ast.expr, right: ast.expr, dl: ast.expr, dr: ast.expr) -> ast.expr:
    match op:
        case ast.Add():
            return _plus(dl, dr)
        case ast.Sub():
            return _minus(dl, dr)
        case ast.Mult():
            return _plus(_times(dl, right), _times(left, dr))
        case ast.Div():
            return _over(_minus(dl, _times(_over(left, right), dr)), right)
    raise ValueError(f"no derivative of {ast.dump(op)}")


def _of_call(node: ast.expr, function: str, arguments: list[ast.expr], inner: list[ast.expr]) -> ast.expr:
    x = arguments[0]
    match function:
        case "exp":
            return _times(node, inner[0])
        case "log":
            return _over(inner[0], x)
        case "arsinh":
            return _over(inner[0], _call("sqrt", _plus(_times(x, x), ONE)))
        case "max":
            return _choice(x, arguments[1], *inner)
        case "min":
            return _choice(arguments[1], x, *inner)
    raise ValueError(f"no derivative of {function}")


def _choice(larger: ast.expr, smaller: ast.expr, first: ast.expr, second: ast.expr) -> ast.expr:
    """Return the first derivative where larger >= smaller, and the second elsewhere."""
    share = _call("step", larger, smaller)
    return _plus(_times(share, first), _times(_minus(ONE, share), second))


def _call(function: str, *arguments: ast.expr) -> ast.expr:
    return ast.Call(ast.Name(function), list(arguments), [])


def _is(node: ast.expr, value: int) -> bool:
    return isinstance(node, ast.Constant) and node.value == value


def _negative(a: ast.expr) -> ast.expr:
    if _is(a, 0):
        return a
    return _sign_and_size(a)[1] if _sign_and_size(a)[0] else ast.UnaryOp(ast.USub(), a)


def _sign_and_size(a: ast.expr) -> tuple[bool, ast.expr]:
    """Return whether an expression has a minus sign, and the expression without it."""
    return (True, a.operand) if isinstance(a, ast.UnaryOp) else (False, a)


def _plus(a: ast.expr, b: ast.expr) -> ast.expr:
    if _is(a, 0):
        return b
    if _is(b, 0):
        return a
    minus, size = _sign_and_size(b)
    return ast.BinOp(a, ast.Sub() if minus else ast.Add(), size)


def _minus(a: ast.expr, b: ast.expr) -> ast.expr:
    return _plus(a, _negative(b))


def _times(a: ast.expr, b: ast.expr) -> ast.expr:
    """Multiply; the sign comes first, since Fortran has no a * -b."""
    if _is(a, 0) or _is(b, 0):
        return ZERO
    (minus_a, size_a), (minus_b, size_b) = _sign_and_size(a), _sign_and_size(b)
    if minus_a != minus_b:
        return _negative(_times(size_a, size_b))
    if _is(size_a, 1):
        return size_b
    return size_a if _is(size_b, 1) else ast.BinOp(size_a, ast.Mult(), size_b)


def _over(a: ast.expr, b: ast.expr) -> ast.expr:
    if _is(a, 0):
        return ZERO
    minus, size = _sign_and_size(a)
    return _negative(_over(size, b)) if minus else ast.BinOp(a, ast.Div(), b)


@dataclasses.dataclass(frozen=True)
class Language:
    """How a language writes what differs from Python."""

    number: str
    """format of a number; {} is the number"""
    functions: Mapping[str, str]
    """names of functions, if other than in Python"""

    def write(self, expression: ast.expr) -> str:
        """Write an expression."""
        return ast.unparse(_Rewritten(self).visit(ast.parse(ast.unparse(expression), mode="eval")))


class _Rewritten(ast.NodeTransformer):
    def __init__(self, language: Language) -> None:
        self._language = language

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        return ast.Name(self._language.number.format(float(str(node.value))))

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Name(self._language.functions.get(node.id, node.id))


FORTRAN = Language("{}_wp", {})
C = Language("{}", {"max": "larger", "min": "smaller"})
