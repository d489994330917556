"""ASE's calculators, by name or import path, a fresh one on every rank."""

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scimill.atoms.exchange.serial_ase import builtin_calculator
from scimill.errors import ConfigError

Maker = Callable[[], Any]
Given = Any
"""A name, an import path, a function that makes a calculator, a calculator, or a sequence of these: a committee."""


@dataclass(frozen=True)
class Committee:
    """Calculators whose mean is the prediction; usually one.

    Parameters
    ----------
    makers : what makes each.
    fingerprint : says which they are; predictions of others are not taken for theirs. A function is known by its name.
        A calculator may have a ``fingerprint`` of its own, which changes with what it was trained on.

    """

    makers: tuple[Maker, ...]
    fingerprint: str


def committee(given: Given, arguments: Mapping[str, Any] | None = None) -> Committee:
    """Understand what a user gives for a calculator.

    Parameters
    ----------
    given : see `Given`.
    arguments : of the named ones.

    Raises
    ------
    ConfigError : nothing of that name, or it takes no such arguments.

    """
    members = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    if not members:
        raise ConfigError("no calculator", allowed="at least one")
    made = [_member(member, dict(arguments or {})) for member in members]
    return Committee(tuple(maker for maker, _ in made), "; ".join(text for _, text in made))


def _member(given: Given, arguments: dict[str, Any]) -> tuple[Maker, str]:
    if isinstance(given, str):
        kind = _named(given)

        def make() -> Any:
            try:
                return kind(**arguments)
            except Exception as error:  # calculators raise what they like
                raise ConfigError(
                    f"{given} cannot be made: {type(error).__name__}: {error}", where="calculator and its arguments"
                ) from None

        return make, f"{given} {json.dumps(arguments, sort_keys=True, default=str)}"
    if hasattr(given, "get_potential_energy") and not isinstance(given, type):
        settings = {name: str(value) for name, value in dict(getattr(given, "parameters", {})).items()}
        return lambda: given, f"{_name(type(given))} {json.dumps(settings, sort_keys=True)}"
    if not callable(given):
        raise ConfigError(f"{given!r} is no calculator", allowed="a name, an import path, a function or a calculator")
    return given, _name(given)


def _name(thing: Any) -> str:
    return f"{thing.__module__}.{getattr(thing, '__qualname__', thing.__class__.__qualname__)}"


def _named(name: str) -> Callable[..., Any]:
    """Find a calculator of ASE's by its name, or any by its import path, such as tblite.ase:TBLite."""
    module, separator, attribute = name.partition(":") if ":" in name else name.rpartition(".")
    if not separator:
        found = builtin_calculator(name)
        if found is None:
            raise ConfigError(f"ASE has no calculator {name!r}", allowed="emt, lj, morse, … or module:Class")
        built_in: Callable[..., Any] = found
        return built_in
    try:
        value: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"no calculator {name!r}: {error}", allowed="module:Class of an installed package") from None
    return value
