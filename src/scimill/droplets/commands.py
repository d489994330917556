"""The commands ``scimill droplets …``."""

from pathlib import Path

import click

from scimill.cli import ConfigHelp, LazyGroup, configured, generating
from scimill.droplets.params import GenerateConfig
from scimill.errors import ConfigError
from scimill.parallel.report import say
from scimill.parallel.world import world


@click.group(cls=LazyGroup)
def droplets() -> None:
    """Random Lagrangian cloud droplets, their radius and temperature integrated exactly."""


@droplets.command(cls=ConfigHelp)
@generating
@click.option(
    "--weird", "workbook", type=click.Path(path_type=Path), help="Also write the weird droplets to this .xlsx."
)
@click.option("--weird-rows", type=click.IntRange(1, 1_000_000), default=10_000, show_default=True,
              help="Most rows per class in the workbook, an unbiased sample.")  # fmt: skip
@configured(GenerateConfig, presets="scimill.droplets")
def generate(
    config: GenerateConfig,
    output: Path,
    resume: bool,
    overwrite: bool,
    dry_run: bool,
    workbook: Path | None,
    weird_rows: int,
) -> None:
    """Generate COUNT droplets into the parallel HDF5 file OUTPUT.

    Under mpirun or srun all ranks write the one file, and its bytes do not depend on their number.
    """
    from scimill.droplets import generate as campaign
    from scimill.droplets import workbook as book
    from scimill.store.writer import Output

    if resume and overwrite:
        raise ConfigError("--resume and --overwrite exclude each other")
    if dry_run:
        click.echo(campaign.plan(config, output))
        return
    ranks = world()
    if workbook:
        ranks.on_root(book.check_target, workbook, config.keep_weird)
    if not campaign.generate(config, Output(output, resume, overwrite), ranks):
        ranks.on_root(say, f"{output} is complete already")
    ranks.on_root(click.echo, f"{output}: {config.count:,} droplets")
    if workbook:
        ranks.on_root(book.write, output, workbook, weird_rows)
