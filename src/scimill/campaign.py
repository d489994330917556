"""A campaign: a science task, what identifies its data, and how its stores are filled."""

import dataclasses
import importlib.metadata
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scimill import config as configuration
from scimill.errors import ConfigError, InputError, ScimillError
from scimill.files import check_directory, describe_free_space
from scimill.parallel.report import human
from scimill.parallel.world import Stop, World

if TYPE_CHECKING:
    from scimill.store.layout import Layout
    from scimill.store.output import Output
    from scimill.store.provenance import Provenance
    from scimill.store.reader import Reader
    from scimill.store.writer import BlockData, Writer

GROUP = "scimill.campaigns"
"""Group of entry points, each of which names a `Campaign`."""
OWN_PACKAGE = "scimill"
RESERVED_NUMBERS = 2**16
"""Smaller stream numbers belong to the campaigns that scimill ships."""


@dataclasses.dataclass(frozen=True)
class Rate:
    """The measured speed of a command, for estimates of the time that a run takes.

    Parameters
    ----------
    per_core : work per second and core; choose one that most machines reach.
    unit : what is counted, in the plural.
    measured : command that measures it.

    """

    per_core: float
    unit: str
    measured: str

    def __str__(self) -> str:
        return f"{self.per_core:,} {self.unit} per second per core ({self.measured})"


@dataclasses.dataclass(frozen=True)
class Campaign:
    """A science task.

    Parameters
    ----------
    name : name of its command and its entry point, also recorded in stores, databases and models.
    package : import path of its package: the click group NAME is in PACKAGE.commands, presets lie in PACKAGE/presets.
    number : first word of the spawn key of its random streams; at least `RESERVED_NUMBERS`, and below 2**32, for
        campaigns that scimill does not ship.
    algorithm : version of the algorithm; raise it whenever the same configuration would give different bytes.
    help : one line for ``scimill --help``.
    artifacts : import paths ("module:class") of its own kinds of artifacts; see `artifacts`.
    makers : import paths ("module:function") of functions that make a store or dataset, by maker name; to repair one,
        they are called with the stored configuration as YAML, the output and the ranks.
    rates : measured speeds of its commands, by name of the command; `scimill jobs` estimates node-hours from them.

    """

    name: str
    package: str
    number: int
    algorithm: int
    help: str
    artifacts: tuple[str, ...] = ()
    makers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    rates: Mapping[str, Rate] = dataclasses.field(default_factory=dict)

    def describe_time(self, command: str, work: float) -> str:
        """Describe how long a command takes for so much work; its dry run prints it as "time"."""
        rate = self.rates[command]
        return f"about {work / rate.per_core:.3g} core seconds at {rate}"

    def provenance(self, maker: str, config: str, seed: int) -> "Provenance":
        """Return the provenance of a store: the campaign, its package, and a configuration as YAML."""
        from scimill.store.provenance import Provenance, git_state

        distribution = distribution_of(self.name)
        is_own = distribution is None or distribution.name == OWN_PACKAGE
        package = "" if distribution is None or is_own else f"{distribution.name} {distribution.version}"
        return Provenance(
            self.name, self.algorithm, config, seed, maker, package, "" if is_own else git_state(_source(self.package))
        )

    def open(
        self, config: Any, layout: "Layout", output: "Output", world: World, stop: Stop, *, maker: str,
        text: str = "", explain: Callable[[str], str] | None = None,
    ) -> "Writer | None":  # fmt: skip
        """Open a store for writing; collective. Return None if it is already complete.

        Parameters
        ----------
        config : a `config.Run` with all that the blocks depend on; a `config.File` also sets hints and alignment.
        layout, output, world, stop : structure, place, ranks, and whether to stop.
        maker : name of what makes the store; a key of `makers` if such a store can be repaired.
        text : the configuration to store, as YAML, if it is more than `config`.
        explain : describes how a stored configuration differs from this one; by default from `config`.

        Raises
        ------
        ScimillError : see `store.writer.open_writer`.
        """
        from scimill.store.writer import open_writer  # HDF5 takes long to load

        provenance = self.provenance(maker, text or configuration.to_yaml(config), config.seed)
        if isinstance(config, configuration.File):
            output = dataclasses.replace(output, hints=config.mpi_io_hints, alignment=config.alignment)
        return open_writer(world, output, layout, provenance, explain or configuration.explainer(config), stop)

    def fill(
        self, config: Any, layout: "Layout", make_block: Callable[[int], "BlockData"], output: "Output", world: World,
        *, maker: str = "generate", unit: str = "rows", prepare: Callable[[], None] | None = None, **record: Any,
    ) -> bool:  # fmt: skip
        """Fill a store with blocks; collective. Return False if it is already complete.

        Parameters
        ----------
        config, layout, output, world, maker, record : see `open`.
        make_block : makes a block, which must depend on nothing but its number.
        unit : what rows are called in progress reports.
        prepare : called once before the first block if there is work to do; collective.

        Raises
        ------
        Stopped : before the walltime or on a signal; run again with ``--resume``.
        ScimillError : see `store.writer.open_writer`.
        """
        from scimill.store.blocks import run_blocks

        stop = Stop(world, config.walltime, config.walltime_margin)
        writer = self.open(config, layout, output, world, stop, maker=maker, **record)
        if writer is None:
            return False
        if prepare is not None:
            prepare()
        run_blocks(world, writer, make_block, stop, what=f"{self.name} {maker}", unit=unit)
        return True

    def require(self, reader: "Reader", *makers: str) -> None:
        """Refuse a store of another campaign or, if makers are named, of another maker.

        Raises
        ------
        InputError : the store is not one of these.
        """
        campaign, maker = (str(reader.provenance.get(name, "")) for name in ("campaign", "maker"))
        if campaign != self.name or (makers and maker not in makers):
            allowed = f"a store made by scimill {self.name} {' or '.join(makers)}".rstrip()
            raise InputError(
                f"the store was made by scimill {campaign} {maker}".rstrip(), where=str(reader.path), allowed=allowed
            )


def describe_plan(output: "Output", layout: "Layout", rows: Mapping[str, str]) -> str:
    """Describe what filling a store would do, and check path and space. On rank 0.

    Raises
    ------
    StorageError : the output exists, cannot be written, or the disk is too small; the plan is printed before.
    """
    from scimill.store.output import check_absent, check_space

    def check() -> None:
        check_directory(output.path)
        if not (output.resume or output.overwrite):
            check_absent(output)
        check_space(output.path, layout)

    size = human(layout.data_bytes - layout.table_bytes)
    blocks = f"{layout.blocks:,}, each of {layout.block_rows:,} rows"
    return checked_plan(output, {"blocks": blocks, "size": size, **rows}, check)


def checked_plan(output: "Output", rows: Mapping[str, str], check: Callable[[], None]) -> str:
    """Describe a plan. If something is lacking, print the plan, and raise what `check` raises."""
    place = output.path
    text = describe_rows({"output": str(place), **rows, "free": describe_free_space(place.parent)})
    try:
        check()
    except ScimillError:
        print(text)
        raise
    return text


def describe_rows(rows: Mapping[str, str]) -> str:
    """Format names and texts as a table of two columns."""
    return "\n".join(f"{name:<10}{text}" for name, text in rows.items())


def distribution_of(name: str) -> importlib.metadata.Distribution | None:
    """Return the distribution that a campaign is installed from; None if it is not installed."""
    points = importlib.metadata.entry_points(group=GROUP, name=name)
    return next((point.dist for point in points), None)


def _source(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ConfigError(f"the package {package} of a campaign is missing")
    return Path(spec.origin)
