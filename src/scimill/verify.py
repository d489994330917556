"""The command ``scimill verify``: whether a store, or a finished training run, is what was written."""

from pathlib import Path

import click

from scimill.errors import StorageError
from scimill.parallel.world import world

MOST_SHOWN = 20  # problems that are told one by one


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
def verify(file: Path) -> None:
    """Check every byte of FILE: structure, ledger, data, physical ranges. Runs on any number of ranks.

    Of the directory of a training run it checks that the run is finished and its model whole.
    """
    if file.is_dir():
        from scimill.training.directory import verify_run

        click.echo(world().on_root(verify_run, file))
        return
    from scimill.store import verify as checker

    ranks = world()
    report = checker.verify(file, ranks)
    for problem in report.problems[:MOST_SHOWN]:
        click.echo(problem)
    if report.problems:
        ranks.fail(StorageError(f"{len(report.problems)} problems found", where=str(file),
                                remedy="generate with --resume does damaged blocks of a .part again"))  # fmt: skip
    left = f", {report.pending} of them still to do" if report.pending else ""
    click.echo(f"{file}: sound; {report.rows:,} rows in {report.blocks:,} blocks{left}")
