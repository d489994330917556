"""ASE calculators, by name or import path; every rank makes its own."""

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scimill.atoms.exchange.serial_ase import builtin_calculator
from scimill.errors import ConfigError

Maker = Callable[[], Any]
CalculatorChoice = Any
"""A name, an import path, a function that makes a calculator, a calculator, or a sequence of these (a committee)."""


@dataclass(frozen=True)
class Committee:
    """One or more calculators; the prediction is their mean.

    Parameters
    ----------
    makers : one function per calculator, which makes it.
    fingerprint : identifies the calculators, so that predictions of others are not mistaken for theirs. A function is
        identified by its name. A calculator may have its own ``fingerprint``, which changes with its training.

    """

    makers: tuple[Maker, ...]
    fingerprint: str


def make_committee(given: CalculatorChoice, arguments: Mapping[str, Any] | None = None) -> Committee:
    """Make a committee from a user's choice of calculators.

    Parameters
    ----------
    given : see `CalculatorChoice`.
    arguments : passed to calculators that are given by name or import path.

    Raises
    ------
    ConfigError : unknown calculator, or it does not accept these arguments.

    """
    members = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    if not members:
        raise ConfigError("no calculator given", allowed="at least one")
    made = [_make_member(member, dict(arguments or {})) for member in members]
    return Committee(tuple(maker for maker, _ in made), "; ".join(text for _, text in made))


def _make_member(given: CalculatorChoice, arguments: dict[str, Any]) -> tuple[Maker, str]:
    if isinstance(given, str):
        kind = _find_calculator(given)

        def make() -> Any:
            try:
                return kind(**arguments)
            except Exception as error:  # calculators may raise anything
                raise ConfigError(
                    f"cannot create the calculator {given}: {type(error).__name__}: {error}",
                    where="calculator and its arguments",
                ) from None

        return make, f"{given} {json.dumps(arguments, sort_keys=True, default=str)}"
    if hasattr(given, "get_potential_energy") and not isinstance(given, type):
        settings = {name: str(value) for name, value in dict(getattr(given, "parameters", {})).items()}
        return lambda: given, f"{_import_name(type(given))} {json.dumps(settings, sort_keys=True)}"
    if not callable(given):
        raise ConfigError(f"{given} is not a calculator", allowed="a name, an import path, a function or a calculator")
    return given, _import_name(given)


def _import_name(thing: Any) -> str:
    return f"{thing.__module__}.{getattr(thing, '__qualname__', thing.__class__.__qualname__)}"


def _find_calculator(name: str) -> Callable[..., Any]:
    """Find an ASE calculator by name, or any calculator by import path, such as tblite.ase:TBLite."""
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
