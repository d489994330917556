"""Commands of every campaign with a network."""

from pathlib import Path

import click

from scimill.files import check_directory
from scimill.options import path_argument
from scimill.parallel.world import world


@click.command()
@path_argument("folder", help="directory of a sweep")
@click.option("--plot", "picture", type=click.Path(path_type=Path), help="Also draw them in this .png file.")
def trials(folder: Path, picture: Path | None) -> None:
    """Rank the finished trials of the sweep in FOLDER, best first."""
    click.echo(world().on_root(_rank_trials, folder, picture))


def _rank_trials(folder: Path, picture: Path | None) -> str:
    from scimill.training.trials import describe_trials, read_trials

    finished, unfinished = read_trials(folder)
    if picture:
        from scimill.training.plots import plot_trials

        check_directory(picture)
        plot_trials(finished, picture)
    return describe_trials(finished) + (f"\n{unfinished} not finished" if unfinished else "")
