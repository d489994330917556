"""Formulas for other languages: the same values as the network, and the derivatives of automatic differentiation."""

import ast
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from scimill.config import Layer, build
from scimill.droplets.learning.formulas import FORMS, FORTRAN, INPUT_NAMES, C, Steps, differentiate, steps_of, used
from scimill.droplets.learning.network import DropletNetwork
from scimill.droplets.learning.sources import BLOCK, common_values, filled_layers
from scimill.droplets.learning.train import make_spec
from scimill.droplets.params import DropletsGenerateConfig, DropletsTrainConfig

MEANINGS: dict[str, Callable[..., Any]] = {
    "exp": lambda a: torch.exp(torch.as_tensor(a, dtype=torch.float64)),
    "log": torch.log, "sqrt": torch.sqrt, "arsinh": torch.arcsinh,
    "max": lambda a, b: torch.maximum(torch.as_tensor(a), torch.as_tensor(b, dtype=torch.float64)),
    "min": lambda a, b: torch.minimum(torch.as_tensor(a), torch.as_tensor(b, dtype=torch.float64)),
    "step": lambda a, b: (torch.as_tensor(a) >= b).double(),
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


def columns(names: dict[str, Any], wanted: tuple[str, ...], n: int) -> torch.Tensor:
    return torch.stack([torch.as_tensor(names[name], dtype=torch.float64).expand(n) for name in wanted], 1)


def test_formulas_are_those_of_the_network(model: DropletNetwork, droplets: torch.Tensor) -> None:
    form, n = FORMS[model.spec.network], len(droplets)
    names = evaluate(steps_of(form), known(model, droplets))
    torch.testing.assert_close(columns(names, form.features, n), model.raw_features(droplets), rtol=1e-10, atol=1e-10)
    base = columns(names, form.base, n)
    torch.testing.assert_close(torch.log10(base[:, 0]), model.base(droplets)[:, 0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(base[:, 1], model.base(droplets)[:, 1], rtol=1e-12, atol=1e-12)
    assert torch.equal(columns(names, form.gate, n), torch.ones(n, 2, dtype=torch.float64))


def test_derivatives_are_those_of_automatic_differentiation(model: DropletNetwork, droplets: torch.Tensor) -> None:
    form = FORMS[model.spec.network]
    derived, slopes = differentiate(steps_of(form))
    names = evaluate(derived, known(model, droplets))
    for name, _ in steps_of(form):
        x = droplets.clone().requires_grad_()
        value = evaluate(steps_of(form), known(model, x))[name]
        expected = torch.zeros_like(x)
        if torch.is_tensor(value) and value.requires_grad:
            (expected,) = torch.autograd.grad(value.sum(), x)
        for place, given in enumerate(INPUT_NAMES):
            found = names[slopes[name][given]] if given in slopes[name] else 0.0
            found = torch.as_tensor(found, dtype=torch.float64).expand(len(x))
            torch.testing.assert_close(found, expected[:, place], rtol=1e-9, atol=0, msg=f"{name} by {given}")


@pytest.mark.parametrize(
    ("text", "derivative"),
    [("radius - 2 * time", "-2"), ("-(radius / time)", "radius / time / time"), ("1 / -time", "y / -time"),
     ("-time * -radius", "radius"), ("max(1, time) + 3", "1 - step(1, time)"),
     ("min(time, radius)", "step(radius, time)"),
     ("radius", "")],
)  # fmt: skip
def test_derivatives_have_no_needless_signs_and_factors(text: str, derivative: str) -> None:
    derived, _ = differentiate([("y", ast.parse(text, mode="eval").body)])
    found = {name: ast.unparse(expression) for name, expression in derived}
    assert found.get("y_by_time", "") == derivative


@pytest.mark.parametrize(("text", "what"), [("radius ** time", "Pow"), ("sin(time)", "sin")])
def test_what_has_no_derivative_is_refused(text: str, what: str) -> None:
    with pytest.raises(ValueError, match=f"no derivative of .*{what}"):
        differentiate([("y", ast.parse(text, mode="eval").body)])


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
