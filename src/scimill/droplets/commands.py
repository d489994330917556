"""The commands ``scimill droplets …``."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from scimill.cli import ConfigHelp, LazyGroup, configured, generating, training
from scimill.droplets.params import GenerateConfig, ImportConfig, SolveConfig, TrainConfig
from scimill.parallel.report import say
from scimill.parallel.world import world

if TYPE_CHECKING:
    from scimill.store.output import Output
    from scimill.training.directory import RunDirectory


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
@configured(GenerateConfig, presets="droplets/presets")
def generate(config: GenerateConfig, output: "Output", dry_run: bool, workbook: Path | None, weird_rows: int) -> None:
    """Generate COUNT droplets into the parallel HDF5 file OUTPUT.

    Under mpirun or srun all ranks write the one file, and its bytes do not depend on their number.
    """
    from scimill.droplets import generate as campaign
    from scimill.droplets import workbook as book

    ranks = world()
    if dry_run:
        click.echo(ranks.on_root(campaign.plan, config, output))
        return
    if workbook:
        ranks.on_root(book.check_target, workbook)
    _tell(campaign.generate(config, output, ranks), output, f"{config.count:,} droplets")
    if workbook:
        ranks.on_root(book.write, output.path, workbook, weird_rows)
        click.echo(f"{workbook}: weird droplets, at most {weird_rows:,} of each class")


@droplets.command(name="import-data", cls=ConfigHelp)
@click.argument("files", nargs=-1, type=click.Path())
@generating
@configured(ImportConfig, positional="files")
def import_data(config: ImportConfig, output: "Output", dry_run: bool) -> None:
    """Read FILES of headerless 9 x float32 records into the store OUTPUT."""
    from scimill.droplets import records

    ranks = world()
    count = ranks.on_root(records.count_all, config)
    if dry_run:
        click.echo(f"{output.path}: {count:,} records of {len(config.files)} files")
        return
    _tell(records.import_files(config, output, ranks), output, f"{count:,} records")


def _tell(is_new: bool, output: "Output", content: str) -> None:
    """Say what has been made."""
    if not is_new and world().is_root:
        say(f"{output.path} was complete already")
    click.echo(f"{output.path}: {content}")


@droplets.command(cls=ConfigHelp)
@click.argument("store", type=click.Path(path_type=Path))
@training
@configured(TrainConfig, presets="droplets/presets/train")
def train(config: TrainConfig, store: Path, directory: "RunDirectory") -> None:
    """Train the network that replaces the integration on the droplets of STORE.

    Under mpirun or horovodrun all ranks train one network: the same batches, whatever their number.
    """
    from scimill.droplets.train import train_network

    is_new = train_network(config, store, directory, world())
    if not is_new and world().is_root:
        say(f"{directory.path} was finished already")
    click.echo(f"{directory.path}: model.pt, metrics.csv")


@droplets.command(name="export-data")
@click.argument("store", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
def export_data(store: Path, output: Path, overwrite: bool) -> None:
    """Write the sample of STORE to OUTPUT as headerless 9 x float32 records."""
    from scimill.droplets import records
    from scimill.store.output import Output

    count = world().on_root(records.export_file, store, Output(output, overwrite=overwrite))
    click.echo(f"{output}: {count:,} records")


@droplets.command()
@click.argument("store", type=click.Path(path_type=Path))
@click.option("--output", "folder", type=click.Path(path_type=Path), required=True, help="Directory for the PNG files.")
def plot(store: Path, folder: Path) -> None:
    """Draw the inputs, outcomes, weird droplets and some trajectories of STORE as PNG files."""
    from scimill.droplets import plots

    for path in world().on_root(plots.plot_store, store, folder):
        click.echo(path)


@droplets.command(cls=ConfigHelp)
@click.option("--plot", "picture", type=click.Path(path_type=Path), help="Also draw it to this .png.")
@configured(SolveConfig)
def solve(config: SolveConfig, picture: Path | None) -> None:
    """Integrate one droplet and print its radius and temperature along time."""
    from scimill.droplets import solve as single

    trajectory = single.trajectory(config)
    click.echo(single.table(trajectory, config.rows))
    if picture:
        from scimill.droplets import plots

        plots.plot_trajectory(trajectory, picture)
