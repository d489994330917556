"""Commands that every campaign with a network has."""

from pathlib import Path

import click

from scimill.parallel.world import world


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--plot", "picture", type=click.Path(path_type=Path), help="Also draw them to this .png.")
def trials(folder: Path, picture: Path | None) -> None:
    """Rank the finished trials of the sweep in FOLDER, the best first."""
    from scimill.training import trials as sweep

    click.echo(world().on_root(sweep.report, folder, picture))
