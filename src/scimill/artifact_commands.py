"""The commands ``scimill verify``, ``inspect`` and ``repair``: for every kind of artifact."""

from pathlib import Path

import click

from scimill.errors import StorageError
from scimill.options import path_argument
from scimill.parallel.report import describe_count
from scimill.parallel.world import world

MOST_SHOWN = 20  # problems to list; the rest are only counted


@click.command()
@path_argument("path", help="a store, dataset, database or training run")
def verify(path: Path) -> None:
    """Check every byte of PATH that has a checksum: a store, a training run, a dataset, a database.

    Runs on any number of ranks.
    """
    from scimill.artifacts import find

    ranks = world()
    with ranks.together():
        artifact = find(path)
    findings = artifact.verify(ranks)
    for problem in findings.problems[:MOST_SHOWN]:
        click.echo(problem)
    if findings.problems:
        what, remedy = f"{describe_count(len(findings.problems), 'problem')} found", f"run scimill repair {path}"
        ranks.fail(StorageError(what, where=str(path), remedy=remedy))
    click.echo(findings.summary)


@click.command()
@path_argument("path", help="a store, dataset, database or training run")
def inspect(path: Path) -> None:
    """Print what PATH holds and where it comes from: a store, a training run, a dataset, a database."""
    from scimill.artifacts import find

    click.echo(world().on_root(lambda: find(path).inspect()))


@click.command()
@path_argument("path", help="a store, dataset, database or training run")
def repair(path: Path) -> None:
    """Rebuild only the damaged parts of PATH: a store, a training run, a dataset, a database.

    The command that made a store or dataset recomputes its damaged blocks, if its configuration and inputs still exist.
    Nothing is deleted. If it is interrupted, run it again. Runs on any number of ranks.
    """
    from scimill.artifacts import find_to_repair

    ranks = world()
    with ranks.together():
        artifact = find_to_repair(path)
    click.echo(artifact.repair(ranks))
