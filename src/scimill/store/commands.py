"""The command ``scimill repack``."""

from pathlib import Path

import click

from scimill.options import path_argument
from scimill.parallel.world import world


@click.command()
@path_argument("file", help="store to copy")
@path_argument("output", help="file to write")
@click.option("--compression", type=click.Choice(["gzip", "lzf", "none"]), default="gzip", show_default=True)
@click.option("--level", type=click.IntRange(0, 9), default=4, show_default=True, help="Level of gzip.")
@click.option("--shuffle/--no-shuffle", default=True, show_default=True, help="Shuffle bytes before compressing.")
@click.option("--chunk-rows", type=click.IntRange(1, 2**24), default=65_536, show_default=True, help="Rows per chunk.")
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
def repack(
    file: Path, output: Path, compression: str, level: int, shuffle: bool, chunk_rows: int, overwrite: bool
) -> None:
    """Copy the store FILE to OUTPUT, compressed or in other chunks. Runs on one rank only."""
    from scimill.parallel.report import human
    from scimill.store.output import Output
    from scimill.store.repack import Packing
    from scimill.store.repack import repack as copy

    packing = Packing(compression, level, shuffle, chunk_rows)
    before, after = world().on_root(copy, file, Output(output, overwrite=overwrite), packing)
    click.echo(f"{output}: {human(after)}, from {human(before)}")
