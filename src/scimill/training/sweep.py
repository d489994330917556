"""Sweeps: a YAML file of lists and ranges of parameters; every combination is one trial.

learning_rate: {low: 1e-4, high: 1e-2, points: 5, spacing: logarithmic}
batch_size: [1024, 4096]
epochs: 5
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from scimill.config import STRICT, Layer, Number, Whole, parameter, read_yaml
from scimill.errors import ConfigError


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Points:
    """A range of a sweep."""

    low: Number = parameter(..., "first value")
    high: Number = parameter(..., "last value")
    points: Whole = parameter(..., "number of values", ge=1, le=10_000)
    spacing: Literal["linear", "logarithmic"] = parameter("linear", "spacing of the values")

    def values(self) -> list[float]:
        """Return all values."""
        if self.spacing == "logarithmic" and self.low * self.high <= 0:
            raise ValueError("a logarithmic range cannot contain 0")
        space = np.linspace if self.spacing == "linear" else np.geomspace
        return [float(value) for value in space(self.low, self.high, self.points)]


def read_trial(path: Path, trial: int) -> Layer:
    """Read the parameters of one trial of a sweep; the last key varies fastest.

    Raises
    ------
    ConfigError : not a sweep, or it has no such trial.
    """
    values = read_yaml(path).values
    count = math.prod(len(_choices(name, value, str(path))) for name, value in values.items())
    if trial >= count:
        raise ConfigError(f"the sweep has no trial {trial}", where=str(path), allowed=f"0 … {count - 1}")
    return Layer(f"trial {trial} of {path}", next(itertools.islice(combinations(values, str(path)), trial, None)))


def combinations(values: Mapping[str, Any], where: str) -> Iterator[dict[str, Any]]:
    """Yield every combination of the values of a sweep."""
    choices = [_choices(name, value, where) for name, value in values.items()]
    for chosen in itertools.product(*choices):
        yield dict(zip(values, chosen, strict=True))


def _choices(name: str, value: object, where: str) -> list[Any]:
    if isinstance(value, list) and value:
        return value
    if not isinstance(value, dict | list):
        return [value]
    try:
        return TypeAdapter(Points).validate_python(value).values()
    except (ValidationError, ValueError):
        raise ConfigError(
            f"{name} = {value!r} is neither a list nor a range", where=where,
            allowed="[1, 2] or {low: 1e-4, high: 1e-2, points: 5, spacing: logarithmic}",
        ) from None  # fmt: skip
