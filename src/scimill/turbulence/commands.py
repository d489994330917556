"""The commands ``scimill turbulence …``."""

from typing import TYPE_CHECKING

import click

from scimill.cli import ConfigHelp, LazyGroup, configured, generating
from scimill.parallel.report import say
from scimill.parallel.world import world
from scimill.turbulence.params import SimulateConfig

if TYPE_CHECKING:
    from scimill.store.output import Output


@click.group(cls=LazyGroup)
def turbulence() -> None:
    """Hasegawa–Wakatani turbulence on many ranks, and corrections of coarse runs that are learned from fine ones."""


@turbulence.command(cls=ConfigHelp)
@generating
@configured(SimulateConfig, presets="turbulence/presets")
def simulate(config: SimulateConfig, output: "Output", dry_run: bool) -> None:
    """Simulate turbulence into the parallel HDF5 file OUTPUT, one snapshot per block.

    Under mpirun or srun the ranks share the fields, and the members of an ensemble share the ranks.
    """
    from scimill.turbulence import simulate as campaign

    ranks = world()
    if dry_run:
        click.echo(ranks.on_root(campaign.plan, config, output, ranks.size))
        return
    if not campaign.simulate(config, output, ranks) and ranks.is_root:
        say(f"{output.path} was complete already")
    click.echo(f"{output.path}: {config.snapshots + 1:,} snapshots of {config.members} members")
