"""The commands ``scimill turbulence …``."""

from typing import TYPE_CHECKING

import click

from scimill.cli import ConfigHelp, LazyGroup, configured, generating
from scimill.parallel.report import say
from scimill.parallel.world import world
from scimill.turbulence.params import CoarsenConfig, CorrectionsConfig, SimulateConfig

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


@turbulence.command(cls=ConfigHelp)
@click.argument("fine", type=click.Path())
@generating
@configured(CoarsenConfig, positional="fine")
def coarsen(config: CoarsenConfig, output: "Output", dry_run: bool) -> None:
    """Put the snapshots of the store FINE on a coarser grid, in the store OUTPUT, from which simulate goes on."""
    from scimill.turbulence import coarsen as campaign

    ranks = world()
    if dry_run:
        click.echo(ranks.on_root(campaign.plan, config, output))
        return
    if not campaign.coarsen(config, output, ranks) and ranks.is_root:
        say(f"{output.path} was complete already")
    click.echo(f"{output.path}: coarse states of {config.fine}")


@turbulence.command(cls=ConfigHelp)
@click.argument("fine", type=click.Path())
@generating
@configured(CorrectionsConfig, positional="fine")
def corrections(config: CorrectionsConfig, output: "Output", dry_run: bool) -> None:
    """Compare one coarse step from each state of the store FINE with what came of it, in the store OUTPUT.

    OUTPUT holds what a network is trained on: the states after the coarse step, and what they lack of the truth.
    """
    from scimill.turbulence import corrections as campaign

    ranks = world()
    if dry_run:
        click.echo(ranks.on_root(campaign.plan, config, output))
        return
    if not campaign.make(config, output, ranks) and ranks.is_root:
        say(f"{output.path} was complete already")
    click.echo(f"{output.path}: corrections of {config.fine}")
