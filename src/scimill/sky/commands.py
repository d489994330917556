"""The commands ``scimill sky …``."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scimill.errors import ConfigError
from scimill.files import check_target, check_workbook
from scimill.options import Group, configured, fill_output, generating, path_argument, report_run, training
from scimill.parallel.report import describe_count, say
from scimill.parallel.world import world
from scimill.sky.params import AlignConfig, EmbedConfig, PairConfig, PrepareConfig, SceneConfig, SkyTrainConfig
from scimill.training.commands import trials

if TYPE_CHECKING:
    from scimill.store.output import Output
    from scimill.training.directory import RunDirectory


@click.group(cls=Group)
def sky() -> None:
    """Pairs of colour and thermal images of Sage nodes, and networks that give both the same embedding."""


@sky.command()
@generating
@configured(SceneConfig)
def scene(config: SceneConfig, output: "Output", dry_run: bool) -> None:
    """Make a synthetic deployment of FRAMES pairs per node below the directory OUTPUT.

    Layout and file names are those of real deployments. truth.csv has the true sky of each frame.
    """
    from scimill.sky import scene as making

    ranks = world()
    if dry_run:
        click.echo(ranks.on_root(making.describe_scene, config, output))
        return
    count = making.make_scene(config, output, ranks)
    frames, nodes = describe_count(count, "frame"), describe_count(config.nodes, "node")
    click.echo(f"{output.path}: {frames} of {nodes}; nodes.csv, truth.csv, sage_meta/")


@sky.command()
@path_argument("source", metavar="INPUT", help="a download folder, a training set, or saved metadata")
@click.option("--nodes", "nodes", type=click.Path(path_type=Path), required=True, help="The table of nodes, CSV.")
@click.option(
    "--output", "index", type=click.Path(path_type=Path), required=True, help="Write the index of pairs to this CSV."
)
@click.option("--files", "folder", type=click.Path(path_type=Path),
              help="For metadata: the folder of the image files; the folder of INPUT if not given.")  # fmt: skip
@click.option("--report", type=click.Path(path_type=Path), help="List every file that is in no pair in this CSV.")
@click.option("--workbook", type=click.Path(path_type=Path), help="List the pairs and all other files in this .xlsx.")
@click.option("--overwrite", is_flag=True, help="Replace an existing index.")
@configured(PairConfig)
def pair(
    config: PairConfig, source: Path, nodes: Path, index: Path, folder: Path | None, report: Path | None,
    workbook: Path | None, overwrite: bool,
) -> None:  # fmt: skip
    """Match the images of INPUT: a downloaded tree, a folder with train/pairs, or saved metadata (NDJSON, CSV).

    Two images of the same node, time and position form a pair. Reports every file that has no partner, and why. All
    ranks share the reading.
    """
    from scimill.sky import pair as pairing
    from scimill.sky.exchange import workbook as book

    ranks = world()
    ranks.on_root(lambda: check_target(index, overwrite=overwrite))
    if workbook:
        ranks.on_root(check_workbook, workbook, "--workbook")
    result = pairing.pair(config, source, nodes, folder, ranks)
    wanted = [(report, pairing.write_report), (workbook, book.write_workbook)]
    ranks.on_root(pairing.write_all, result, index, [(path, write) for path, write in wanted if path])
    click.echo(pairing.describe_pairing(result))


@sky.command()
@path_argument("index", help="index of pairs, CSV")
@click.option("--nodes", type=click.Path(path_type=Path), required=True, help="The table of nodes, CSV.")
@click.option(
    "--output", type=click.Path(path_type=Path), required=True, help="Write the table of nodes with boxes to this CSV."
)
@click.option("--overwrite", is_flag=True, help="Replace an existing table.")
@configured(AlignConfig)
def align(config: AlignConfig, index: Path, nodes: Path, output: Path, overwrite: bool) -> None:
    """Find the part of the optical image that each node's thermal camera sees.

    This box maximises the mutual information of both images over daytime pairs of INDEX with clouds.
    """
    from scimill.sky import align as aligning

    ranks = world()
    ranks.on_root(aligning.check_output, output, nodes, overwrite)
    found = aligning.align(config, index, nodes, ranks)
    ranks.on_root(aligning.write_boxes, found, output)
    click.echo(aligning.describe_boxes(found))


@sky.command()
@path_argument("index", help="index of pairs, CSV")
@generating
@click.option(
    "--nodes", type=click.Path(path_type=Path), help="The table of nodes with the boxes of their cameras, CSV."
)
@configured(PrepareConfig)
def prepare(config: PrepareConfig, index: Path, output: "Output", nodes: Path | None, dry_run: bool) -> None:
    """Decode the pairs of INDEX into the parallel HDF5 file OUTPUT.

    Under mpirun or srun all ranks write into one file. Its bytes do not depend on the number of ranks.
    """
    from scimill.sky import prepare as preparing

    ranks = world()
    if dry_run:
        click.echo(ranks.on_root(preparing.describe_preparation, config, index, nodes, output))
        return
    plan = preparing.prepare(config, index, nodes, output, ranks)
    if plan is None and ranks.is_root:
        say(f"{output.path} was already complete")
    click.echo(f"{output.path}: " + ranks.on_root(preparing.describe_pairs, output.path))


@sky.command()
@path_argument("store", help="store of pairs")
@training
@configured(SkyTrainConfig, presets="scimill.sky/presets/train")
def train(config: SkyTrainConfig, store: Path, directory: "RunDirectory") -> None:
    """Train two networks to give both images of a pair of STORE the same embedding (VICReg).

    Under mpirun or horovodrun all ranks train the same two networks, with the statistics of the whole batch.
    """
    from scimill.sky.learning.train import train_network

    report_run(directory, is_new=train_network(config, store, directory, world()))


sky.add_command(trials)


@sky.command()
@path_argument("model", help="a run directory, or its model.pt")
@path_argument("store", help="store of pairs")
@generating
@configured(EmbedConfig)
def embed(config: EmbedConfig, model: Path, store: Path, output: "Output", dry_run: bool) -> None:
    """Compute features and embeddings of the pairs of STORE with MODEL, and write them to OUTPUT."""
    from scimill.sky.learning import embed as embedding

    plan = partial(world().on_root, embedding.describe_embedding, model, store, output)
    fill = partial(embedding.embed_store, config, model, store, output, world())
    fill_output(output, "features and embeddings of both cameras", plan, fill, dry_run=dry_run)


@sky.command()
@path_argument("embeddings", help="store of embeddings")
@click.option("--truth", type=click.Path(path_type=Path), help="CSV of labels by timestamp and vsn, for the probes.")
@click.option(
    "--output",
    "folder",
    type=click.Path(path_type=Path),
    help="Also write evaluation.json and evaluation.png to this directory.",
)
def evaluate(embeddings: Path, truth: Path | None, folder: Path | None) -> None:
    """Evaluate EMBEDDINGS on pairs that training has not seen: recall across cameras, probes, effective rank."""
    from scimill.sky.learning import evaluate as evaluation

    click.echo(world().on_root(evaluation.describe_evaluation, embeddings, truth, folder))


@sky.command(name="export-data")
@path_argument("store", help="store of pairs")
@path_argument("output", help="directory to write")
@click.option("--format", "form", type=click.Choice(["pairs"]), default="pairs", show_default=True,
              help="pairs: loose JPG and CSV files, train/{rgb,thermal,pairs}.")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Write into a directory that is not empty.")
def export_data(store: Path, output: Path, form: str, overwrite: bool) -> None:
    """Write the pairs of STORE as loose files below the directory OUTPUT, for other tools."""
    from scimill.sky.exchange import stored

    count = stored.export_pairs(store, output, world(), overwrite=overwrite)
    click.echo(f"{output}: {describe_count(count, 'pair')}")


@sky.command()
@path_argument("source", help="a store or a run directory")
@click.option("--output", "folder", type=click.Path(path_type=Path),
              help="Directory for the PNG files; the run directory itself if not given for a run.")  # fmt: skip
def plot(source: Path, folder: Path | None) -> None:
    """Draw SOURCE as PNG files: some pairs of a store, or the losses and learning rate of a training run."""
    click.echo(world().on_root(_draw, source, folder))


def _draw(source: Path, folder: Path | None) -> Path:
    if source.is_dir():
        from scimill.training.plots import plot_run

        return plot_run(source, folder or source)
    if folder is None:
        raise ConfigError(
            "missing --output", where="scimill sky plot", remedy="give a directory, e.g. --output pictures"
        )
    from scimill.sky.pictures.plots import plot_store

    return plot_store(source, folder)
