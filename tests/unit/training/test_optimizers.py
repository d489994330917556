"""Optimizers against the published formulas, in numpy; learning-rate schedules against closed forms."""

import copy
import math

import numpy as np
import pytest
import torch

from scimill.config import Layer, build
from scimill.parallel.world import World
from scimill.training.gradients import Gradients
from scimill.training.optimizers import LARS, learning_rate, make_optimizer
from scimill.training.params import TrainingConfig
from scimill.training.ranks import Ranks

TRUST = 1e-3
Arrays = list[np.ndarray]


def make_config(**values: object) -> TrainingConfig:
    return build(TrainingConfig, [Layer("test", values)])


def arrays(seed: int) -> Arrays:
    """A matrix, a vector, a kernel of four axes."""
    random = np.random.default_rng(seed)
    return [random.normal(size=shape) for shape in ((4, 3), (5,), (2, 3, 2, 2))]


def run(optimizer: str, gradients: list[Arrays], rates: list[float], weights: Arrays, **values: object) -> Arrays:
    """Weights after a step with each of the gradients."""
    parameters = [torch.nn.Parameter(torch.tensor(weight)) for weight in weights]
    made = make_optimizer(parameters, make_config(optimizer=optimizer, **values))
    for step, rate in zip(gradients, rates, strict=True):
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = torch.tensor(gradient)
        for group in made.param_groups:
            group["lr"] = rate
        made.step()
    return [parameter.detach().numpy() for parameter in parameters]


def lars(gradients: list[Arrays], rates: list[float], weights: Arrays, momentum: float, decay: float) -> Arrays:
    """Momentum, then the rate; decay comes before the gradient's norm; vectors are left unscaled."""
    weights = [weight.copy() for weight in weights]
    velocity = [np.zeros_like(weight) for weight in weights]
    for step, rate in zip(gradients, rates, strict=True):
        for i, gradient in enumerate(step):
            change = gradient
            if weights[i].ndim > 1:
                decayed = gradient + decay * weights[i]
                change = TRUST * math.sqrt((weights[i] ** 2).sum()) / math.sqrt((decayed**2).sum()) * decayed
            velocity[i] = momentum * velocity[i] + change
            weights[i] = weights[i] - rate * velocity[i]
    return weights


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("decay", [0.0, 0.02])
def test_lars_is_as_published(steps: int, decay: float) -> None:
    gradients, rates = [arrays(seed) for seed in range(1, steps + 1)], [0.3, 0.7, 0.5, 2.0, 0.1][:steps]
    ours = run("lars", gradients, rates, arrays(0), momentum=0.8, weight_decay=decay)
    for mine, theirs in zip(ours, lars(gradients, rates, arrays(0), 0.8, decay), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-13)


def test_one_step_of_lars_moves_a_matrix_by_the_trust_times_its_norm() -> None:
    """You et al. 2017: the length of the step does not depend on the gradient's."""
    weights = arrays(0)
    for scale in (1e-12, 1.0, 1e12):
        moved = run("lars", [[scale * gradient for gradient in arrays(1)]], [0.5], weights)
        length = np.linalg.norm(moved[0] - weights[0])
        assert length == pytest.approx(0.5 * TRUST * np.linalg.norm(weights[0]), rel=1e-9)


@pytest.mark.parametrize(("weight", "gradient"), [(0.0, 1.0), (1.0, 0.0), (0.0, 0.0)])
def test_lars_takes_the_plain_gradient_where_a_norm_is_zero(weight: float, gradient: float) -> None:
    (moved,) = run("lars", [[np.full((2, 2), gradient)]], [0.1], [np.full((2, 2), weight)])
    np.testing.assert_allclose(moved, weight - 0.1 * gradient)


def test_lars_goes_on_from_its_saved_state() -> None:
    parameters = [torch.nn.Parameter(torch.ones(2, 2)) for _ in range(2)]
    first, second = (LARS([parameter], lr=0.1) for parameter in parameters)
    for optimizer in (first, second):
        parameters[0].grad = parameters[1].grad = torch.ones(2, 2)
        optimizer.step()
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for optimizer in (first, second):
        optimizer.step()
    assert torch.equal(*parameters)


def adam(gradients: list[Arrays], rates: list[float], weights: Arrays, decay: float, *, decoupled: bool) -> Arrays:
    """Kingma and Ba 2015, algorithm 1; Loshchilov and Hutter 2019, algorithm 2."""
    weights = [weight.copy() for weight in weights]
    first, second = ([np.zeros_like(weight) for weight in weights] for _ in range(2))
    for t, (step, rate) in enumerate(zip(gradients, rates, strict=True), 1):
        for i, gradient in enumerate(step):
            g = gradient if decoupled else gradient + decay * weights[i]
            first[i] = 0.9 * first[i] + 0.1 * g
            second[i] = 0.999 * second[i] + 0.001 * g**2
            mean, square = first[i] / (1 - 0.9**t), second[i] / (1 - 0.999**t)
            shrunk = weights[i] * (1 - rate * decay) if decoupled else weights[i]
            weights[i] = shrunk - rate * mean / (np.sqrt(square) + 1e-8)
    return weights


@pytest.mark.parametrize("name", ["adam", "adamw"])
@pytest.mark.parametrize("decay", [0.0, 0.02])
def test_adam_is_as_published(name: str, decay: float) -> None:
    gradients, rates = [arrays(seed) for seed in range(1, 5)], [0.1, 0.2, 0.05, 0.3]
    ours = run(name, gradients, rates, arrays(0), weight_decay=decay)
    theirs = adam(gradients, rates, arrays(0), decay, decoupled=name == "adamw")
    for mine, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-12)


# ---- the learning rate ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["constant", "step", "cosine"])
def test_the_rate_rises_in_equal_parts_to_its_largest(schedule: str) -> None:
    config = make_config(learning_rate=0.6, warmup_steps=5, schedule=schedule)
    rates = [learning_rate(config, step, 0.0) for step in range(8)]
    np.testing.assert_allclose(rates, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.6, 0.6], rtol=1e-14)


def test_without_warmup_the_first_step_has_the_largest_rate() -> None:
    assert learning_rate(make_config(learning_rate=0.6, warmup_steps=0), 0, 0.0) == 0.6


def test_a_constant_rate_does_not_depend_on_the_epoch() -> None:
    config = make_config(learning_rate=0.6, warmup_steps=0, schedule="constant", epochs=7)
    assert {learning_rate(config, step, step / 10) for step in range(70)} == {0.6}


def test_the_cosine_falls_from_the_largest_rate_to_the_last() -> None:
    config = make_config(
        learning_rate=0.6, warmup_steps=0, schedule="cosine", epochs=8, final_learning_rate=0.25
    )  # fmt: skip
    known = {0: 0.6, 2: 0.375 + 0.225 * math.sqrt(0.5), 4: 0.375, 6: 0.375 - 0.225 * math.sqrt(0.5), 8: 0.15}
    for epoch, rate in known.items():
        assert learning_rate(config, 1000, epoch) == pytest.approx(rate, rel=1e-14)
    falling = [learning_rate(config, 1000, epoch) for epoch in np.linspace(0, 8, 200)]
    assert np.all(np.diff(falling) < 0)


def test_the_steps_halve_the_rate_every_third_epoch() -> None:
    config = make_config(
        learning_rate=0.8, warmup_steps=0, schedule="step", step_epochs=3, step_factor=0.5, epochs=9
    )  # fmt: skip
    known = {0: 0.8, 2.999: 0.8, 3: 0.4, 5.5: 0.4, 6: 0.2, 8.999: 0.2}
    assert {epoch: learning_rate(config, 1000, epoch) for epoch in known} == pytest.approx(known, rel=1e-14)


# ---- gradients and their sum, on one process --------------------------------------------------------------------


def test_gradients_of_all_parameters_lie_in_one_buffer() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).double()
    frozen = model[2].bias.requires_grad_(False)
    gradients = Gradients(model, extras=2)
    assert gradients.buffer.numel() == 12 + 4 + 8 + 2
    for _ in range(2):  # gradients add up until they are forgotten
        model(torch.ones(5, 3, dtype=torch.float64)).pow(2).sum().backward()
    expected = torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])
    assert expected.abs().min() > 0
    assert torch.equal(gradients.buffer[:-2], expected)
    assert frozen.grad is None
    gradients.extras[:] = 1
    gradients.zero()
    assert not gradients.buffer.any()
    assert not model[0].weight.grad.any()


def test_the_sum_of_one_process_is_the_tensor_itself_and_differentiable() -> None:
    with Ranks(World(None)) as ranks:
        x = torch.rand(3, 4, dtype=torch.float64, requires_grad=True)
        assert torch.equal(ranks.sum(x.t()), x.t())
        assert torch.autograd.gradcheck(lambda x: ranks.sum(x.t()).pow(3), x)
        assert torch.autograd.gradgradcheck(lambda x: ranks.sum(x.t()).pow(3), x)
