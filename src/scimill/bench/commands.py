"""The commands ``scimill bench …``."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scimill.artifact_commands import verify
from scimill.bench.params import BenchGenerateConfig, ScaleConfig, SimilarityConfig, SizeConfig, TraceConfig
from scimill.config import preset_names
from scimill.options import Group, configured, fill_output, generating, path_argument
from scimill.parallel.report import say
from scimill.parallel.world import world

if TYPE_CHECKING:
    from scimill.store.output import Output


@click.group(cls=Group)
def bench() -> None:
    """Generate, scale and compare datasets for storage benchmarks, and compare I/O traces."""


bench.add_command(verify)


@bench.command()
@click.argument("workload", metavar="imseg|bert|dlrm", help="the workload")
@generating
@configured(BenchGenerateConfig, presets="scimill.bench/presets", positional="workload")
def generate(config: BenchGenerateConfig, output: "Output", dry_run: bool) -> None:
    """Generate a dataset of a given size into the directory OUTPUT, or into one file with --format hdf5.

    Under mpirun or srun all ranks write, and the bytes do not depend on their number.
    """
    from scimill.bench import generate as campaign

    ranks = world()
    plan = partial(campaign.describe_generation, config, output, ranks)
    fill = partial(campaign.generate, config, output, ranks)
    fill_output(output, config.workload, plan, fill, dry_run=dry_run)


@bench.command()
@click.argument("workload", metavar="imseg|bert|dlrm", help="the workload")
@configured(SizeConfig, presets="scimill.bench/presets", positional="workload")
def size(config: SizeConfig) -> None:
    """Show how large a dataset must be for a benchmark, and the command that generates it."""
    from scimill.bench import sizing

    click.echo(sizing.describe_size(config, world()))


@bench.command()
@click.argument("workload", metavar="imseg|bert|dlrm", help="the workload")
@path_argument("source", metavar="INPUT", help="a dataset or a store")
@generating
@configured(ScaleConfig, positional="workload")
def scale(config: ScaleConfig, source: Path, output: "Output", dry_run: bool) -> None:
    """Scale the dataset INPUT to another size: OUTPUT is a directory, or a file if INPUT is HDF5.

    A larger dataset repeats all records, resampled from the same distribution; a smaller one is a fair choice of them.
    Under mpirun or srun all ranks scan and write, and the bytes do not depend on their number.
    """
    from scimill.bench import scale as campaign

    ranks = world()
    if dry_run:
        click.echo(campaign.describe_scaling(config, source, output, ranks))
        return
    summary = campaign.scale(config, source, output, ranks)
    if summary is None and ranks.is_root:
        say(f"{output.path} was complete already")
    click.echo(f"{output.path}: {summary or config.workload}")


@bench.command()
@path_argument("a", help="a trace or a dataset")
@path_argument("b", help="a second trace or dataset")
@click.option("--plot", "picture", type=click.Path(path_type=Path), help="Also draw both into this PNG file.")
@configured(SimilarityConfig)
def similarity(config: SimilarityConfig, a: Path, b: Path, picture: Path | None) -> None:
    """Compare two I/O traces, or two datasets: their similarity from 0 to 1, part by part.

    A trace is a CSV file start,end,type[,offset,bytes,file], the output of strace -f -ttt -T -y, or the output of
    darshan-dxt-parser. A dataset is a directory or an HDF5 file.
    """
    from scimill.bench.similarity import compare

    click.echo(world().on_root(compare.describe_similarity, config, a, b, picture))


@bench.command()
@path_argument("output", help="CSV file to write")
@click.argument(
    "words", metavar="-- COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED, help="the command to trace"
)
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
@configured(TraceConfig)
def trace(config: TraceConfig, output: Path, words: tuple[str, ...], overwrite: bool) -> None:
    """Run COMMAND under strace and record its reads and writes in OUTPUT, a CSV trace.

    COMMAND may be an mpirun: the ranks on this machine are recorded too. Reads through mmap are not recorded.
    """
    from scimill.bench.traces import recording

    count = world().on_root(recording.record, config, output, words, overwrite)
    click.echo(f"{output}: {count:,} operation{'s' * (count != 1)}")


@bench.command()
@path_argument("source", metavar="DATA", help="a dataset or a store")
@click.option("--output", "folder", type=click.Path(path_type=Path), required=True,
              help="Directory for the PNG files.")  # fmt: skip
@click.option("--preset", type=click.Choice(preset_names("scimill.bench/presets")),
              help="Preset to compare with; by default the configuration that made the data.")  # fmt: skip
def plot(source: Path, folder: Path, preset: str | None) -> None:
    """Draw the sizes and values of the dataset DATA beside the distribution that they should have."""
    from scimill.bench.similarity import reference

    for path in world().on_root(reference.plot, source, folder, preset):
        click.echo(path)
