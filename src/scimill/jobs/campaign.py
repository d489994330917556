"""Campaign files: steps, what each runs, and which wait for which.

description: droplets and the network that replaces their integration
resources: {walltime: 1h}                 # of every step that says nothing else
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator
from pydantic.dataclasses import dataclass as declare

from scimill.config import REQUIRED, STRICT, Kind, Layer, build, parameter, read_yaml
from scimill.errors import ConfigError
from scimill.jobs.machine import folder
from scimill.jobs.resources import Resources, indices

STEP = re.compile(r"[a-z][a-z0-9-]{0,30}")
LONGEST_NAME = 15  # characters that every scheduler takes


def _split(value: object) -> object:
    """Split a command line as a shell would, without its substitutions; a YAML list passes through."""
    if isinstance(value, str):
        return tuple(shlex.split(value))
    return tuple(map(str, value)) if isinstance(value, list) else value


def _listed(value: object) -> object:
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value


def _something(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise ValueError("there is no command")
    return value


CommandLine = Annotated[
    tuple[str, ...], BeforeValidator(_split), AfterValidator(_something), Kind("a command line", "COMMAND")
]
Names = Annotated[tuple[str, ...], BeforeValidator(_listed), Kind("names of steps", "STEP,...")]


@declare(frozen=True, kw_only=True, config=STRICT)
class StepText:
    """What a campaign file says of a step."""

    command: CommandLine = parameter(REQUIRED, "what the step runs")
    after: Names = parameter((), "steps that must be complete before it begins")
    resources: dict[str, Any] = parameter({}, "what its job asks for")


@declare(frozen=True, kw_only=True, config=STRICT)
class CampaignText:
    """What a campaign file says."""

    description: str = parameter("", "what the campaign makes")
    resources: dict[str, Any] = parameter({}, "what the jobs of all steps ask for")
    steps: dict[str, dict[str, Any]] = parameter(REQUIRED, "steps by name")


@dataclass(frozen=True)
class Step:
    """A step of a campaign."""

    name: str
    command: tuple[str, ...]
    after: tuple[str, ...]
    resources: Resources

    @property
    def units(self) -> list[str]:
        """Names of what ends by itself: the step, or each element of its array."""
        return [f"{self.name}.{index}" for index in indices(self.resources.array)] or [self.name]

    @property
    def digest(self) -> str:
        """Digest of its command, by which one that was done is known again."""
        return hashlib.sha256("\0".join(self.command).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Campaign:
    """A campaign: its steps by name, those that are waited for before those that wait."""

    name: str
    description: str
    steps: Mapping[str, Step] = field(default_factory=dict)

    def units_before(self, step: Step) -> list[str]:
        """All units that a step waits for."""
        return [unit for name in step.after for unit in self.steps[name].units]

    def followers(self, step: Step) -> Iterator[Step]:
        """Steps that wait for a step."""
        return (other for other in self.steps.values() if step.name in other.after)


def find_campaign(name: str) -> Path:
    """File of a campaign: one that is there, or one that scimill brings.

    Raises
    ------
    ConfigError : neither.
    """
    shipped = folder() / "campaigns"
    for path in (Path(name), shipped / name):
        if path.is_file():
            return path
    names = ", ".join(sorted(path.name for path in shipped.glob("*.yaml")))
    raise ConfigError("there is no such campaign", where=f"file {name}", allowed=f"a path, or one of {names}")


def read_campaign(name: str, flags: Layer) -> Campaign:
    """Read a campaign.

    Parameters
    ----------
    name : path of its file, or name of one that scimill brings.
    flags : resources that win over those of the file.

    Raises
    ------
    ConfigError : no campaign, a step asks for what there is not, or waits for none or, in a circle, for itself.
    """
    path = find_campaign(name)
    text = build(CampaignText, [read_yaml(path)])
    source = f"file {path}"
    if not STEP.fullmatch(path.stem):
        raise ConfigError(f"{path.stem!r} is no name of a campaign", where=source, allowed="a-z, 0-9 and -")
    if not text.steps:
        raise ConfigError("a campaign without steps", where=source)
    common = Layer(f"{source}, resources", text.resources)
    read = {name: _read_step(name, values, source, [common], flags) for name, values in text.steps.items()}
    return Campaign(path.stem, text.description, {name: read[name] for name in _order(read, source)})


def _read_step(name: str, values: Mapping[str, Any], source: str, layers: list[Layer], flags: Layer) -> Step:
    where = f"{source}, step {name}"
    if not STEP.fullmatch(name):
        raise ConfigError(f"{name!r} is no name of a step", where=source, allowed="a-z, 0-9 and -")
    text = build(StepText, [Layer(where, values)])
    own = Layer(f"{where}, resources", {"name": name[:LONGEST_NAME], **text.resources})
    resources = build(Resources, [*layers, own, flags])
    if resources.after:
        raise ConfigError("a step waits for steps, not for jobs", where=where, remedy="write after: beside resources:")
    return Step(name, text.command, text.after, resources)


def _order(steps: Mapping[str, Step], source: str) -> list[str]:
    """Names of steps, those that are waited for first, and else as they are written."""
    for step in steps.values():
        for name in step.after:
            if name not in steps:
                where = f"{source}, step {step.name}, after"
                raise ConfigError(f"there is no step {name!r}", where=where, allowed=", ".join(steps))
    try:
        return list(graphlib.TopologicalSorter({name: step.after for name, step in steps.items()}).static_order())
    except graphlib.CycleError as error:
        circle = " after ".join(error.args[1])
        raise ConfigError(f"steps wait for each other in a circle: {circle}", where=source) from None
