"""Artifacts: the outputs that scimill makes and can verify. Every kind has the same methods.

The built-in kinds are the store and the training run. A campaign lists its own kinds in `Campaign.artifacts`, and the
functions that make its stores and datasets in `Campaign.makers`.
"""

import dataclasses
import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from scimill.config import Layer, parse_yaml
from scimill.errors import ConfigError, InputError, NotAnArtifact, ScimillError, StorageError
from scimill.files import rename
from scimill.parallel.report import describe_count, describe_numbers
from scimill.parallel.world import World, is_collective
from scimill.plugins import installed
from scimill.store.output import Output

if TYPE_CHECKING:
    from numpy.typing import NDArray

OWN_KINDS = ("scimill.store.artifact:StoreArtifact", "scimill.training.artifact:RunArtifact")
COMPLETE = "complete"
PART = ".part"

Make = Callable[[str, Output, World], object]


@dataclasses.dataclass(frozen=True)
class Findings:
    """Result of verifying an artifact.

    Parameters
    ----------
    summary : one line about a sound artifact.
    problems : one line each; empty if it is sound.

    """

    summary: str
    problems: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Values:
    """One field of an artifact; its values are read from the disk on request.

    Parameters
    ----------
    shape, dtype : shape and type of all values.
    units, long_name : unit ("1" if it has none) and meaning.
    read : returns the values at a numpy index.
    rows : name of the first dimension.
    axes : names of the others; made from the field's name if empty.

    """

    shape: tuple[int, ...]
    dtype: str
    units: str
    long_name: str
    read: Callable[[Any], "NDArray[Any]"]
    rows: str = "row"
    axes: tuple[str, ...] = ()

    def __getitem__(self, index: Any) -> "NDArray[Any]":
        return self.read(index)

    def __len__(self) -> int:
        return self.shape[0]

    def to_numpy(self) -> "NDArray[Any]":
        """Read all values."""
        return self.read(slice(None))


class Artifact(ABC):
    """An output that scimill makes and can verify.

    Parameters
    ----------
    path : the file or directory.

    """

    kind: ClassVar[str]
    """name of the kind"""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    @abstractmethod
    def recognise(cls, path: Path) -> bool:
        """Return whether a path is of this kind, even if unfinished or damaged. Cheap; never raises."""

    @abstractmethod
    def describe_completeness(self) -> str:
        """Return `COMPLETE`, or what is missing."""

    @abstractmethod
    def verify(self, world: World) -> Findings:
        """Check everything that has a checksum; collective.

        Raises
        ------
        ScimillError : it is too damaged to check the rest.
        """

    @abstractmethod
    def repair(self, world: World) -> str:
        """Rebuild the damaged parts, delete nothing, and describe what was done; collective.

        Raises
        ------
        ScimillError : it cannot be rebuilt; the message says what is lost and what is intact.
        """

    @abstractmethod
    def inspect(self) -> str:
        """Describe what it holds and where it comes from."""

    @abstractmethod
    def identity(self) -> str:
        """Return a digest that differs between artifacts of one kind with different content."""

    @property
    def is_complete(self) -> bool:
        """Whether it is complete."""
        return self.describe_completeness() == COMPLETE

    # ---- in Python ----

    @property
    @abstractmethod
    def provenance(self) -> Mapping[str, Any]:
        """Provenance by name: configuration, versions, host and so on."""

    @property
    def config(self) -> dict[str, Any]:
        """The configuration that it was made with, by parameter."""
        return dict(self._config().values)

    def _config(self) -> Layer:
        return parse_yaml(str(self.provenance.get("config", "")), f"the configuration stored in {self.path}")

    @property
    def fields(self) -> Mapping[str, Values]:
        """Fields by name."""
        return {}

    @property
    def units(self) -> dict[str, str]:
        """Units of the fields, by name."""
        return {name: values.units for name, values in self.fields.items()}

    def __getitem__(self, name: str) -> Values:
        fields = self.fields
        if name not in fields:
            raise InputError(
                f"no field {name!r}", where=str(self.path), allowed=", ".join(fields) or "this artifact has no fields"
            )
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
            raise ConfigError("xarray is not installed", remedy="pip install xarray, or use .fields") from None
        variables = {
            name: (
                (values.rows, *(values.axes or (f"{name}_{axis}" for axis in range(1, len(values.shape))))),
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
    """Yield every usable kind of artifact: the built-in ones, then those of installed campaigns."""
    campaigns = [plugin.campaign for plugin in installed().values() if plugin.campaign]
    for path in (*OWN_KINDS, *(path for campaign in campaigns for path in campaign.artifacts)):
        try:
            kind: type[Artifact] = load(path)
        except Exception:  # a broken third-party module must not affect other artifacts
            continue
        yield kind


def load(path: str) -> Any:
    """Import the object at an import path "module:name"."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def find(path: str | Path) -> Artifact:
    """Return the artifact at a path.

    Raises
    ------
    InputError : the path does not exist, or is not an artifact.
    """
    path = Path(path)
    looked_for = []
    for kind in kinds():
        if kind.recognise(path):
            return kind(path)
        looked_for.append(kind.kind)
    if not path.exists():
        raise InputError("no such file or directory", where=str(path))
    raise NotAnArtifact(str(path), looked_for)


def find_to_repair(path: Path) -> Artifact:
    """Return the artifact at a path, or its unfinished repair; raises as `find`."""
    part = part_of(path)
    return find(part if part.exists() and not path.exists() else path)


def part_of(path: Path) -> Path:
    """Return the name of a store or dataset while it is unfinished."""
    return path.with_name(path.name + PART)


def begins_with(path: Path, content: bytes, offset: int = 0) -> bool:
    """Return whether a file has these bytes at an offset; False if it cannot be read."""
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
    """How an artifact was made: campaign, maker, configuration as YAML, and command line."""

    campaign: str
    maker: str
    config: str
    command_line: str = ""

    @property
    def remedy(self) -> str:
        """How to generate it again."""
        return f"generate it again: {self.command_line or f'scimill {self.campaign} {self.maker}'}"

    def find_maker(self) -> Make | None:
        """Return the function that makes such an artifact, if its campaign names one."""
        plugin = installed().get(self.campaign)
        path = plugin.campaign.makers.get(self.maker) if plugin and plugin.campaign else None
        return load(path) if path else None


@dataclasses.dataclass(frozen=True)
class Damage:
    """Damage of an artifact.

    Parameters
    ----------
    lost : description of the damaged parts; empty if there are none.
    whole : description of the intact parts.
    obstacle : why recomputing would not give a sound artifact; empty if it would.

    """

    lost: str = ""
    whole: str = ""
    obstacle: str = ""


class BlockArtifact(Artifact):
    """An artifact made block by block, whose damaged blocks its maker can recompute."""

    @abstractmethod
    def recipe(self) -> Recipe:
        """Return how it was made; call it on one rank."""

    @abstractmethod
    def find_damage(self, world: World) -> Damage:
        """Find the damage of a finished artifact; collective."""

    @abstractmethod
    def sums(self) -> Mapping[int, int]:
        """Return the checksums of blocks with an intact ledger row; call it on one rank."""

    def prepare_part(self) -> None:
        """Turn it into an unfinished output that its maker can resume; call it on one rank."""
        rename(self.path, part_of(self.path))

    def repair(self, world: World) -> str:
        """Recompute damaged blocks by resuming the maker; collective. See `Artifact.repair`."""
        is_part = self.path.name.endswith(PART)
        finished = self.path.with_name(self.path.name.removesuffix(PART)) if is_part else self.path
        world.on_root(_check_alone, finished)
        damage = Damage() if is_part else self.find_damage(world)
        if not (is_part or damage.lost or damage.obstacle):
            return f"{self.path}: sound; there is nothing to repair"
        recipe, sums = world.on_root(self.recipe), world.on_root(self.sums)
        remake = partial(self._maker(recipe, damage, world), recipe.config, Output(finished, resume=True), world)
        if not is_part:
            self._check_inputs(remake, recipe, damage, world)
            world.on_root(self.prepare_part)
        remake()
        again = type(self)(finished)
        findings = again.verify(world)
        if findings.problems:
            what = f"{describe_count(len(findings.problems), 'problem')} left: {findings.problems[0]}"
            world.fail(StorageError(what, where=str(finished), remedy=recipe.remedy))
        world.on_root(again.compare, sums, recipe)
        return f"{finished}: {'finished' if is_part else f'repaired {damage.lost}'}; sound"

    def compare(self, before: Mapping[int, int], recipe: Recipe) -> None:
        """Refuse recomputed blocks that differ from before: an input has changed."""
        after = self.sums()
        changed = [block for block, checksum in before.items() if after.get(block) != checksum]
        if changed:
            raise StorageError(
                f"an input has changed: recomputing gave different bytes in {describe_numbers('block', changed)}",
                where=str(self.path), remedy=recipe.remedy,
            )  # fmt: skip

    def _maker(self, recipe: Recipe, damage: Damage, world: World) -> Make:
        make = recipe.find_maker()
        if damage.obstacle or make is None:
            made_by = " ".join(word for word in ("scimill", recipe.campaign, recipe.maker) if word)
            world.fail(self._beyond_repair(damage.obstacle or f"{made_by} cannot recompute blocks", recipe, damage))
        return make

    def _check_inputs(self, remake: Callable[[], object], recipe: Recipe, damage: Damage, world: World) -> None:
        """Run the maker on the output under its final name: it checks its inputs and computes nothing."""
        try:
            remake()
        except ScimillError as error:
            if world.size > 1 and not is_collective(error):
                raise
            where = f" ({error.where})" if error.where else ""
            world.fail(self._beyond_repair(f"{error.what}{where}", recipe, damage))

    def _beyond_repair(self, reason: str, recipe: Recipe, damage: Damage) -> StorageError:
        lost = f"; lost: {damage.lost}" if damage.lost else ""
        whole = f"; intact: {damage.whole}" if damage.whole else ""
        what = f"cannot be repaired; nothing was changed: {reason}"
        return StorageError(what, where=f"{self.path}{lost}{whole}", remedy=recipe.remedy)


def _check_alone(finished: Path) -> None:
    """Refuse to repair an artifact that has an unfinished output beside it."""
    part = part_of(finished)
    if finished.exists() and part.exists():
        remedy = "finish it, or move one of them away"
        raise StorageError("an unfinished output of the same name exists", where=str(part), remedy=remedy)
