"""Optimizers by name, and the learning rate of each step."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import Adam, AdamW, Optimizer

from scimill.training.params import Optimization

TRUST = 1e-3  # trust coefficient of LARS, You et al. 2017, arXiv:1708.03888


def make_optimizer(parameters: Iterable[torch.nn.Parameter], config: Optimization) -> Optimizer:
    """Make the optimizer that a configuration names."""
    if config.optimizer == "lars":
        return LARS(parameters, config.learning_rate, config.momentum, config.weight_decay)
    kind = Adam if config.optimizer == "adam" else AdamW
    return kind(parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)


def learning_rate(config: Optimization, step: int, epoch: float) -> float:
    """Return the learning rate of a step.

    Parameters
    ----------
    config : the schedule.
    step : steps done before this one.
    epoch : passes over the data before it, as a fraction.
    """
    warmup = min(1.0, (step + 1) / (config.warmup_steps + 1))
    return config.learning_rate * warmup * _decay(config, epoch)


def _decay(config: Optimization, epoch: float) -> float:
    if config.schedule == "step":
        return float(config.step_factor ** (int(epoch) // config.step_epochs))
    if config.schedule == "cosine":
        low = config.final_learning_rate
        return low + (1 - low) * (1 + math.cos(math.pi * epoch / config.epochs)) / 2
    return 1.0


class LARS(Optimizer):
    """Layer-wise adaptive rate scaling (You et al. 2017), for batches of many thousands.

    The weight decay is part of the gradient whose norm is used, as in VICReg's version (Bardes et al. 2022). Vectors
    (biases, the scales of a normalisation) are neither scaled nor decayed.

    Parameters
    ----------
    params : the parameters.
    lr, momentum, weight_decay : as in SGD.

    """

    def __init__(self, params: Any, lr: float = 0.1, momentum: float = 0.9, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move the parameters along their gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group)

    def _move(self, parameter: torch.Tensor, gradient: torch.Tensor, group: dict[str, Any]) -> None:
        if parameter.ndim > 1:
            gradient = gradient.add(parameter, alpha=group["weight_decay"])
            weight_norm, gradient_norm = parameter.norm(), gradient.norm()
            usable = (weight_norm > 0) & (gradient_norm > 0)
            gradient = gradient * torch.where(usable, TRUST * weight_norm / gradient_norm, 1.0)
        state = self.state[parameter]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(parameter)
        state["velocity"].mul_(group["momentum"]).add_(gradient)
        parameter.sub_(state["velocity"], alpha=group["lr"])
