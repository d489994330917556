"""What each form of network computes around its layers, as text, with derivatives.

The formulas of a `Form` are assignments in the part of Python's syntax that Fortran and C share. They stand here once:
`scimill.droplets.learning.network` runs them with PyTorch, the exports write them in other languages, and
`differentiate` adds the derivatives.
"""

import ast
import copy
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from scimill.droplets.kernels.sampling import INPUTS

MODEL_INPUTS = (*INPUTS, "time")
INPUT_NAMES = tuple(name.removeprefix("initial_") for name in MODEL_INPUTS)
"""names of the inputs in the formulas and in the exports"""
OUTPUT_NAMES = ("first_output", "second_output")
"""names of the outputs of the layers in the formulas"""
RADIUS, TEMPERATURE, SALINITY, AIR_TEMPERATURE, HUMIDITY, AIR_DENSITY, TIME = INPUT_NAMES


@dataclasses.dataclass(frozen=True)
class Form:
    """What a network computes around its layers, which take (feature - centre) / half width."""

    steps: str
    """assignments, one per line; they use the inputs, constants, earlier steps, + - * / and the functions exp, log,
    sqrt, abs, arsinh, max, min and step (1 if a >= b, else 0); no minus sign may follow * or /, as in Fortran"""
    features: tuple[str, ...]
    """the step or input that is each feature"""
    finish: str
    """assignments of new_radius (m) and new_temperature (K) from the layers' outputs, the inputs and steps"""
    unscaled: tuple[str, ...] = ()
    """features of the order of 1, which are used as they are"""

    @property
    def carried(self) -> tuple[str, ...]:
        """The steps that the finish needs."""
        wanted = used(parse(self.finish))
        return tuple(name for name, _ in parse(self.steps) if name in wanted)


PLAIN = Form(
    """
    log_radius = log(radius) / ln10
    log_salinity = log(salinity) / ln10
    base_log_radius = middle_log_radius
    """,
    ("log_radius", TEMPERATURE, "log_salinity", AIR_TEMPERATURE, HUMIDITY, AIR_DENSITY, TIME),
    """
    new_radius = exp(ln10 * (base_log_radius + radius_unit * first_output))
    new_temperature = middle_temperature + temperature_unit * second_output
    """,
    (TIME,),  # in seconds, as published
)

AIR = """
    celsius = air_temperature - zero_celsius
    shifted = saturation_offset + celsius
    saturation = saturation_pressure * exp(saturation_slope * celsius / shifted)
    vapour = growth * saturation / air_temperature
    release = latent * vapour / air_temperature * (clapeyron / air_temperature - 1)
    conducted = conduction * air_density
    difference = temperature - air_temperature
    square = radius * radius
    log_radius = log(radius) / ln10
    solute_volume = max(salinity * solute_per_salinity * raoult, smallest_solute)
    solute = solute_volume / (square * radius)
    log_solute = log(solute) / ln10
"""

RESIDUAL = Form(
    AIR + """
    relaxation = conducted + release
    elapsed = time / square
    scaled_time = 2 * vapour * conducted / relaxation * elapsed
    curvature = kelvin / (radius * temperature)
    lifted = max(curvature - solute, -largest_exponent)
    exponent = min(lifted, largest_exponent)
    surface = exp(exponent)
    log_time = log(scaled_time) / ln10
    stretched = sharpness * scaled_time
    excess_of_water = stretched * (relative_humidity - 1)
    excess = stretched * (relative_humidity - surface)
    drift_of_water = arsinh(excess_of_water) / spread
    drift = arsinh(excess) / spread
    decay = exp(-(relaxation * elapsed))
    base_temperature = air_temperature + difference * decay
    """,
    ("log_radius", "difference", "log_solute", AIR_TEMPERATURE, HUMIDITY, AIR_DENSITY, "log_time", "drift_of_water",
     "drift"),
    """
    new_radius = radius * exp(ln10 * radius_unit * first_output)
    new_temperature = base_temperature + temperature_unit * second_output
    """,
    ("drift_of_water", "drift"),
)  # fmt: skip

# Newton's method for the largest root of x³ − 3x + 2h = 0, from above: six steps give 1e-12 for all h < 1.
NEWTON_STEPS = 6
ROOT = "\n".join(
    f"""
    distance{step} = max(3 * root{step - 1} * root{step - 1} - 3, tiny)
    newton{step} = (2 * root{step - 1} * root{step - 1} * root{step - 1} - 2 * humidity_scaled) / distance{step}
    root{step} = max(newton{step}, 1)"""
    for step in range(1, NEWTON_STEPS + 1)
)

RELAXATION = Form(
    AIR + """
    bend = kelvin / air_temperature
    exponent = max(bend / radius - solute, -largest_exponent)
    activity = exp(min(exponent, steepest_exponent))
    released = release * min(activity, largest_activity)
    exchange = conducted + released
    warming = latent * vapour * (relative_humidity - activity) / exchange
    elapsed = time * exchange / square
    decay = exp(-elapsed)
    lag = max(min(warming - difference, largest_lag), -largest_lag)
    moved = 2 / latent * lag * (1 - decay) * released / exchange
    start = square * (1 + max(min(moved, largest_move), -largest_move))
    excess = relative_humidity - activity
    speed = 2 * vapour * conducted / exchange
    inverse_critical = sqrt(bend / (3 * solute_volume))
    log_humidity = log(max(relative_humidity, driest))
    humidity_scaled = log_humidity / (bend * inverse_critical * 2 / 3)
    dryness = 2 * abs(humidity_scaled)
    fourth_root = sqrt(sqrt(dryness + tiny))
    far_root = 1 + fourth_root * sqrt(fourth_root)
    near_root = 1 + sqrt(max(1 - humidity_scaled, tiny) * 2 / 3)
    root0 = max(min(near_root, far_root + 1), 1)
    """ + ROOT + f"""
    equilibrium_radius = 1 / (inverse_critical * root{NEWTON_STEPS})
    equilibrium = equilibrium_radius * equilibrium_radius
    is_haze = max(step(equilibrium_radius, radius), step(0, excess))
    bounded = (1 - step(humidity_scaled, 1)) * is_haze
    gap = equilibrium - start
    restoring = 1.5 * solute_volume / (equilibrium * equilibrium_radius) - bend / (2 * equilibrium_radius)
    stiffness = relative_humidity * max(restoring, tiny)
    growing = 2 * step(gap, 0) - 1
    force = max(excess * growing, 0) + tiny
    linear_force = abs(gap) / equilibrium * stiffness + tiny
    curvature = max(linear_force / force, tiny)
    scaled_time = speed * time / start
    bounded_progress = speed * time / equilibrium * stiffness / curvature
    free_progress = scaled_time * max(excess, 0)
    progress = bounded * bounded_progress + (1 - bounded) * free_progress
    bending = max(min(curvature - 1 / curvature, sharpest), -flattest_end)
    side = 2 * step(bending, 0) - 1
    steepness = side * max(abs(bending), flattest)
    share = 1 - exp(-steepness)
    tail = steepness / share
    drift = scaled_time * excess
    extent = abs(drift)
    part = bounded * min(extent, abs(gap) / start) + (1 - bounded) * extent
    novelty = part_weight * part + abs(excess)
    gate = novelty / (1 + novelty)
    warm_novelty = novelty + abs(difference) / lag_unit
    warm_gate = warm_novelty / (1 + warm_novelty)
    lingering = difference * decay
    lingering_share = abs(lingering) * elapsed
    log_progress = log(min(max(progress, shortest), longest)) / ln10
    drift_feature = arsinh(sharpness * drift) / spread
    humidity_feature = humidity_scaled / (2 + abs(humidity_scaled))
    log_curvature = log(min(max(bounded * curvature + 1 - bounded, 1 / longest), longest)) / ln10
    """,
    ("log_radius", "difference", "log_solute", AIR_TEMPERATURE, HUMIDITY, AIR_DENSITY, "log_progress", "drift_feature",
     "humidity_feature", "log_curvature"),
    """
    change = max(min(gate * first_output, largest_change), -largest_change)
    corrected = progress * exp(change)
    reach = tail * corrected
    brief = step(small_enough, reach)
    spent = brief * reach * (1 - reach / 2 * (1 - reach / 3 * (1 - reach / 4))) + (1 - brief) * (1 - exp(-reach))
    used_up = max(-share, 0) * spent
    little = step(small_enough, used_up)
    first_terms = used_up * (1 - used_up * (0.5 - used_up * (1 / 3 - used_up / 4)))
    covered = little * first_terms + (1 - little) * log(1 + used_up)
    falling = steepness - reach
    folded = exp(-min(abs(falling), largest_exponent))
    early = step(falling, 0)
    more = max(share, 0) * folded
    late = step(small_enough, more)
    series = more * (1 - more * (0.5 - more * (1 / 3 - more / 4)))
    logarithm = log(early * (folded + max(share, 0)) + (1 - early) * (1 + more))
    rest = early * (falling + logarithm) + (1 - early) * (late * series + (1 - late) * logarithm)
    slowing = step(0, steepness)
    remaining = max(min(rest / steepness, 1), 0)
    bounded_square = slowing * (start - gap * covered / steepness) + (1 - slowing) * (equilibrium - gap * remaining)
    free_square = start * (1 + corrected)
    new_square = max(bounded * bounded_square + (1 - bounded) * free_square, smallest_square)
    new_radius = sqrt(new_square)
    new_exponent = max(bend / new_radius - solute_volume / (new_square * new_radius), -largest_exponent)
    new_activity = exp(min(new_exponent, steepest_exponent))
    new_exchange = conducted + release * min(new_activity, largest_activity)
    new_warming = latent * vapour * (relative_humidity - new_activity) / new_exchange
    lead = new_warming * (1 - decay)
    correctable = abs(lead) + lingering_share
    new_temperature = air_temperature + lingering + lead + correctable * warm_gate * second_output
    """,
    ("drift_feature", "humidity_feature"),
)  # fmt: skip
FORMS: Mapping[str, Form] = {"plain": PLAIN, "residual": RESIDUAL, "relaxation": RELAXATION}

LIMITS: Mapping[str, float] = {
    "sharpness": 3.0,  # asinh(3 x) bends at |x| = 1/3, so it is still steep at x = −1, where droplets evaporate
    "spread": 6.0,  # scales asinh(3 x), |x| <= 1e8, to the order of 1
    "smallest_solute": 1e-35,  # m³; keeps the logarithm finite if salt attracts no water
    "largest_exponent": 690.0,  # beyond it, exp overflows or underflows in float64
    "steepest_exponent": 20.0,  # of the Kelvin term, for droplets smaller than any real one
    "largest_activity": 3.0,  # limits the latent heat of droplets far smaller than their equilibrium
    "largest_lag": 200.0,  # K
    "lag_unit": 5.0,  # K; differences of this size make the linear temperature wrong
    "driest": 1e-6,  # relative humidity whose logarithm is finite
    "tiny": 1e-7,  # relative; a force that is 0 at the equilibrium
    "sharpest": 40.0,  # sharpness of the end of evaporation
    "flattest_end": 20.0,
    "largest_move": 0.5,  # of r², while the temperature adapts
    "small_enough": 1e-3,  # four terms of the series of log(1 + x) are then exact
    "flattest": 1e-3,  # keeps the division by the shape accurate
    "part_weight": 4.0,  # changes of r² by a quarter make the linear solution wrong
    "shortest": 1e-8,
    "longest": 1e5,
    "largest_change": 12.0,  # of the logarithm of the time
    "smallest_square": 1e-20,  # m²
}
"""limits of the forms, by name"""

Steps = list[tuple[str, ast.expr]]  # name and expression
ZERO, ONE = ast.Constant(0), ast.Constant(1)


def parse(text: str) -> Steps:
    """Parse assignments into names and expressions."""
    lines = ast.parse("\n".join(line.strip() for line in text.strip().splitlines())).body
    return [(line.targets[0].id, line.value) for line in lines]  # type: ignore[attr-defined]


def differentiate(steps: Steps, variables: Sequence[str]) -> tuple[Steps, dict[str, dict[str, str]]]:
    """Add the derivatives by some variables to the steps.

    Returns
    -------
    The steps, each followed by its derivatives, and the name of each derivative that is not zero, by step and variable.

    """
    found: Steps = []
    slopes: dict[str, dict[str, str]] = {name: {name: ""} for name in variables}
    known: dict[str, str] = {}
    for name, expression in steps:
        found.append((name, expression))
        known[ast.dump(expression)] = name
        slopes[name] = {}
        for given in variables:
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
        case "sqrt":
            return _over(inner[0], _times(ast.Constant(2), node))
        case "abs":
            return _times(_minus(_call("step", x, ZERO), _call("step", ZERO, x)), inner[0])
        case "step":
            return ZERO
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
C = Language("{}", {"max": "larger", "min": "smaller", "abs": "fabs"})
