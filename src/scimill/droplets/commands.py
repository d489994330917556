"""The commands ``scimill droplets …``."""

import dataclasses
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from scimill.config import build, parameters_of
from scimill.droplets.params import (
    DropletsExactConfig,
    DropletsGenerateConfig,
    DropletsImportConfig,
    DropletsRolloutConfig,
    DropletsScoreConfig,
    DropletsTrainConfig,
    SolveConfig,
    TraceScoreConfig,
)
from scimill.errors import ConfigError
from scimill.files import check_workbook
from scimill.options import (
    Group,
    UnseenPath,
    configured,
    fill_output,
    generating,
    layered,
    path_argument,
    report_run,
    training,
    usage_error,
)
from scimill.parallel.report import describe_count
from scimill.parallel.world import world
from scimill.training.commands import trials

if TYPE_CHECKING:
    from scimill.config import Layer
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
@click.argument("files", nargs=-1, type=click.Path(), help="files of records or traces")
@generating
@configured(DropletsImportConfig, presets="scimill.droplets/presets/import", positional="files")
def import_data(config: DropletsImportConfig, output: "Output", dry_run: bool) -> None:
    """Read FILES of headerless records, or traces of a simulation, into the store OUTPUT.

    Say with --preset, --config or flags which physics made them; otherwise it is recorded as unknown.
    """
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
@path_argument("store", help="store of droplets; optional with --rollout", required=False)
@click.option("--output", "folder", type=click.Path(path_type=Path),
              help="Also write results and pictures to this directory.")  # fmt: skip
@click.option("--rollout", "cases", multiple=True, metavar="CASE,...",
              help="Carry droplets through many steps in changing air: chamber, cumulus, fog, marine, all, or a .yaml "
                   "file of the parameters below. Can be repeated.")  # fmt: skip
@click.option("--against", multiple=True, type=UnseenPath(),
              help="Another run directory or model.pt to roll out beside MODEL. Can be repeated.")  # fmt: skip
@layered(DropletsScoreConfig, shown_presets="scimill.droplets/presets/rollout")
def score(
    layers: "list[Layer]", model: Path, store: Path | None, folder: Path | None, cases: tuple[str, ...],
    against: tuple[Path, ...],
) -> None:  # fmt: skip
    """Compare MODEL, a run directory or its model.pt, with exact droplets: of STORE, of its traces, or of roll-outs.

    A network follows each uninterrupted piece of a trace from its first state alone. In a roll-out each step starts
    from the network's own last prediction, as in a large-eddy simulation.
    """
    carrying, following = (_only(cls, layers) for cls in (DropletsRolloutConfig, TraceScoreConfig))
    if not cases and (against or any(layer.values for layer in carrying)):
        raise ConfigError("--against and parameters of roll-outs need --rollout", where="scimill droplets score",
                          remedy="name a case, e.g. --rollout chamber")  # fmt: skip
    if store is None and not cases:
        raise ConfigError("nothing to score with", where="scimill droplets score", remedy="give a store, or --rollout")
    if store is None and any(layer.values for layer in following):
        raise ConfigError("parameters of scoring on traces need a store", where="scimill droplets score",
                          remedy="name a store of traces")  # fmt: skip
    if store is not None:
        from scimill.droplets.learning import score as scoring

        click.echo(world().on_root(scoring.score, model, store, folder, build(TraceScoreConfig, following)))
    if cases:
        click.echo(world().on_root(_roll_out, (model, *against), cases, carrying, folder))


def _only(config: type, layers: "list[Layer]") -> "list[Layer]":
    """Keep the values of the parameters of a config class."""
    names = parameters_of(config)
    kept = [{name: value for name, value in layer.values.items() if name in names} for layer in layers]
    return [dataclasses.replace(layer, values=values) for layer, values in zip(layers, kept, strict=True)]


def _roll_out(paths: tuple[Path, ...], cases: tuple[str, ...], layers: "list[Layer]", folder: Path | None) -> str:
    from scimill.droplets.cases import read_cases
    from scimill.droplets.learning.rollout_score import score_rollouts

    return score_rollouts(paths, read_cases(cases, layers), folder, progress=True)


@droplets.command()
@path_argument("store", help="imported records or traces, or any store of droplets")
@click.option("--quantiles", type=(float, float), default=(0.0, 1.0), show_default=True, metavar="LOW HIGH",
              help="Shares of the values below the lower and below the upper end of each range.")  # fmt: skip
@click.option(
    "--output", "path", type=click.Path(path_type=Path), help="Write the ranges here instead of printing them."
)
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
def ranges(store: Path, quantiles: tuple[float, float], path: Path | None, overwrite: bool) -> None:
    """Measure the ranges of the droplets of STORE as YAML, which generate accepts with --config."""
    from scimill.droplets import ranges as measuring

    text = world().on_root(measuring.measure, store, quantiles, path, overwrite)
    click.echo(f"{path}: the ranges of {store}" if path else text, nl=path is not None)


@droplets.command()
@path_argument("model", help="a run directory, or its model.pt", required=False)
@path_argument("output", help="file to write", required=False)
@click.option("--exact", type=UnseenPath(), metavar="OUT.c|OUT.f90",
              help="Write the exact integrator instead of a network, as C11 or Fortran 2008.")  # fmt: skip
@click.option("--format", "form", type=click.Choice(["torchscript", "onnx", "fortran", "c"]),
              help="Format of the network; by default it follows from the suffix: .pt, .onnx, .f90, .c.")  # fmt: skip
@click.option("--precision", type=click.Choice(["float64", "float32"]), default="float64", show_default=True,
              help="Arithmetic of the network; float32 is faster and differs by about 1e-5. "
                   "With ONNX, also the type of inputs and outputs.")  # fmt: skip
@click.option("--zero", is_flag=True, help="Set all weights to zero, to test the program that calls the network.")
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
@configured(DropletsExactConfig, presets="scimill.droplets/presets", ignored=DropletsGenerateConfig)
def export(
    config: DropletsExactConfig, model: Path | None, output: Path | None, exact: Path | None, overwrite: bool,
    **network: Any,
) -> None:  # fmt: skip
    """Write MODEL, a run directory or its model.pt, to OUTPUT for another program.

    With --exact OUT, write the integrator that makes the training data; the physical constants belong to it.
    Inputs and outputs are in SI units. A Fortran module and the functions in C are named after their file.
    """
    write: Callable[[], str]
    if exact:
        _refuse_given("has no effect on the exact integrator", ("model", "output", *network))
        from scimill.droplets.exchange import integrator

        write = partial(integrator.export, config, exact, overwrite=overwrite)
    else:
        _refuse_given("needs --exact", ("preset", "config_file", *parameters_of(DropletsExactConfig)))
        from scimill.droplets.learning import export as exporting

        if model is None or output is None:
            missing = "model" if model is None else "output"
            raise usage_error(click.UsageError(f"missing {missing}", click.get_current_context()))
        form = exporting.choose_format(output, network.pop("form"))
        write = partial(exporting.export, model, output, form, overwrite=overwrite, **network)
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
