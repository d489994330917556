"""The commands ``scimill turbulence …``."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scimill.errors import ConfigError
from scimill.options import Group, configured, fill_output, generating, path_argument, report_run, training
from scimill.parallel.world import world
from scimill.training.commands import trials
from scimill.turbulence.params import (
    CoarsenConfig,
    CompareConfig,
    CorrectionsConfig,
    RolloutConfig,
    SimulateConfig,
    TurbulenceTrainConfig,
)  # fmt: skip

if TYPE_CHECKING:
    from scimill.store.output import Output
    from scimill.training.directory import RunDirectory


@click.group(cls=Group)
def turbulence() -> None:
    """Hasegawa–Wakatani turbulence on many ranks, and corrections of coarse runs learned from fine runs."""


@turbulence.command()
@generating
@configured(SimulateConfig, presets="scimill.turbulence/presets")
def simulate(config: SimulateConfig, output: "Output", dry_run: bool) -> None:
    """Simulate turbulence and write the parallel HDF5 file OUTPUT, one snapshot per block.

    Under mpirun or srun the ranks are split among the members of an ensemble; the ranks of a member share its fields.
    """
    from scimill.turbulence import simulate as campaign

    ranks = world()
    plan = partial(world().on_root, campaign.describe_simulation, config, output, ranks.size)
    of_members = f" of each of {config.members} members" if config.members > 1 else ""
    content = f"{config.snapshots + 1:,} snapshots{of_members}"
    fill_output(output, content, plan, partial(campaign.simulate, config, output, ranks), dry_run=dry_run)


@turbulence.command()
@click.argument("fine", type=click.Path(), help="a finished fine run")
@generating
@configured(CoarsenConfig, positional="fine")
def coarsen(config: CoarsenConfig, output: "Output", dry_run: bool) -> None:
    """Put the snapshots of the store FINE on a coarser grid and write them to the store OUTPUT.

    simulate can continue from OUTPUT.
    """
    from scimill.turbulence import coarsen as campaign

    plan = partial(world().on_root, campaign.describe_coarsening, config, output)
    fill = partial(campaign.coarsen, config, output, world())
    fill_output(output, f"coarse states of {config.fine}", plan, fill, dry_run=dry_run)


@turbulence.command()
@click.argument("fine", type=click.Path(), help="a finished fine run")
@generating
@configured(CorrectionsConfig, positional="fine")
def corrections(config: CorrectionsConfig, output: "Output", dry_run: bool) -> None:
    """Compute the error of one coarse step from each state of the store FINE and write it to the store OUTPUT.

    OUTPUT is training data for a network: the states after the coarse step, and the corrections they need.
    """
    from scimill.turbulence import corrections as campaign

    plan = partial(world().on_root, campaign.describe_corrections, config, output)
    fill = partial(campaign.make, config, output, world())
    fill_output(output, f"corrections of {config.fine}", plan, fill, dry_run=dry_run)


@turbulence.command()
@path_argument("store", metavar="CORRECTIONS", help="a store of corrections")
@training
@configured(TurbulenceTrainConfig)
def train(config: TurbulenceTrainConfig, store: Path, directory: "RunDirectory") -> None:
    """Train the network that corrects coarse steps on the pairs in CORRECTIONS.

    Train on single steps first. Then continue with --weights RUN --unroll 4, where each sample runs on for several
    steps from its own corrected states.
    """
    from scimill.turbulence.learning.train import train_network

    report_run(directory, is_new=train_network(config, store, directory, world()))


turbulence.add_command(trials)


@turbulence.command()
@path_argument("model", help="a run directory, or its model.pt")
@click.argument("output", help="file or directory to write")
@click.option("--format", "form", type=click.Choice(["torchscript", "onnx"]), required=True, help="Format of the file.")
@click.option("--zero", is_flag=True, help="Write a network whose weights are zero, to test a coupling.")
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
def export(model: Path, output: str, form: str, zero: bool, overwrite: bool) -> None:
    """Write MODEL, a run directory or its model.pt, to OUTPUT: a file, or redis://host:port/key.

    Its input has halos as wide as the receptive radius, so one file works for slabs of any size.
    """
    from scimill.turbulence.learning import export as exporting

    write = partial(exporting.export, model, output, form, zero=zero, overwrite=overwrite)
    click.echo(f"{output}: {world().on_root(write)}")


@turbulence.command()
@generating
@configured(RolloutConfig)
def rollout(config: RolloutConfig, output: "Output", dry_run: bool) -> None:
    """Run the coarse solver, correct the state after each coarse step, and write the snapshots to OUTPUT.

    The model determines the coarse step, the grid and the equations; the initial snapshot must match them.
    """
    from scimill.turbulence.learning import rollout as campaign

    ranks = world()
    plan = partial(world().on_root, campaign.describe_rollout, config, output, ranks.size)
    content = f"{config.snapshots + 1:,} snapshots per member of a corrected run"
    fill_output(output, content, plan, partial(campaign.rollout, config, output, ranks), dry_run=dry_run)


@turbulence.command()
@path_argument("truth", help="a fine run that the model was not trained on")
@click.option(
    "--output", "folder", type=click.Path(path_type=Path), required=True, help="Directory for tables and pictures."
)
@configured(CompareConfig)
def compare(config: CompareConfig, truth: Path, folder: Path) -> None:
    """Compare corrected runs with the filtered TRUTH, a fine run that the model was not trained on.

    The baselines are the uncorrected coarse solver, and a finer solver that costs no more CPU time than the corrected
    one.
    """
    from scimill.turbulence.learning import compare as comparison

    click.echo(comparison.compare(config, truth, folder, world()))


@turbulence.command(name="export-data")
@path_argument("store", help="a store of snapshots or corrections")
@path_argument("output", help="file or directory to write")
@click.option("--format", "form", type=click.Choice(["well", "pdebench", "hw2d", "netcdf"]), required=True,
              help="Layout of The Well, PDEBench, hw2d, or SiMLInt (netcdf: corrections to a directory).")  # fmt: skip
@click.option("--member", type=click.IntRange(min=0), default=0, show_default=True,
              help="The member to export; only for hw2d.")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
def export_data(store: Path, output: Path, form: str, member: int, overwrite: bool) -> None:
    """Write STORE, with snapshots or corrections, to OUTPUT in another project's layout."""
    from scimill.store.output import Output
    from scimill.turbulence.exchange import export_data as exporting

    for path in world().on_root(exporting.export, store, Output(output, overwrite=overwrite), form, member):
        click.echo(path)


@turbulence.command()
@path_argument("source", help="a store or a run directory")
@click.option("--output", "folder", type=click.Path(path_type=Path),
              help="Directory for the pictures; defaults to the run directory for a training run.")  # fmt: skip
@click.option("--member", type=click.IntRange(min=0), default=0, show_default=True, help="The member to draw.")
@click.option("--animation", type=click.Choice(["gif", "mp4", "none"]), default="gif", show_default=True,
              help="Format of the animation; mp4 needs ffmpeg.")  # fmt: skip
def plot(source: Path, folder: Path | None, member: int, animation: str) -> None:
    """Draw the fields, time traces, spectra and an animation of a store, or the losses of a training run."""
    for path in world().on_root(_draw, source, folder, member, animation):
        click.echo(path)


def _draw(source: Path, folder: Path | None, member: int, animation: str) -> list[Path]:
    if source.is_dir():
        from scimill.training.plots import plot_run

        return [plot_run(source, folder or source)]
    if folder is None:
        raise ConfigError("missing --output", where="scimill turbulence plot", remedy="give a directory")
    from scimill.turbulence.pictures.plots import plot_store

    return plot_store(source, folder, member, animation)
