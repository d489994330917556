"""The commands ``scimill sky …``."""

from typing import TYPE_CHECKING

import click

from scimill.cli import ConfigHelp, LazyGroup, configured, generating
from scimill.parallel.world import world
from scimill.sky.params import SceneConfig

if TYPE_CHECKING:
    from scimill.store.output import Output


@click.group(cls=LazyGroup)
def sky() -> None:
    """Pairs of colour and thermal images of Sage nodes, and networks that learn to agree on them."""


@sky.command(cls=ConfigHelp)
@generating
@configured(SceneConfig)
def scene(config: SceneConfig, output: "Output", dry_run: bool) -> None:
    """Make a synthetic campaign of FRAMES pairs per node below the directory OUTPUT.

    The files have the layout and the names of the real ones; truth.csv holds what is true of each frame.
    """
    from scimill.sky import scene as campaign

    ranks = world()
    if dry_run:
        click.echo(ranks.on_root(campaign.plan, config, output))
        return
    count = campaign.make_scene(config, output, ranks)
    click.echo(f"{output.path}: {count:,} frames of {config.nodes} nodes; nodes.csv, truth.csv, sage_meta/")
