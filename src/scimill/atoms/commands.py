"""The commands ``scimill atoms …``."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
import yaml

from scimill.atoms.params import (
    AddConfig,
    AtomsImportConfig,
    AtomsTrainConfig,
    CacheConfig,
    EvaluateConfig,
    ExportConfig,
    ReduceConfig,
    UpdateConfig,
)
from scimill.config import plain
from scimill.errors import ConfigError, Stopped
from scimill.options import Group, configured, path_argument, training
from scimill.parallel.report import describe_count, say
from scimill.parallel.world import Stop, world
from scimill.training.commands import trials

if TYPE_CHECKING:
    from scimill.atoms.database.database import Database
    from scimill.training.directory import RunDirectory

DATABASE = click.argument("database", type=click.Path(path_type=Path), help="directory of the database")
FILES = click.argument("files", nargs=-1, type=click.Path(), help="structure files")


@click.group(cls=Group)
def atoms() -> None:
    """Databases of atomic structures for active learning."""


def _open(path: Path, config: AddConfig | AtomsImportConfig) -> "Database":
    """Open a database for adding structures."""
    from scimill.atoms.database.admission import Admission
    from scimill.atoms.database.database import Database

    admission = Admission(config.test_fraction, config.seed, config.nan_labels == "missing", config.duplicates)
    return Database(path, write=True, world=world(), admission=admission)


def _report_ignored(names: tuple[str, ...]) -> None:
    if names and world().is_root:
        say(f"properties ignored: {', '.join(names)}; use --properties to assign them to columns")


@atoms.command()
@DATABASE
@FILES
@configured(AddConfig, positional="files")
def add(config: AddConfig, database: Path) -> None:
    """Add the structures of FILES to DATABASE one by one; each is saved at once.

    If a structure is refused, the structures before it stay. Runs in one process only.
    """
    from scimill.atoms.exchange.ingest import add_files
    from scimill.atoms.exchange.properties import Properties

    ranks = world()
    if ranks.size > 1:
        ranks.fail(
            ConfigError("add runs in one process only", remedy="use scimill atoms import to run on several ranks")
        )
    properties = Properties(config.properties)
    stop = Stop(ranks, config.walltime, config.walltime_margin)
    with _open(database, config) as opened:
        added = 0
        for _ in add_files(opened, [Path(path) for path in config.files], properties):
            added += 1
            if stop.requested():
                raise Stopped(f"stopped by {stop.reason}; structures added: {added:,}")
        total = opened.total
    _report_ignored(tuple(sorted(properties.ignored)))
    click.echo(f"{database}: {describe_count(added, 'structure')} added, {total:,} in all")


@atoms.command(name="import")
@DATABASE
@FILES
@click.option("--dry-run", is_flag=True, help="Count the structures and write nothing.")
@configured(AtomsImportConfig, positional="files")
def import_(config: AtomsImportConfig, database: Path, dry_run: bool) -> None:
    """Import the structures of FILES into DATABASE: all of them, or none if it fails.

    Under mpirun or srun the ranks share the work. The stored bytes do not depend on the number of ranks.
    """
    from scimill.atoms.exchange import ingest
    from scimill.atoms.exchange.properties import Properties

    ranks, files = world(), [Path(path) for path in config.files]
    with ranks.together():
        properties = Properties(config.properties)
    if dry_run:
        click.echo(f"{database}: {describe_count(ranks.on_root(ingest.count, files), 'structure')} to import")
        return
    stop = Stop(ranks, config.walltime, config.walltime_margin)
    with _open(database, config) as opened:
        done = ingest.import_files(opened, files, properties, piece_rows=config.piece_size, stop=stop)
        total = opened.rows()
    _report_ignored(done.ignored)
    skipped = f", {describe_count(done.skipped, 'duplicate')} skipped" if done.skipped else ""
    click.echo(f"{database}: {describe_count(done.added, 'structure')} added{skipped}, {total:,} in all")


@atoms.command()
@DATABASE
def compress(database: Path) -> None:
    """Move the new structures of DATABASE into arrays, one set per stoichiometry.

    Under mpirun or srun the ranks share the work.
    """
    from scimill.atoms.database.database import Database

    with Database(database, write=True, world=world(), create=False) as opened:
        moved = opened.compress_dataset()
        groups = len(opened.groups)
    compressed = describe_count(sum(moved.values()), "structure")
    stoichiometries = describe_count(groups, "stoichiometry", "stoichiometries")
    click.echo(f"{database}: {compressed} compressed, {stoichiometries} in all")


@atoms.command()
@DATABASE
@click.argument("name", help="name of the reduction")
@configured(ReduceConfig)
def reduce(config: ReduceConfig, database: Path, name: str) -> None:
    """Create the reduction NAME of DATABASE: draw the first structures to train on.

    Test data, uncompressed structures and structures without an energy are never drawn.
    """
    from scimill.atoms.database.database import Database

    with Database(database, world=world()) as opened:
        fraction = config.fraction if config.number is None else None
        made = opened.create_reduction(name, fraction=fraction, number=config.number, seed=config.seed)
    drawn = describe_count(made.attributes["n_added"], "structure")
    click.echo(f"{database}: reduction {name}, iteration 0: {drawn}")


@atoms.command()
@DATABASE
@path_argument("output", help="where to write")
@click.option("--overwrite", is_flag=True, help="Replace an existing output once the new one is complete.")
@configured(CacheConfig)
def cache(config: CacheConfig, database: Path, output: Path, overwrite: bool) -> None:
    """Write the training and validation sets of an ensemble from DATABASE to the folder OUTPUT.

    Validation sets are disjoint if they are small enough. Under mpirun or srun the ranks share the members.
    """
    from scimill.atoms.database.database import Database

    with Database(database, world=world()) as opened:
        made = opened.build_strided_train_cache(
            output, config.reduction, config.train_fraction, config.valid_fraction, config.n_caches,
            config.use_uncompressed_data, config.format, config.seed,
            iteration=config.iteration, select=config.select, overwrite=overwrite,
        )  # fmt: skip
    sizes = f"{describe_count(made[0]['train'], 'structure')} to train on and {made[0]['valid']:,} to validate on"
    click.echo(f"{output}: {describe_count(len(made), 'member')}; the first has {sizes}")


@atoms.command(name="export-data")
@DATABASE
@path_argument("output", help="where to write")
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
@configured(ExportConfig)
def export_data(config: ExportConfig, database: Path, output: Path, overwrite: bool) -> None:
    """Write structures of DATABASE to OUTPUT, for other programs."""
    from scimill.atoms.database import caches
    from scimill.atoms.database.database import Database

    ranks = world()
    with Database(database, world=ranks) as opened:
        with ranks.together():
            chosen = opened.select(
                config.reduction, iteration=config.iteration, select=config.select,
                use_uncompressed_data=config.use_uncompressed_data,
            )  # fmt: skip
        count = ranks.on_root(caches.export, chosen, output, config.format, overwrite)
    click.echo(f"{output}: {describe_count(count, 'structure')}")


@atoms.command()
@click.option("--resume", is_flag=True, expose_value=False,
              help="Continue an earlier evaluation. This is always done.")  # fmt: skip
@DATABASE
@click.argument("name", help="name of the reduction")
@configured(EvaluateConfig)
def evaluate(config: EvaluateConfig, database: Path, name: str) -> None:
    """Evaluate the structures of DATABASE that the reduction NAME does not use.

    An ensemble or an ASE calculator evaluates them. Under mpirun or srun the ranks share the work. After a stop or a
    kill, run the same command again to continue.
    """
    from scimill.atoms.database.database import Database
    from scimill.atoms.evaluate import describe_predictions

    ranks = world()
    stop = Stop(ranks, config.walltime, config.walltime_margin)
    arguments = {key: yaml.safe_load(value) for key, value in config.arguments.items()}
    members = config.calculator.split(",")
    with Database(database, world=ranks) as opened:
        if config.ensemble is None:
            found = opened.ase_evaluate_unused_data(members, name, arguments=arguments, select=config.select, stop=stop)
        else:
            found = opened.evaluate_unused_data(config.ensemble, name, select=config.select, stop=stop)
    click.echo(f"{database}: {describe_predictions(found)}")
    if found.messages and ranks.is_root:
        say(f"the calculator failed on {describe_count(found.failed, 'structure')}; first error: {found.messages[0]}")


@atoms.command()
@DATABASE
@click.argument("name", help="name of the reduction")
@configured(UpdateConfig)
def update(config: UpdateConfig, database: Path, name: str) -> None:
    """Add evaluated structures of DATABASE to the training set of the reduction NAME, as a new iteration."""
    from scimill.atoms.database.database import Database

    with Database(database, world=world()) as opened:
        found = opened.predictions(name)
        done = opened.update_data_reductions(name, found.predicted, found.true, **plain(config))
    if done.complete:
        click.echo(f"{database}: nothing left to add; reduction {name} is complete at iteration {done.iteration}")
        return
    changes = f"{describe_count(done.added, 'structure')} added, {done.excluded:,} excluded"
    click.echo(f"{database}: reduction {name}, iteration {done.iteration}: {changes}")


@atoms.command()
@DATABASE
@training
@configured(AtomsTrainConfig)
def train(config: AtomsTrainConfig, database: Path, directory: "RunDirectory") -> None:
    """Train an ensemble of small potentials on the structures of DATABASE that a reduction selects.

    Under mpirun or horovodrun the ranks form one team per member; with fewer ranks than members, each team trains
    several members in turn. The batches do not depend on the number of ranks.
    """
    from scimill.atoms.database.database import Database
    from scimill.atoms.learning.train import train_ensemble

    ranks = world()
    with Database(database, world=ranks) as opened:
        trained = train_ensemble(config, opened, directory, ranks)
    if trained < config.members and ranks.is_root:
        say(f"members already finished: {config.members - trained}")
    click.echo(f"{directory.path}: {describe_count(config.members, 'member')}, each with model.pt and metrics.csv")


atoms.add_command(trials)


@atoms.command()
@path_argument("output", help="where to write")
@click.option("--count", type=click.IntRange(1, 1_000_000), default=300, show_default=True, help="Structures.")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Seed of the random numbers.")
def demo(output: Path, count: int, seed: int) -> None:
    """Write random Al, Cu and Ni alloys with EMT labels to the extended XYZ file OUTPUT, as example data."""
    from scimill.atoms.demo import write_demo

    world().on_root(write_demo, output, count, seed)
    click.echo(f"{output}: {describe_count(count, 'structure')}")


@atoms.command()
@DATABASE
@click.argument(
    "runs", nargs=-1, required=True, type=click.Path(path_type=Path), help="run directories, in the order of iterations"
)
@click.option("--output", "folder", type=click.Path(path_type=Path), required=True, help="Directory for the PNG files.")
def plot(database: Path, runs: tuple[Path, ...], folder: Path) -> None:
    """Plot the errors of the ensembles in RUNS on the test data of DATABASE.

    The plot shows them against the number of training structures. Reductions whose names differ only in a number at
    the end, such as active-1 and active-2, are averaged.
    """
    from scimill.atoms.database.database import Database
    from scimill.atoms.pictures import plots

    ranks = world()
    with Database(database, world=ranks.alone()) as opened:
        points = ranks.on_root(plots.learning_curve, opened, runs)
    click.echo(plots.describe_points(points))
    click.echo(ranks.on_root(plots.plot_learning, points, folder))
