"""The commands ``scimill droplets …``."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from scimill.config import parameters_of
from scimill.droplets.params import (
    DropletsExactConfig,
    DropletsGenerateConfig,
    DropletsImportConfig,
    DropletsTrainConfig,
    SolveConfig,
)
from scimill.errors import ConfigError
from scimill.files import check_workbook
from scimill.options import (
    Group,
    UnseenPath,
    configured,
    fill_output,
    generating,
    path_argument,
    report_run,
    training,
    usage_error,
)
from scimill.parallel.report import describe_count
from scimill.parallel.world import world
from scimill.training.commands import trials

if TYPE_CHECKING:
    from scimill.store.output import Output
    from scimill.training.directory import RunDirectory


@click.group(cls=Group)
def droplets() -> None:
    """Integrate the radius and temperature of random Lagrangian cloud droplets exactly."""


@droplets.command()
@generating
@click.option(
    "--weird", "workbook", type=click.Path(path_type=Path), help="Also write weird droplets to this .xlsx file."
)
@click.option("--weird-rows", type=click.IntRange(1, 1_000_000), default=10_000, show_default=True,
              help="Maximum rows per class in the workbook, an unbiased sample.")  # fmt: skip
@configured(DropletsGenerateConfig, presets="scimill.droplets/presets")
def generate(
    config: DropletsGenerateConfig, output: "Output", dry_run: bool, workbook: Path | None, weird_rows: int
) -> None:
    """Generate COUNT droplets into the parallel HDF5 file OUTPUT.

    Under mpirun or srun all ranks write one file, whose data do not depend on the number of ranks.
    """
    from scimill.droplets import generate as campaign
    from scimill.droplets.exchange import workbook as book

    ranks = world()
    if workbook:
        ranks.on_root(check_workbook, workbook, book.FLAG)
    plan = partial(world().on_root, campaign.describe_generation, config, output)
    fill = partial(campaign.generate, config, output, ranks)
    fill_output(output, describe_count(config.count, "droplet"), plan, fill, dry_run=dry_run)
    if workbook and not dry_run:
        ranks.on_root(book.write, output.path, workbook, weird_rows)
        click.echo(f"{workbook}: weird droplets, at most {weird_rows:,} per class")


@droplets.command(name="import-data")
@click.argument("files", nargs=-1, type=click.Path(), help="files of records")
@generating
@configured(DropletsImportConfig, positional="files")
def import_data(config: DropletsImportConfig, output: "Output", dry_run: bool) -> None:
    """Read FILES of headerless 9 x float32 records into the store OUTPUT."""
    from scimill.droplets.exchange import records

    ranks = world()
    count = ranks.on_root(records.count_all, config)
    plan = partial(world().on_root, records.describe_import, config, output, count)
    fill = partial(records.import_files, config, output, ranks)
    fill_output(output, describe_count(count, "record"), plan, fill, dry_run=dry_run)


@droplets.command()
@path_argument("store", help="store of droplets")
@training
@configured(DropletsTrainConfig, presets="scimill.droplets/presets/train")
def train(config: DropletsTrainConfig, store: Path, directory: "RunDirectory") -> None:
    """Train the network that replaces the integration on the droplets of STORE.

    Under mpirun or horovodrun all ranks train one network. The batches do not depend on the number of ranks.
    """
    from scimill.droplets.learning.train import train_network

    report_run(directory, is_new=train_network(config, store, directory, world()))


@droplets.command(name="export-data")
@path_argument("store", help="store of droplets")
@path_argument("output", help="file to write")
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
def export_data(store: Path, output: Path, overwrite: bool) -> None:
    """Write the sample of STORE to OUTPUT as headerless 9 x float32 records."""
    from scimill.droplets.exchange import records
    from scimill.store.output import Output

    count = world().on_root(records.export_file, store, Output(output, overwrite=overwrite))
    click.echo(f"{output}: {describe_count(count, 'record')}")


@droplets.command()
@path_argument("model", help="a run directory, or its model.pt")
@path_argument("store", help="store of droplets")
@click.option("--output", "folder", type=click.Path(path_type=Path), help="Write score.json and error maps here, too.")
def score(model: Path, store: Path, folder: Path | None) -> None:
    """Compare MODEL, a run directory or its model.pt, with the exact droplets of STORE."""
    from scimill.droplets.learning import score as scoring

    click.echo(world().on_root(scoring.score, model, store, folder))


@droplets.command()
@path_argument("model", help="a run directory, or its model.pt", required=False)
@path_argument("output", help="file to write", required=False)
@click.option("--exact", type=UnseenPath(), metavar="OUT.c|OUT.f90",
              help="Write the exact integrator instead of a network, as C11 or Fortran 2008.")  # fmt: skip
@click.option("--format", "form", type=click.Choice(["torchscript", "onnx", "fortran"]), help="Format of the network.")
@click.option("--precision", type=click.Choice(["float64", "float32"]), default="float64", show_default=True,
              help="Arithmetic of the network; float32 is faster and differs by about 1e-5.")  # fmt: skip
@click.option("--zero", is_flag=True, help="Set all weights to zero, to test the program that calls the network.")
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
@configured(DropletsExactConfig, presets="scimill.droplets/presets", ignored=DropletsGenerateConfig)
def export(
    config: DropletsExactConfig, model: Path | None, output: Path | None, exact: Path | None, overwrite: bool,
    **network: Any,
) -> None:  # fmt: skip
    """Write MODEL, a run directory or its model.pt, to OUTPUT for another program.

    With --exact OUT, write the integrator that makes the training data; the physical constants belong to it.
    Inputs and outputs are in SI units. A Fortran module is named after its file.
    """
    write: Callable[[], str]
    if exact:
        _refuse_given("has no effect on the exact integrator", ("model", "output", *network))
        from scimill.droplets.exchange import integrator

        write = partial(integrator.export, config, exact, overwrite=overwrite)
    else:
        _refuse_given("needs --exact", ("preset", "config_file", *parameters_of(DropletsExactConfig)))
        from scimill.droplets.learning import export as exporting

        if model is None or output is None or not network["form"]:
            missing = "model" if model is None else "output" if output is None else "--format"
            raise usage_error(click.UsageError(f"missing {missing}", click.get_current_context()))
        write = partial(exporting.export, model, output, overwrite=overwrite, **network)
    click.echo(f"{exact or output}: {world().on_root(write)}")


def _refuse_given(why: str, names: Iterable[str]) -> None:
    """Refuse parameters of the command line that do not belong to what it exports."""
    context = click.get_current_context()
    for parameter in context.command.params:
        if parameter.name in names and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE:
            what = parameter.opts[0] if isinstance(parameter, click.Option) else parameter.human_readable_name
            raise ConfigError(f"{what} {why}", where=context.command_path, remedy=f"{context.command_path} --help")


droplets.add_command(trials)


@droplets.command()
@path_argument("source", help="a store, or a run directory")
@click.option("--output", "folder", type=click.Path(path_type=Path),
              help="Directory for the PNG files; optional for a run directory.")  # fmt: skip
def plot(source: Path, folder: Path | None) -> None:
    """Plot SOURCE as PNG files: a store's droplets, or a training run's losses and learning rate."""
    for path in world().on_root(_draw, source, folder):
        click.echo(path)


def _draw(source: Path, folder: Path | None) -> list[Path]:
    if source.is_dir():
        from scimill.training.plots import plot_run

        return [plot_run(source, folder or source)]
    if folder is None:
        raise ConfigError("missing --output", where="scimill droplets plot", remedy="name a directory")
    from scimill.droplets.pictures.plots import plot_store

    return plot_store(source, folder)


@droplets.command()
@click.option("--plot", "picture", type=click.Path(path_type=Path), help="Also plot the droplet to this .png file.")
@configured(SolveConfig)
def solve(config: SolveConfig, picture: Path | None) -> None:
    """Integrate one droplet and print its radius and temperature over time."""
    from scimill.droplets import solve as single

    trajectory = single.trajectory(config)
    click.echo(single.describe_trajectory(trajectory, config.rows))
    if picture:
        from scimill.droplets.pictures import plots

        plots.plot_trajectory(trajectory, picture)
