"""Artifacts: what scimill makes and vouches for. Every kind answers the same questions.

The foundation's own kinds are the store and the training run. A campaign names its own in `Campaign.artifacts`, and
what makes its stores and datasets in `Campaign.makers`.
"""

import dataclasses
import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from scimill.config import Layer, parse_yaml
from scimill.errors import ConfigError, InputError, NotAnArtifact, ScimillError, StorageError
from scimill.files import rename
from scimill.parallel.world import World, is_collective
from scimill.plugins import installed
from scimill.store.output import Output

if TYPE_CHECKING:
    from numpy.typing import NDArray

OWN_KINDS = ("scimill.store.artifact:StoreArtifact", "scimill.training.artifact:RunArtifact")
COMPLETE = "complete"
MOST_NAMED = 10  # blocks or files that a message names
PART = ".part"

Make = Callable[[str, Output, World], object]


@dataclasses.dataclass(frozen=True)
class Findings:
    """What verifying an artifact has found.

    Parameters
    ----------
    summary : one line about a sound artifact.
    problems : one line each; none if it is sound.

    """

    summary: str
    problems: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Values:
    """Values of an artifact under one name; read from the disk when they are asked for.

    Parameters
    ----------
    shape, dtype : of all values together.
    units, long_name : unit, "1" where there is none, and meaning.
    read : returns the values of an index, as numpy's arrays do.
    rows : name of the first dimension.

    """

    shape: tuple[int, ...]
    dtype: str
    units: str
    long_name: str
    read: Callable[[Any], "NDArray[Any]"]
    rows: str = "row"

    def __getitem__(self, index: Any) -> "NDArray[Any]":
        return self.read(index)

    def __len__(self) -> int:
        return self.shape[0]

    def to_numpy(self) -> "NDArray[Any]":
        """Read all values."""
        return self.read(slice(None))


class Artifact(ABC):
    """What scimill makes and vouches for.

    Parameters
    ----------
    path : the file or directory.

    """

    kind: ClassVar[str]
    """its kind in a word or two"""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    @abstractmethod
    def recognise(cls, path: Path) -> bool:
        """Whether a path is of this kind, finished or not, sound or not. Cheap; never raises."""

    @abstractmethod
    def describe_completeness(self) -> str:
        """Return `COMPLETE`, or what is missing."""

    @abstractmethod
    def verify(self, world: World) -> Findings:
        """Check everything that has a checksum; collective.

        Raises
        ------
        ScimillError : so damaged that the rest cannot be checked.
        """

    @abstractmethod
    def repair(self, world: World) -> str:
        """Rebuild what is damaged, delete nothing, and say what was done; collective.

        Raises
        ------
        ScimillError : it cannot be rebuilt; the message says what is lost and what is whole.
        """

    @abstractmethod
    def inspect(self) -> str:
        """Describe what it holds and where it comes from."""

    @abstractmethod
    def identity(self) -> str:
        """Digest that differs between two artifacts of a kind that hold different things."""

    @property
    def is_complete(self) -> bool:
        """Whether nothing of it is left to do."""
        return self.describe_completeness() == COMPLETE

    # ---- in Python ----

    @property
    @abstractmethod
    def provenance(self) -> Mapping[str, Any]:
        """Where it comes from, by name."""

    @property
    def config(self) -> dict[str, Any]:
        """The configuration that it was made with, by parameter."""
        return dict(self._config().values)

    def _config(self) -> Layer:
        return parse_yaml(str(self.provenance.get("config", "")), f"the configuration stored in {self.path}")

    @property
    def fields(self) -> Mapping[str, Values]:
        """The values that it holds, by name."""
        return {}

    @property
    def units(self) -> dict[str, str]:
        """Units of the fields, by name."""
        return {name: values.units for name, values in self.fields.items()}

    def __getitem__(self, name: str) -> Values:
        fields = self.fields
        if name not in fields:
            raise InputError(f"no field {name!r}", where=str(self.path), allowed=", ".join(fields) or "none here")
        return fields[name]

    def to_xarray(self) -> Any:
        """Read all fields into an ``xarray.Dataset``, with units and meanings as attributes.

        Raises
        ------
        ConfigError : xarray is not installed.
        """
        try:
            import xarray
        except ImportError:
            raise ConfigError("xarray is not installed", remedy="pip install xarray, or read .fields") from None
        variables = {
            name: (
                (values.rows, *(f"{name}_{axis}" for axis in range(1, len(values.shape)))),
                values.to_numpy(),
                {"units": values.units, "long_name": values.long_name},
            )
            for name, values in self.fields.items()
        }
        attributes = {name: value for name, value in self.provenance.items() if isinstance(value, str | int | float)}
        return xarray.Dataset(variables, attrs=attributes)

    def __repr__(self) -> str:
        return f"<{self.kind} {self.path}>"


# ---- finding ----------------------------------------------------------------------------------------------------


def kinds() -> Iterator[type[Artifact]]:
    """Every kind of artifact that can be used here: the foundation's, then those of the installed campaigns."""
    campaigns = [plugin.campaign for plugin in installed().values() if plugin.campaign]
    for path in (*OWN_KINDS, *(path for campaign in campaigns for path in campaign.artifacts)):
        try:
            kind: type[Artifact] = load(path)
        except Exception:  # what a stranger's module raises concerns its own artifacts only
            continue
        yield kind


def load(path: str) -> Any:
    """Import what an import path "module:name" names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def find(path: str | Path) -> Artifact:
    """Return the artifact at a path.

    Raises
    ------
    InputError : there is nothing, or nothing that scimill vouches for.
    """
    path = Path(path)
    looked_for = []
    for kind in kinds():
        if kind.recognise(path):
            return kind(path)
        looked_for.append(kind.kind)
    if not path.exists():
        raise InputError("there is no such file or directory", where=str(path))
    raise NotAnArtifact(str(path), looked_for)


def find_to_repair(path: Path) -> Artifact:
    """Return the artifact at a path, or what an interrupted repair has left of it; raises as `find`."""
    part = part_of(path)
    return find(part if part.exists() and not path.exists() else path)


def part_of(path: Path) -> Path:
    """Name of a store or dataset while it is unfinished."""
    return path.with_name(path.name + PART)


def begins_with(path: Path, content: bytes, offset: int = 0) -> bool:
    """Whether a file has these bytes at an offset; False where it cannot be read."""
    try:
        if not path.is_file():  # opening a pipe would wait
            return False
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(len(content)) == content
    except OSError:
        return False


# ---- repair -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What made an artifact: a campaign, one of its makers, the configuration as YAML, and the command line."""

    campaign: str
    maker: str
    config: str
    command_line: str = ""

    @property
    def remedy(self) -> str:
        """How to make it again."""
        return f"make it again: {self.command_line or f'scimill {self.campaign} {self.maker}'}"

    def find_maker(self) -> Make | None:
        """Return the function that makes such an artifact, if its campaign names one."""
        plugin = installed().get(self.campaign)
        path = plugin.campaign.makers.get(self.maker) if plugin and plugin.campaign else None
        return load(path) if path else None


@dataclasses.dataclass(frozen=True)
class Damage:
    """What is damaged of an artifact.

    Parameters
    ----------
    lost : what is damaged and can be recomputed, in words; empty where nothing is.
    whole : what is not.
    obstacle : why recomputing would not give a sound artifact; empty where it would.

    """

    lost: str = ""
    whole: str = ""
    obstacle: str = ""


class Filled(Artifact):
    """An artifact that a maker fills, block by block, and whose damaged blocks the maker can recompute."""

    @abstractmethod
    def recipe(self) -> Recipe:
        """What made it; on one rank."""

    @abstractmethod
    def find_damage(self, world: World) -> Damage:
        """Say what of a finished one is damaged; collective."""

    @abstractmethod
    def sums(self) -> Mapping[int, int]:
        """Checksums of the blocks whose rows in the ledger are whole; on one rank."""

    def prepare_part(self) -> None:
        """Make an unfinished one of it that its maker resumes; on one rank."""
        rename(self.path, part_of(self.path))

    def repair(self, world: World) -> str:
        """Recompute damaged blocks by resuming what made them; collective. See `Artifact.repair`."""
        is_part = self.path.name.endswith(PART)
        finished = self.path.with_name(self.path.name.removesuffix(PART)) if is_part else self.path
        world.on_root(_check_alone, finished)
        damage = Damage() if is_part else self.find_damage(world)
        if not (is_part or damage.lost or damage.obstacle):
            return f"{self.path}: sound; there is nothing to repair"
        recipe, sums = world.on_root(self.recipe), world.on_root(self.sums)
        remake = partial(self._maker(recipe, damage, world), recipe.config, Output(finished, resume=True), world)
        if not is_part:
            self._rehearse(remake, recipe, damage, world)
            world.on_root(self.prepare_part)
        remake()
        again = type(self)(finished)
        findings = again.verify(world)
        if findings.problems:
            what = f"{len(findings.problems)} problems are left: {findings.problems[0]}"
            world.fail(StorageError(what, where=str(finished), remedy=recipe.remedy))
        world.on_root(again.compare, sums, recipe)
        return f"{finished}: {'finished' if is_part else f'repaired {damage.lost}'}; sound"

    def compare(self, before: Mapping[int, int], recipe: Recipe) -> None:
        """Refuse blocks that have come out different: what they are made from has changed."""
        after = self.sums()
        changed = [block for block, checksum in before.items() if after.get(block) != checksum]
        if changed:
            raise StorageError(
                f"{describe_numbers('block', changed)} now hold other bytes than before: an input has changed",
                where=str(self.path), remedy=recipe.remedy,
            )  # fmt: skip

    def _maker(self, recipe: Recipe, damage: Damage, world: World) -> Make:
        make = recipe.find_maker()
        if damage.obstacle or make is None:
            made_by = " ".join(word for word in ("scimill", recipe.campaign, recipe.maker) if word)
            world.fail(self._beyond_repair(damage.obstacle or f"{made_by} cannot recompute blocks", recipe, damage))
        return make

    def _rehearse(self, remake: Callable[[], object], recipe: Recipe, damage: Damage, world: World) -> None:
        """Let the maker look at its inputs and at what is there, which is complete by name, so that it does no more."""
        try:
            remake()
        except ScimillError as error:
            if world.size > 1 and not is_collective(error):
                raise
            where = f" ({error.where})" if error.where else ""
            world.fail(self._beyond_repair(f"{error.what}{where}", recipe, damage))

    def _beyond_repair(self, reason: str, recipe: Recipe, damage: Damage) -> StorageError:
        lost = f"; lost: {damage.lost}" if damage.lost else ""
        whole = f"; whole: {damage.whole}" if damage.whole else ""
        what = f"cannot be repaired, and is left as it was: {reason}"
        return StorageError(what, where=f"{self.path}{lost}{whole}", remedy=recipe.remedy)


def _check_alone(finished: Path) -> None:
    """Refuse to repair what has an unfinished output beside it."""
    part = part_of(finished)
    if finished.exists() and part.exists():
        remedy = "finish it, or move one of them away"
        raise StorageError("an unfinished output of the same name is there", where=str(part), remedy=remedy)


def describe_numbers(noun: str, numbers: Sequence[int]) -> str:
    """Name the first of some numbers: "block 7", "blocks 3, 5 and 9 more"."""
    named = ", ".join(f"{number:,}" for number in numbers[:MOST_NAMED])
    rest = f" and {len(numbers) - MOST_NAMED:,} more" if len(numbers) > MOST_NAMED else ""
    return f"{noun}{'' if len(numbers) == 1 else 's'} {named}{rest}"
