"""The commands ``scimill pendulum ...``."""

from functools import partial

import click

from pendulum import CAMPAIGN
from pendulum.params import GenerateConfig
from scimill.campaign import describe_plan
from scimill.options import Group, configured, fill_output, generating, path_argument, report_run, training
from scimill.parallel.world import world
from scimill.training.params import TrainingConfig


@click.group(cls=Group)
def pendulum():
    """Pendulums released from rest."""


@pendulum.command()
@generating
@configured(GenerateConfig, presets="pendulum/presets")
def generate(config, output, dry_run):
    """Generate pendulums into the parallel HDF5 file OUTPUT."""
    from pendulum.generate import layout, make_block

    rows, content = layout(config), f"{config.count:,} pendulums"
    plan = partial(world().on_root, describe_plan, output, rows, {})
    fill = partial(CAMPAIGN.fill, config, rows, partial(make_block, config), output, world())
    fill_output(output, content, plan, fill, dry_run=dry_run)


@pendulum.command()
@path_argument("store")
@training
@configured(TrainingConfig)
def train(config, store, directory):
    """Train the network that gives the angle on the pendulums of STORE."""
    from pendulum.learning import PendulumTask
    from scimill.training import run

    is_new = run.train(partial(PendulumTask, config.seed), store, directory, config, world())
    report_run(directory, is_new=is_new)
