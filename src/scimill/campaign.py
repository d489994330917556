"""A campaign: a science task, what identifies its data, and how its stores are filled."""

import dataclasses
import importlib.metadata
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scimill import config as configuration
from scimill.errors import ConfigError, InputError
from scimill.files import check_directory, free_text
from scimill.parallel.report import human
from scimill.parallel.world import Stop, World

if TYPE_CHECKING:
    from scimill.store.layout import Layout
    from scimill.store.output import Output
    from scimill.store.provenance import Provenance
    from scimill.store.reader import Reader
    from scimill.store.writer import BlockData, Writer

GROUP = "scimill.campaigns"
"""Entry points of this group name a `Campaign` each."""
OWN_PACKAGE = "scimill"
RESERVED_NUMBERS = 2**16
"""Smaller stream numbers belong to the campaigns that scimill ships."""


@dataclasses.dataclass(frozen=True)
class Campaign:
    """A science task.

    Parameters
    ----------
    name : its command and its name in stores, databases and models; that of its entry point, too.
    package : import path of its package: the click group NAME is in PACKAGE.commands, presets lie in PACKAGE/presets.
    number : first word of the spawn key of its random streams; at least `RESERVED_NUMBERS`, and below 2**32, for
        campaigns that scimill does not ship.
    algorithm : raised whenever the same configuration would give other bytes.
    help : one line for ``scimill --help``.
    artifacts : import paths ("module:class") of the kinds of artifacts that only this campaign makes; see `artifacts`.
    makers : import path ("module:function") of what makes a store or dataset, by the name it was filled under; called
        with the stored configuration as YAML, the output and the ranks, to repair one.

    """

    name: str
    package: str
    number: int
    algorithm: int
    help: str
    artifacts: tuple[str, ...] = ()
    makers: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def provenance(self, maker: str, config: str, seed: int) -> "Provenance":
        """Say what a store is made by: the campaign, its package, and a configuration as YAML."""
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
        """Open a store for writing; collective. Return None where it is complete already.

        Parameters
        ----------
        config : what the blocks are made from, a `config.Run`; the output's hints and alignment, if a `config.File`.
        layout, output, world, stop : structure, place, ranks, and whether to stop.
        maker : name under which `makers` may have what makes such a store.
        text : the configuration to store, as YAML, if it is more than `config`.
        explain : given a stored configuration, says what differs from this one, if `config` does not tell.

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
        """Fill a store with blocks; collective. Return False where it is complete already.

        Parameters
        ----------
        config, layout, output, world, maker, record : see `open`.
        make_block : makes a block from its number, and from nothing else.
        unit : what a row is, for the progress.
        prepare : called once before the first block, where there is work to do; collective.

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
        """Refuse a store of another campaign, or of another of its makers than those named, if any is.

        Raises
        ------
        InputError : it is one.
        """
        campaign, maker = (str(reader.provenance.get(name, "")) for name in ("campaign", "maker"))
        if campaign != self.name or (makers and maker not in makers):
            allowed = f"a store made by scimill {self.name} {' or '.join(makers)}".rstrip()
            raise InputError(
                f"a store made by scimill {campaign} {maker}".rstrip(), where=str(reader.path), allowed=allowed
            )


def describe_plan(output: "Output", layout: "Layout", rows: Mapping[str, str]) -> str:
    """Say what filling a store would do, for ``--dry-run``, after checking its place and space. On rank 0.

    Raises
    ------
    StorageError : the output exists, cannot be written, or the disk is too small.
    """
    from scimill.store.output import check_absent, check_space

    check_directory(output.path)
    if not (output.resume or output.overwrite):
        check_absent(output)
    check_space(output.path, layout)
    size = human(layout.data_bytes - layout.table_bytes)
    lines = {"output": str(output.path), "blocks": f"{layout.blocks:,} of {layout.block_rows:,} rows", "size": size,
             **rows, "free": free_text(output.path.parent)}  # fmt: skip
    return describe_rows(lines)


def describe_rows(rows: Mapping[str, str]) -> str:
    """Write rows of a name and a text, one below the other."""
    return "\n".join(f"{name:<10}{text}" for name, text in rows.items())


def distribution_of(name: str) -> importlib.metadata.Distribution | None:
    """Return the distribution that a campaign is installed from; None where it is not installed."""
    points = importlib.metadata.entry_points(group=GROUP, name=name)
    return next((point.dist for point in points), None)


def _source(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ConfigError(f"package {package} of a campaign is not there")
    return Path(spec.origin)
