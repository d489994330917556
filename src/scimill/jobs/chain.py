"""Chain files: steps, the command of each step, and the steps that it waits for.

description: droplets and the network that replaces their integration
resources: {walltime: 1h}                 # defaults for all steps
steps:
  generate:
    command: scimill droplets generate droplets.h5 --count 2e6
    resources: {nodes: 2, walltime: 4h}
  verify:
    command: scimill verify droplets.h5
    after: generate
"""

import graphlib
import hashlib
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator
from pydantic.dataclasses import dataclass as declare

from scimill.config import REQUIRED, STRICT, Kind, Layer, build, parameter, read_yaml
from scimill.errors import ConfigError
from scimill.jobs.machine import folder
from scimill.jobs.resources import Resources, indices

STEP = re.compile(r"[a-z][a-z0-9-]{0,30}")
LONGEST_NAME = 15  # characters that every scheduler accepts


def _split_command(value: object) -> object:
    """Split a command line as a shell does, without substitutions; a YAML list passes through."""
    if isinstance(value, str):
        return tuple(shlex.split(value))
    return tuple(map(str, value)) if isinstance(value, list) else value


def _split_names(value: object) -> object:
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value


def _refuse_empty(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise ValueError("the command is empty")
    return value


CommandLine = Annotated[
    tuple[str, ...], BeforeValidator(_split_command), AfterValidator(_refuse_empty), Kind("a command line", "COMMAND")
]
StepNames = Annotated[tuple[str, ...], BeforeValidator(_split_names), Kind("names of steps", "STEP,...")]


@declare(frozen=True, kw_only=True, config=STRICT)
class StepText:
    """A step as its chain file describes it."""

    command: CommandLine = parameter(REQUIRED, "command that the step runs")
    after: StepNames = parameter((), "steps that must be complete before this one starts")
    resources: dict[str, Any] = parameter({}, "resources of its job")


@declare(frozen=True, kw_only=True, config=STRICT)
class ChainText:
    """Contents of a chain file."""

    description: str = parameter("", "what the chain makes")
    resources: dict[str, Any] = parameter({}, "default resources of all steps")
    steps: dict[str, dict[str, Any]] = parameter(REQUIRED, "steps by name")


@dataclass(frozen=True)
class Step:
    """One step of a chain."""

    name: str
    command: tuple[str, ...]
    after: tuple[str, ...]
    resources: Resources

    @property
    def indices(self) -> list[int | None]:
        """Indices of its array; without one, None alone."""
        return [*indices(self.resources.array)] or [None]

    @property
    def units(self) -> list[str]:
        """Names of the parts that end independently: the step itself, or each element of its array."""
        return [self.name if index is None else f"{self.name}.{index}" for index in self.indices]

    @property
    def digest(self) -> str:
        """Digest of the command, which shows whether a finished step ran the same one."""
        return hashlib.sha256("\0".join(self.command).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Chain:
    """A chain: its steps by name, each after the steps that it waits for."""

    name: str
    steps: Mapping[str, Step]

    def followers(self, step: Step) -> Iterator[Step]:
        """Yield the steps that wait for a step."""
        return (other for other in self.steps.values() if step.name in other.after)


def find_chain(name: str) -> Path:
    """Find a chain file by its path, or by the name of one that scimill ships.

    Raises
    ------
    ConfigError : there is neither.
    """
    shipped = folder() / "chains"
    for path in (Path(name), shipped / name):
        if path.is_file():
            return path
    names = ", ".join(sorted(path.name for path in shipped.glob("*.yaml")))
    raise ConfigError("chain file not found", where=f"file {name}", allowed=f"a path, or one of {names}")


def read_chain(name: str, flags: Layer, defaults: Layer | None = None) -> Chain:
    """Read a chain.

    Parameters
    ----------
    name : path of its file, or name of one that scimill ships.
    flags : resources that override those in the file.
    defaults : resources that those in the file override.

    Raises
    ------
    ConfigError : the file is missing or invalid, or steps wait for each other in a cycle.
    """
    path = find_chain(name)
    text = build(ChainText, [read_yaml(path)])
    source = f"file {path}"
    _check_name("chain", path.stem, source)
    if not text.steps:
        raise ConfigError("the chain has no steps", where=source)
    common = Layer(f"{source}, resources", {**(defaults.values if defaults else {}), **text.resources})
    read = {name: _read_step(name, values, source, common, flags) for name, values in text.steps.items()}
    return Chain(path.stem, {name: read[name] for name in _sort_steps(read, source)})


def _check_name(kind: str, name: str, source: str) -> None:
    if not STEP.fullmatch(name):
        allowed = "a letter a-z, then at most 30 of a-z, 0-9 and -"
        raise ConfigError(f"invalid name of a {kind}: {name!r}", where=source, allowed=allowed)


def _read_step(name: str, values: Mapping[str, Any], source: str, common: Layer, flags: Layer) -> Step:
    where = f"{source}, step {name}"
    _check_name("step", name, source)
    text = build(StepText, [Layer(where, values)])
    own = Layer(f"{where}, resources", {"name": name[:LONGEST_NAME], **text.resources})
    resources = build(Resources, [common, own, flags])
    return Step(name, text.command, text.after, resources)


def _sort_steps(steps: Mapping[str, Step], source: str) -> list[str]:
    """Sort names so that each step follows those it waits for, otherwise in the order of the file."""
    for step in steps.values():
        for name in step.after:
            if name not in steps:
                where = f"{source}, step {step.name}, after"
                raise ConfigError(f"unknown step {name!r}", where=where, allowed=", ".join(steps))
    try:
        return list(graphlib.TopologicalSorter({name: step.after for name, step in steps.items()}).static_order())
    except graphlib.CycleError as error:
        cycle = " after ".join(error.args[1])
        raise ConfigError(f"steps wait for each other in a cycle: {cycle}", where=source) from None
