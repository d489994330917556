"""Formulas for other languages: their derivatives are those of automatic differentiation."""

import ast
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from scimill.config import Layer, build
from scimill.droplets.learning.formulas import (
    FORMS,
    FORTRAN,
    INPUT_NAMES,
    OUTPUT_NAMES,
    C,
    Steps,
    differentiate,
    parse,
    used,
)
from scimill.droplets.learning.network import DropletNetwork
from scimill.droplets.learning.sources import BLOCK, common_values, filled_layers
from scimill.droplets.learning.train import make_spec
from scimill.droplets.params import DropletsGenerateConfig, DropletsTrainConfig

MEANINGS: dict[str, Callable[..., Any]] = {
    "exp": lambda a: torch.exp(torch.as_tensor(a, dtype=torch.float64)),
    "log": lambda a: torch.log(torch.as_tensor(a, dtype=torch.float64)),
    "sqrt": torch.sqrt, "abs": torch.abs, "arsinh": torch.arcsinh,
    "max": lambda a, b: torch.maximum(torch.as_tensor(a), torch.as_tensor(b, dtype=torch.float64)),
    "min": lambda a, b: torch.minimum(torch.as_tensor(a), torch.as_tensor(b, dtype=torch.float64)),
    "step": lambda a, b: (torch.as_tensor(a) >= torch.as_tensor(b)).double(),
}  # fmt: skip


@pytest.fixture(params=FORMS)
def model(request: pytest.FixtureRequest) -> DropletNetwork:
    config = build(DropletsTrainConfig, [Layer("test", {"network": request.param, "hidden": [7, 5]})])
    return DropletNetwork(make_spec(config, build(DropletsGenerateConfig, [Layer("test", {"count": 1})]))).double()


@pytest.fixture
def droplets(model: DropletNetwork) -> torch.Tensor:
    """Droplets from the ranges, (200, 7)."""
    low, high = np.array(model.spec.ranges).T
    x = np.random.default_rng(1).uniform(size=(200, 7))
    return torch.tensor(np.where(high / low > 5, low * (high / low) ** x, low + (high - low) * x))


def evaluate(steps: Steps, names: dict[str, Any]) -> dict[str, Any]:
    """Compute all steps with PyTorch."""
    for name, expression in steps:
        names[name] = eval(ast.unparse(expression), {"__builtins__": {}, **MEANINGS}, names)
    return names


def known(model: DropletNetwork, x: torch.Tensor) -> dict[str, Any]:
    return {**dict(common_values(model, {})["constants"]), **dict(zip(INPUT_NAMES, x.unbind(1), strict=True))}


def check(steps: Steps, names: tuple[str, ...], given: dict[str, Any], x: torch.Tensor) -> None:
    """Compare the derivatives of all steps by the columns of x, which have names."""
    derived, slopes = differentiate(steps, names)
    values = evaluate(derived, {**given, **dict(zip(names, x.unbind(1), strict=True))})
    tracked = x.clone().requires_grad_()
    expected = evaluate(steps, {**given, **dict(zip(names, tracked.unbind(1), strict=True))})
    for name, _ in steps:
        gradient = torch.zeros_like(x)
        if torch.is_tensor(expected[name]) and expected[name].requires_grad:
            (gradient,) = torch.autograd.grad(expected[name].sum(), tracked, retain_graph=True)
        for place, variable in enumerate(names):
            found = values[slopes[name][variable]] if variable in slopes[name] else 0.0
            found = torch.as_tensor(found, dtype=torch.float64).expand(len(x))
            largest = float(gradient[:, place].abs().max())
            torch.testing.assert_close(
                found, gradient[:, place], rtol=1e-9, atol=1e-13 * largest, msg=f"{name} by {variable}"
            )


def test_derivatives_are_those_of_automatic_differentiation(model: DropletNetwork, droplets: torch.Tensor) -> None:
    form = FORMS[model.spec.network]
    check(parse(form.steps), INPUT_NAMES, known(model, droplets), droplets)
    outputs = torch.tensor(np.random.default_rng(2).normal(size=(len(droplets), 2)))
    names = (*INPUT_NAMES, *form.carried, *OUTPUT_NAMES)
    given = torch.cat((droplets, model.prepare(droplets)[1], outputs), 1)
    check(parse(form.finish), names, known(model, droplets), given)


@pytest.mark.parametrize(
    ("text", "derivative"),
    [("radius - 2 * time", "-2"), ("-(radius / time)", "radius / time / time"), ("1 / -time", "y / -time"),
     ("-time * -radius", "radius"), ("max(1, time) + 3", "1 - step(1, time)"),
     ("min(time, radius)", "step(radius, time)"),
     ("radius", "")],
)  # fmt: skip
def test_derivatives_have_no_needless_signs_and_factors(text: str, derivative: str) -> None:
    derived, _ = differentiate([("y", ast.parse(text, mode="eval").body)], INPUT_NAMES)
    found = {name: ast.unparse(expression) for name, expression in derived}
    assert found.get("y_by_time", "") == derivative


@pytest.mark.parametrize(("text", "what"), [("radius ** time", "Pow"), ("sin(time)", "sin")])
def test_what_has_no_derivative_is_refused(text: str, what: str) -> None:
    with pytest.raises(ValueError, match=f"no derivative of .*{what}"):
        differentiate([("y", ast.parse(text, mode="eval").body)], INPUT_NAMES)


def test_languages_write_numbers_and_functions_in_their_way() -> None:
    expression = ast.parse("max(2 * time, 1) - (radius - 1) / exp(3)", mode="eval").body
    assert FORTRAN.write(expression) == "max(2.0_wp * time, 1.0_wp) - (radius - 1.0_wp) / exp(3.0_wp)"
    assert C.write(expression) == "larger(2.0 * time, 1.0) - (radius - 1.0) / exp(3.0)"
    assert used([("y", expression)]) == {"max", "time", "radius", "exp"}


def test_filled_layers_only_add_zeros(model: DropletNetwork) -> None:
    layers, first = filled_layers(model), model.body[0]
    assert [(layer.columns % BLOCK, layer.rows % BLOCK) for layer in layers] == [(0, 0), (0, 0), (0, 2)]
    assert [(layer.inputs, layer.outputs) for layer in layers[1:]] == [(7, 5), (5, 2)]
    assert np.array_equal(layers[0].weight[: layers[0].inputs, :7].T, first.weight.detach().numpy())
    assert not np.any(layers[0].weight[layers[0].inputs :])
    assert not np.any(layers[0].weight[:, 7:])
    assert not np.any(layers[0].bias[7:])
